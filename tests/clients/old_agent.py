"""The agent of 2020 on this server: a daemon that takes a task, sends its log, and says how it ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from flow import done, eventually, held, same
from trains import Task
from trains.backend_api.session.client import APIClient


def main():
    client = APIClient()
    queue = client.queues.create(name="trains-agent").id
    made = client.tasks.create(
        name="for the old agent", type="training", project=client.projects.create(name="trains-agent", description="").id,
        script={"binary": "python", "repository": "", "entry_point": "old.py", "working_dir": ".",
                "diff": "print('old agent ran this')\n", "requirements": {"pip": ""}},
    ).id  # fmt: skip
    client.tasks.enqueue(task=made, queue=queue)
    # The package is as published; what Python has since taken out of `collections` is put back around it.
    Path("names").mkdir()
    Path("names/sitecustomize.py").write_text(
        "import collections, collections.abc\n"
        "for name in ('Iterable', 'Mapping', 'MutableMapping', 'Sequence', 'Callable', 'Hashable'):\n"
        "    setattr(collections, name, getattr(collections.abc, name))\n"
    )
    out = open("agent.log", "ab")
    daemon = subprocess.Popen(
        [sys.executable, "-m", "trains_agent", "daemon", "--queue", "trains-agent", "--foreground"],
        env={**os.environ, "TRAINS_WORKER_NAME": "old", "PYTHONPATH": "names"}, stdout=out, stderr=out,
        # Who runs the tests in the background lets them inherit that it is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    eventually("the worker is registered", lambda: [w for w in client.workers.get_all() if w.id.startswith("old")])
    eventually("it ended", lambda: str(Task.get_task(task_id=made).status) in ("completed", "failed"), 100)
    read = Task.get_task(task_id=made)
    log = "\n".join(read.get_reported_console_output(100))
    held("its log", f"Executing task id [{made}]" in log, log)
    # The virtualenv that it pins cannot make an environment for a Python of today, and it says so to the server.
    ran = "old agent ran this" in log
    same(f"how it ended, after {log}", str(read.status), "completed" if ran else "failed")
    held("with its reason", str(read.data.status_reason).startswith("worker execution"), read.data.status_reason)
    daemon.send_signal(signal.SIGINT)
    daemon.wait(90)
    done()


main()
