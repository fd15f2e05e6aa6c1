"""Task.init in its modes, in one process after the other as users run them: this file runs itself with a mode."""

import os
import subprocess
import sys
from pathlib import Path

from flow import done, eventually, held, same


def child(mode, *args, folder=None, **environment):
    """Runs one mode; gives the words of its lines `SAID ...`."""
    command = [sys.executable, "-c" if mode == "-c" else __file__, *([] if mode == "-c" else [mode]), *args]
    environment = {**os.environ, **environment, "PYTHONPATH": str(Path(__file__).parent)}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180)
    held(f"{mode} {args} ends well", run.returncode == 0, run.stdout + run.stderr)
    return [line.split()[1:] for line in run.stdout.splitlines() if line.startswith("SAID ")]


def plain(name, *switches):
    from clearml import Task

    options = {}
    for switch in switches:
        key, value = switch.split("=")
        options[key] = {"True": True, "False": False}.get(value, int(value) if value.isdigit() else value)
    task = Task.init(project_name="init", task_name=name, auto_resource_monitoring=False, **options)
    logger = task.get_logger()
    for i in range(3):
        logger.report_scalar("loss", "train", value=1.0 / (i + 1), iteration=i)
    print(f"SAID {task.id} {task.get_initial_iteration()}")
    print("a line of the console")
    task.close()


def failing():
    from clearml import Task

    task = Task.init(project_name="init", task_name="failing", auto_resource_monitoring=False)
    print(f"SAID {task.id}", flush=True)
    raise ValueError("this is the user's own error")


def several():
    """More than one task in a process, the way loops over experiments do it."""
    from clearml import Task

    for i in range(2):
        task = Task.init(
            project_name="init", task_name=f"several {i}", reuse_last_task_id=False, auto_resource_monitoring=False
        )
        same("the current task", Task.current_task().id, task.id)
        print(f"SAID {task.id}")
        task.close()
    held("no task is current after close", Task.current_task() is None)


def rich():
    from clearml import Task

    task = Task.init(
        project_name="init/deeper/still",
        task_name="rich",
        task_type=Task.TaskTypes.testing,
        tags=["one", "two"],
        output_uri=True,
        auto_connect_frameworks={"matplotlib": False, "joblib": ["*.only"]},
        auto_connect_streams={"stdout": True, "stderr": False, "logging": True},
        auto_connect_arg_parser=False,
        auto_resource_monitoring=False,
        reuse_last_task_id=False,
    )
    print(f"SAID {task.id}")


def resources():
    """The SDK's monitor of the machine reports at once when asked to."""
    from clearml import Task

    task = Task.init(
        project_name="init",
        task_name="resources",
        reuse_last_task_id=False,
        auto_resource_monitoring={
            "report_start_sec": 1,
            "report_frequency_sec": 1,
            "wait_for_first_iteration_to_start_sec": 0.1,
        },
    )
    print(f"SAID {task.id}", flush=True)
    # It ends once the server has it.
    eventually("a report", lambda: "cpu_usage" in task.get_reported_scalars().get(":monitor:machine", {}))


def git(folder, *args):
    subprocess.run(
        ["git", "-c", "user.name=Tester", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main", *args],
        cwd=folder,
        check=True,
        capture_output=True,
    )


def main():
    from clearml import Task

    [[first, offset]] = child("plain", "reused")
    same("iterations begin at", offset, "0")
    [[second, _]] = child("plain", "reused")
    same("a task without artifacts is used again", second, first)
    read = Task.get_task(task_id=first)
    same("status", read.get_status(), "completed")
    same("its scalars were begun anew", len(read.get_reported_scalars()["loss"]["train"]["x"]), 3)
    same("found by project and name", Task.get_task(project_name="init", task_name="reused").id, first)

    [[third, _]] = child("plain", "reused", "reuse_last_task_id=False")
    held("another task was made", third != first, third)

    [[continued, offset]] = child("plain", "reused", "continue_last_task=True")
    same("the last task goes on", continued, third)
    same("behind its last iteration", offset, "3")
    x = eventually(
        "both runs' scalars",
        lambda: [x for x in [Task.get_task(third).get_reported_scalars()["loss"]["train"]["x"]] if len(x) == 6],
    )
    same("iterations", x[0], [0, 1, 2, 3, 4, 5])

    [[continued, offset]] = child("plain", "reused", f"continue_last_task={first}")
    same("a task is continued by its id", (continued, offset), (first, "3"))
    [[continued, offset]] = child("plain", "reused", f"continue_last_task={first}", "reuse_last_task_id=False")
    same("and again", (continued, offset), (first, "6"))
    [[continued, offset]] = child("plain", "other name", f"reuse_last_task_id={third}")
    same("a task is used again by its id", (continued, offset), (third, "0"))

    # Without a repository the script itself is kept.
    script = read.data.script
    same("no repository", script.repository or "", "")
    same("entry point", script.entry_point, "init_modes.py")
    held("the source is kept", "Task.init in its modes" in script.diff, script.diff)
    held("the packages are kept", "clearml == 2.1.12" in script.requirements["pip"], script.requirements)
    held("the console is kept", any("a line of the console" in text for text in read.get_reported_console_output(10)))

    # In a repository: address, commit, branch, uncommitted change.
    folder = Path("repository")
    folder.mkdir()
    git(folder, "init", "--quiet")
    source = Path(__file__).read_text()
    (folder / "train.py").write_text(source)
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "Train")
    git(folder, "remote", "add", "origin", "https://git.example.org/team/train.git")
    (folder / "train.py").write_text(source + "\n# not committed\n")
    run = subprocess.run(
        [sys.executable, "train.py", "plain", "in a repository"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    held("a task in a repository", run.returncode == 0, run.stdout + run.stderr)
    task = Task.get_task(project_name="init", task_name="in a repository")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True).stdout.strip()
    same("commit", task.data.script.version_num, commit)
    same("branch", task.data.script.branch, "main")
    same("repository", task.data.script.repository, "https://git.example.org/team/train.git")
    held("the change", "+# not committed" in task.data.script.diff, task.data.script.diff)
    same("working folder", task.data.script.working_dir, ".")

    run = subprocess.run([sys.executable, __file__, "failing"], capture_output=True, text=True, timeout=180)
    held("the user's error ends the program", run.returncode == 1 and "user's own error" in run.stderr, run.stderr)
    failed = Task.get_task(project_name="init", task_name="failing")
    same("and fails the task", failed.get_status(), "failed")

    ids = [line[0] for line in child("several")]
    same("two tasks", len(set(ids)), 2)
    same("both ended", [task.get_status() for task in Task.get_tasks(task_ids=ids)], ["completed"] * 2)

    [[made]] = child("rich")
    rich_task = Task.get_task(task_id=made)
    same("type", rich_task.task_type, "testing")
    same("tags", sorted(rich_task.get_tags()), ["one", "two"])
    same("project", rich_task.get_project_name(), "init/deeper/still")
    held("destination", rich_task.output_uri and rich_task.output_uri.startswith("http"), rich_task.output_uri)
    held("the project's parents are there", Task.get_project_id("init/deeper") is not None)

    [[monitored]] = child("resources")
    scalars = Task.get_task(task_id=monitored).get_reported_scalars()
    held("the machine was reported", "cpu_usage" in scalars.get(":monitor:machine", {}), list(scalars))

    # The task of a variable: what an agent sets for its child.
    [[remote, _]] = child("plain", "empty variables", CLEARML_PROC_MASTER_ID="", CLEARML_TASK_ID="")
    held("empty variables count as none", len(remote) == 32, remote)
    done()


if __name__ == "__main__":
    modes = {"plain": plain, "failing": failing, "several": several, "rich": rich, "resources": resources}
    if len(sys.argv) > 1:
        modes[sys.argv[1]](*sys.argv[2:])
    else:
        main()
