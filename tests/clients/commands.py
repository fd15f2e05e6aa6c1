"""The SDK's command lines: clearml-task and clearml-data."""

import re
import subprocess
import sys
from pathlib import Path

from clearml import Task
from clearml.backend_api.session.client import APIClient
from flow import done, held, same


def run(program, *args):
    path = Path(sys.executable).parent / program
    ended = subprocess.run([path, *args], capture_output=True, text=True, timeout=270)
    held(f"{program} {args}", ended.returncode == 0, ended.stdout + ended.stderr)
    return ended.stdout


def main():
    queue = APIClient().queues.create(name="commands").id
    script = Path("train.py")
    script.write_text("import argparse\np = argparse.ArgumentParser()\np.add_argument('--lr')\nprint(p.parse_args().lr)\n")
    Path("requirements.txt").write_text("numpy==2.0\n")
    said = run(
        "clearml-task", "--project", "commands", "--name", "remote", "--script", "train.py", "--args", "lr=0.003",
        "--queue", "commands", "--requirements", "requirements.txt", "--docker", "python:3.12",
        "--docker_args=--ipc=host", "--task-type", "testing", "--tags", "from-cli", "second", "--skip-task-init",
    )  # fmt: skip
    [made] = set(re.findall(r"id=([0-9a-f]{32})", said))
    task = Task.get_task(task_id=made)
    same("status", task.get_status(), "queued")
    same("argument", task.get_parameter("Args/lr"), "0.003")
    same("type", task.task_type, "testing")
    same("tags", sorted(task.get_tags()), ["from-cli", "second"])
    same("image", task.get_base_docker(), "python:3.12 --ipc=host")
    held("script", "add_argument('--lr')" in task.data.script.diff, task.data.script.diff)
    held("packages", "numpy==2.0" in task.data.script.requirements["pip"], task.data.script.requirements)
    same("in the queue", [e.task for e in APIClient().queues.get_by_id(queue=queue).entries], [made])
    said = run("clearml-task", "--project", "commands", "--name", "again", "--base-task-id", made, "--args", "lr=1",
               "--requirements", "requirements.txt")  # fmt: skip
    [copy] = set(re.findall(r"id=([0-9a-f]{32})", said)) - {made}
    same("a copy with another argument", Task.get_task(task_id=copy).get_parameter("Args/lr"), "1")

    Path("data").mkdir()
    Path("data/a.txt").write_text("a")
    said = run("clearml-data", "create", "--project", "commands", "--name", "set", "--version", "2.0", "--tags", "cli")
    [dataset] = re.findall(r"id=([0-9a-f]{32})", said)
    run("clearml-data", "add", "--files", "data")
    run("clearml-data", "upload")
    run("clearml-data", "close")
    said = run("clearml-data", "list", "--id", dataset)
    held("its file is listed", "a.txt" in said, said)
    said = run("clearml-data", "search", "--project", "commands", "--name", "set")
    held("it is found", dataset in said, said)
    run("clearml-data", "get", "--id", dataset, "--copy", "copied")
    same("its content", Path("copied/a.txt").read_text(), "a")
    said = run("clearml-data", "verify", "--id", dataset, "--folder", "copied")
    Path("data/b.txt").write_text("b")
    run("clearml-data", "sync", "--project", "commands", "--name", "set", "--parents", dataset, "--folder", "data")
    said = run("clearml-data", "search", "--project", "commands", "--name", "set")
    ids = set(re.findall(r"[0-9a-f]{32}", said))
    held("two versions", len(ids) == 2, said)
    [synced] = ids - {dataset}
    said = run("clearml-data", "compare", "--source", synced, "--target", dataset)
    held("one file more", "b.txt" in said or "1" in said, said)
    run("clearml-data", "delete", "--id", synced, "--force")
    said = run("clearml-data", "search", "--project", "commands", "--name", "set")
    held("deleted", synced not in said and dataset in said, said)
    done()


main()
