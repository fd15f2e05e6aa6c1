"""Tasks made, changed, cloned, enqueued, aborted, ended, published, archived, found and deleted."""

import re
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from clearml import Task
from flow import done, eventually, held, refused, same
from clearml.backend_api.session.client import APIClient


def endless():
    """A run of its own process that nothing but an abort ends."""
    task = Task.init(project_name="lifecycle", task_name="endless", auto_resource_monitoring=False)
    task.register_abort_callback(lambda: print("asked to stop", flush=True), callback_execution_timeout=20.0)
    print(f"SAID {task.id}", flush=True)
    time.sleep(300)


def aborted_while_it_runs(client):
    log = Path("endless.log")
    with log.open("wb") as out:
        run = subprocess.Popen([sys.executable, __file__, "endless"], stdout=out, stderr=out)
    task = eventually("it runs", lambda: re.search(r"^SAID ([0-9a-f]{32})", log.read_text(), re.MULTILINE), 60)[1]
    same("running", Task.get_task(task_id=task).get_status(), "in_progress")
    client.tasks.stop(task=task)
    eventually("its process ends", lambda: run.poll() is not None, 60)
    held("its callback was called", "asked to stop" in log.read_text(), log.read_text())
    read = Task.get_task(task_id=task)
    same("aborted", (read.get_status(), read.data.status_reason), ("stopped", "USER ABORTED"))
    same("the callback came to its end", read.data.runtime["_abort_callback_completed"], 1)
    console = lambda: "\n".join(read.get_reported_console_output(100))
    eventually("what it said is in the log", lambda: "asked to stop" in console())
    eventually("and that it was stopped", lambda: "TASK STOPPED - USER ABORTED" in console())


def main():
    client = APIClient()
    queue = client.queues.create(name="lifecycle", tags=["cpu"]).id
    made = Task.create(
        project_name="lifecycle",
        task_name="made",
        task_type="data_processing",
        repo="https://git.example.org/team/train.git",
        branch="main",
        commit="0123456789012345678901234567890123456789",
        script="train.py",
        working_directory="src",
        packages=["numpy==2.0", "requests"],
        docker="python:3.12",
        docker_args="--ipc=host -e A=1",
        docker_bash_setup_script=["apt-get update", "apt-get install -y x"],
        argparse_args=[("epochs", "3")],
        add_task_init_call=False,
    )
    read = Task.get_task(task_id=made.id)
    same("type", read.task_type, "data_processing")
    same("status", read.get_status(), "created")
    script = read.get_script()
    same("repository", script["repository"], "https://git.example.org/team/train.git")
    same("branch, folder, file", (script["branch"], script["working_dir"], script["entry_point"]), ("main", "src", "train.py"))
    same("packages", read.data.script.requirements["pip"].split(), ["numpy==2.0", "requests", "clearml"])
    same("image", read.get_base_docker(), "python:3.12 --ipc=host -e A=1")
    same("arguments of the script", read.get_parameter("Args/epochs"), "3")
    held("set-up script", "apt-get install -y x" in read.data.container["setup_shell_script"], read.data.container)

    read.set_base_docker(docker_image="python:3.13", docker_arguments=["--shm-size=1g"])
    same("another image", Task.get_task(task_id=made.id).get_base_docker(), "python:3.13 --shm-size=1g")
    read.set_script(repository="https://git.example.org/b.git", branch="dev", commit="", entry_point="b.py", diff="")
    same("another script", Task.get_task(task_id=made.id).get_script()["branch"], "dev")
    read.set_packages(["torch"])
    same("other packages", Task.get_task(task_id=made.id).data.script.requirements["pip"], "torch")
    read.set_name("renamed")
    read.set_comment("a comment\nof two lines")
    read.set_task_type(Task.TaskTypes.qc)
    read.add_tags(["one", "two"])
    read.add_tags("three")
    again = Task.get_task(task_id=made.id)
    same("name, comment", (again.name, again.comment), ("renamed", "a comment\nof two lines"))
    same("type", again.task_type, "qc")
    same("tags", sorted(again.get_tags()), ["one", "three", "two"])
    again.set_tags(["only"])
    again.set_system_tags([*again.get_system_tags(), "own"])
    again.reload()
    same("tags set", (again.get_tags(), "own" in again.get_system_tags()), (["only"], True))
    again.move_to_project(new_project_name="lifecycle/moved")
    again.reload()
    same("project", Task.get_task(task_id=made.id).get_project_name(), "lifecycle/moved")
    again.set_project(project_name="lifecycle")
    same("moved back", Task.get_task(task_id=made.id).get_project_name(), "lifecycle")

    # Queue: in, out, in; the place in it.
    held("enqueued", Task.enqueue(again, queue_name="lifecycle"))
    same("queued", Task.get_task(task_id=made.id).get_status(), "queued")
    same("in the queue", [e.task for e in client.queues.get_by_id(queue=queue).entries], [made.id])
    held("dequeued", Task.dequeue(again))
    same("created again", Task.get_task(task_id=made.id).get_status(), "created")
    Task.enqueue(again, queue_id=queue)
    other = Task.clone(source_task=again, name="second")
    Task.enqueue(other, queue_name="lifecycle")
    client.queues.move_task_to_front(queue=queue, task=other.id)
    same("order", [e.task for e in client.queues.get_by_id(queue=queue).entries], [other.id, made.id])
    same("a copy's parent", Task.get_task(other.id).parent, made.id)
    same("and what it copies", (other.get_base_docker(), Task.get_task(other.id).get_tags()), ("python:3.13 --shm-size=1g", ["only"]))
    refused("an unknown queue", lambda: Task.enqueue(made, queue_name="no such queue"), "no such queue")

    # Running, asked to stop, stopped; reset; ended well; published.
    again.mark_started(force=True)
    same("running", again.get_status(), "in_progress")
    again.set_progress(40)
    same("progress", Task.get_task(task_id=made.id).get_progress(), 40)
    # Nobody works on it, so a request to stop stops it at once.
    again.mark_stop_request(status_message="enough")
    eventually("stopped", lambda: Task.get_task(task_id=made.id).get_status() == "stopped")
    again.reset(set_started_on_success=False, force=True)
    same("reset", Task.get_task(task_id=made.id).get_status(), "created")
    same("tags outlive a reset", Task.get_task(task_id=made.id).get_tags(), ["only"])
    again.mark_started()
    again.mark_stopped(force=True, status_message="by hand")
    eventually("stopped by hand", lambda: Task.get_task(task_id=made.id).get_status() == "stopped")
    again.mark_started(force=True)
    again.mark_failed(status_reason="did not converge", status_message="see log", force=True)
    failed = Task.get_task(task_id=made.id)
    same("failed", (failed.get_status(), failed.data.status_reason), ("failed", "did not converge"))
    again.reset(force=True)
    again.mark_started(force=True)
    again.mark_completed()
    same("completed", Task.get_task(task_id=made.id).get_status(), "completed")
    held("waits no longer", again.wait_for_status(status=["completed"], check_interval_sec=0.2) is None)
    refused("a failed one while waiting", lambda: failed.wait_for_status(status=["closed"], raise_on_status=["completed"], check_interval_sec=0.2), "completed")
    again.publish(ignore_errors=False)
    same("published", Task.get_task(task_id=made.id).get_status(), "published")
    refused("reset of a published one", lambda: client.tasks.reset(task=made.id), "published")

    # Export and import.
    exported = Task.get_task(task_id=other.id).export_task()
    exported["name"] = "imported"
    imported = Task.import_task(exported)
    same("imported", (imported.name, imported.get_base_docker()), ("imported", "python:3.13 --shm-size=1g"))
    held("as a task of its own", imported.id != other.id)

    # Search.
    parent = Task.create(project_name="search", task_name="parent")
    for n in range(5):
        child = Task.create(project_name="search", task_name=f"child {n}", task_type="testing" if n % 2 else "training")
        child.set_tags(["even" if n % 2 == 0 else "odd", "all"])
        child.set_parent(parent)
        child.set_parameters({"General/n": n})
        if n == 3:
            child.mark_started()
            child.mark_completed()
        if n == 4:
            child.set_archived(True)
    in_sub = Task.create(project_name="search/below", task_name="child below")

    def names(**query):
        return [t.name for t in Task.get_tasks(**{"allow_archived": False, **query})]

    everything = ["child 0", "child 1", "child 2", "child 3", "child 4", "parent"]
    same("of a project, not of those below it", sorted(names(project_name="search", allow_archived=True)), everything)
    same("without the archived", sorted(names(project_name="search")), everything[:4] + ["parent"])
    same("and of those below", len(names(project_name="search", task_filter={"include_subprojects": True, "_allow_extra_fields_": True})), 6)
    same("by expression", sorted(names(project_name="search", task_name="child [01]")), ["child 0", "child 1"])
    same("all of these tags", sorted(names(project_name="search", tags=["__$all", "even", "all"])), ["child 0", "child 2"])
    same("without a tag", sorted(names(project_name="search", tags=["all", "__$not", "odd"]))[:1], ["child 0"])
    same("by exclusion", sorted(names(project_name="search", tags=["-even"], task_name="child [0-9]")), ["child 1", "child 3"])
    same("any of these tags", sorted(names(project_name="search", tags=["even", "odd"])), everything[:4])
    same("by status", names(project_name="search", task_filter={"status": ["completed"]}), ["child 3"])
    same("by type", sorted(names(project_name="search", task_filter={"type": ["testing"]})), ["child 1", "child 3"])
    same("by parent", len(names(task_filter={"parent": parent.id})), 4)
    same("archived too", len(names(task_filter={"parent": parent.id}, allow_archived=True)), 5)
    same("by id", [t.id for t in Task.get_tasks(task_ids=[in_sub.id])], [in_sub.id])
    same("in order", names(project_name="search", task_name="child [0-9]", task_filter={"order_by": ["-name"]}), [f"child {n}" for n in (3, 2, 1, 0)])
    same("one page", names(project_name="search", task_filter={"order_by": ["name"], "page": 1, "page_size": 2}) != [], True)
    hour = timedelta(hours=1)
    now = datetime.now(timezone.utc)
    same("by time", names(task_filter={"parent": parent.id, "status_changed": [f">={(now - hour).isoformat()}"]}), ["child 3"])
    same("by a time that is to come", names(task_filter={"parent": parent.id, "status_changed": [f">={(now + hour).isoformat()}"]}), [])
    same("by a parameter", [t["name"] for t in Task.query_tasks(project_name="search", additional_return_fields=["name", "hyperparams.General.n.value"], task_filter={"parent": parent.id, "order_by": ["name"]}) if t["hyperparams.General.n.value"] == "2"], ["child 2"])
    same("in all fields", names(task_filter={"_all_": {"fields": ["name", "id"], "pattern": "."}, "parent": parent.id, "type": ["testing"], "order_by": ["name"]}), ["child 1", "child 3"])
    same("in any field", sorted(names(task_filter={"_any_": {"fields": ["name"], "pattern": "child (0|1)"}, "parent": parent.id})), ["child 0", "child 1"])
    same("ids of names", len(Task.query_tasks(project_name="search", task_name="parent")), 1)
    same("several projects", len(names(project_name=["search/below", "lifecycle"])) >= 3, True)
    held("projects", "search" in [p.name for p in Task.get_projects()])
    same("a project's id", Task.get_project_id("search/below"), in_sub.project)
    same("tags of the project", {"even", "odd", "all"} <= set(client.projects.get_task_tags(projects=[parent.project]).tags), True)
    same("by tags alone", Task.get_task(project_name="search", task_name="child 2", tags=["even"]).name, "child 2")
    child.set_archived(False)
    same("not archived any more", len(names(task_filter={"parent": parent.id})), 5)

    # Deleted.
    held("deleted", in_sub.delete())
    same("gone", Task.query_tasks(task_filter={"id": [in_sub.id]}), [])
    refused("a published one", lambda: client.tasks.delete(task=made.id, force=False), "published")
    held("with force", client.tasks.delete(task=made.id, force=True).deleted)

    # An abort reaches the process that runs the task, which this one is not yet.
    aborted_while_it_runs(client)
    running = Task.init(project_name="lifecycle", task_name="aborted", auto_resource_monitoring=False)
    same("the current task", Task.current_task().id, running.id)
    same("is main", running.is_main_task(), True)
    seen = []
    running.register_abort_callback(lambda: seen.append("asked"), callback_execution_timeout=10.0)
    runtime = Task.get_task(running.id).data.runtime
    held("the callback is told to the server", any("abort" in key for key in runtime), runtime)
    running.register_abort_callback(None)
    running.completed() if hasattr(running, "completed") else running.mark_completed()
    running.close()
    done()


if __name__ == "__main__":
    endless() if sys.argv[1:] == ["endless"] else main()
