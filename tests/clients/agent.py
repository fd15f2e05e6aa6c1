"""The unmodified clearml-agent on this server: one part of its work per run."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from clearml import Task
from clearml.backend_api.session.client import APIClient
from flow import PATIENCE, done, eventually, held, same

AGENT = os.environ["AGENT_PYTHON"]
client = APIClient()

# The agent's thread that reports goes on while it takes its worker away, and a report that is on its way then
# brings the worker back, on any server: a daemon whose end is looked at reports at its tasks and after 3 s only.
QUIET = {"CLEARML_AGENT_STATUS_REPORT_FREQ_SEC": "3600"}


def agent(*args, log="agent.log", **environment):
    """Starts the agent; tasks run with this Python, and nothing is installed."""
    environment = {
        **os.environ,
        "CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL": "1",
        "CLEARML_AGENT_SKIP_PIP_VENV_INSTALL": sys.executable,
        "CLEARML_AGENT_QUEUE_POLL_FREQ_SEC": "0.5",
        "CLEARML_AGENT_STATUS_REPORT_FREQ_SEC": "1",
        "CLEARML_AGENT_DISABLE_BOOTSTRAP": "1",
        "CLEARML_WORKER_NAME": f"{Path.cwd().name}",
        **environment,
    }
    out = open(log, "ab")
    # Who runs the tests in the background lets them inherit that SIGINT is ignored.
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen([AGENT, "-m", "clearml_agent", *args], env=environment, stdout=out, stderr=out, preexec_fn=heed)


def ended(process, seconds, *signals):
    for number in signals:
        process.send_signal(number)
    try:
        return process.wait(seconds * PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        return None


def make(name, source, **fields):
    """A task whose script is kept on the server, as the SDK makes it outside of a repository."""
    script = {"binary": "python3", "repository": "", "entry_point": f"{name}.py", "working_dir": ".", "diff": source,
              "requirements": {"pip": ""}}  # fmt: skip
    return client.tasks.create(name=name, type="training", script=script, **fields).id


def queue(name):
    return client.queues.create(name=name).id


def status(task):
    seen = client.tasks.get_by_id(task=task).status
    return getattr(seen, "value", seen)


def until(task, *statuses, seconds=60):
    eventually(f"{task} is one of {statuses}", lambda: status(task) in statuses, seconds)


def log_of(task):
    return "\n".join(Task.get_task(task_id=task).get_reported_console_output(number_of_reports=100))


def daemon_runs_queues_in_order():
    queues = [queue("agent-high"), queue("agent-low")]
    low, high, bad = make("low", "print('low said')"), make("high", "print('high said')"), make("bad", "raise SystemExit(3)")
    for task, to in ((low, 1), (bad, 1), (high, 0)):
        client.tasks.enqueue(task=task, queue=queues[to])
    daemon = agent("daemon", "--queue", "agent-high", "agent-low", "--foreground", "--cpu-only", **QUIET)
    mine = lambda: [w for w in client.workers.get_all() if Path.cwd().name in w.id]
    registered = eventually("the worker is registered", mine)
    same("its queues, in order", [q.name for q in registered[0].queues], ["agent-high", "agent-low"])
    for task in (low, high):
        until(task, "completed")
    until(bad, "failed")
    started = {task: client.tasks.get_by_id(task=task).started for task in (low, high, bad)}
    held("the first queue first, then in order", started[high] < started[low] < started[bad], started)
    held("its log", "high said" in log_of(high), log_of(high))
    same("how it ended", client.tasks.get_by_id(task=bad).status_reason, "worker execution exit code 3")
    held("who ran it", Path.cwd().name in client.tasks.get_by_id(task=high).last_worker)
    same("both queues are empty", [len(client.queues.get_by_id(queue=q).entries or []) for q in queues], [0, 0])

    # Aborted by a user: the agent ends the process.
    slow = make("slow", "import time\nprint('begins', flush=True)\ntime.sleep(600)\n")
    client.tasks.enqueue(task=slow, queue=queues[0])
    until(slow, "in_progress")
    eventually("it runs", lambda: "begins" in log_of(slow))
    client.tasks.stop(task=slow)
    until(slow, "stopped", seconds=40)
    same("the daemon ends when told", ended(daemon, 30, signal.SIGINT) is not None, True)
    eventually("and takes its worker away", lambda: not mine())


def execute_runs_one():
    """A script that sends itself away, then a copy of it with another argument, executed by id."""
    queue("agent-away")
    Path("away.py").write_text(
        "import argparse\nfrom clearml import Task\n"
        "p = argparse.ArgumentParser()\np.add_argument('--n', type=int, default=1)\n"
        "task = Task.init(project_name='agent', task_name='away', auto_resource_monitoring=False)\n"
        "args = p.parse_args()\nsettings = task.connect({'word': 'here'}, name='Own')\n"
        "task.execute_remotely(queue_name='agent-away')\n"
        "print(f\"n is {args.n}, word is {settings['word']}, remote is {not Task.running_locally()}\")\n"
        "task.get_logger().report_scalar('a', 'b', args.n, 1)\n"
        "task.upload_artifact('result', {'n': args.n}, wait_on_upload=True)\n"
    )
    run = subprocess.run([sys.executable, "away.py", "--n", "5"], capture_output=True, text=True, timeout=60 * PATIENCE)
    same("the script here ends", run.returncode, 0)
    held("without doing its work", "n is" not in run.stdout, run.stdout)
    [made] = set(re.findall(r"task id=([0-9a-f]{32})", run.stdout))
    same("it is queued", status(made), "queued")
    same("in its queue", [e.task for e in client.queues.get_all(name="agent-away")[0].entries], [made])

    copy = Task.clone(source_task=made, name="copy")
    copy.set_parameters({**copy.get_parameters(), "Args/n": 9, "Own/word": "there"})
    process = agent("execute", "--id", copy.id, "--log-level", "INFO")
    same("execute ends", ended(process, 90), 0)
    same("it ended well", status(copy.id), "completed")
    held("with the changed values", "n is 9, word is there, remote is True" in log_of(copy.id), log_of(copy.id))
    read = Task.get_task(task_id=copy.id)
    same("its artifact", read.artifacts["result"].get(), {"n": 9})
    same("its scalar", read.get_reported_scalars()["a"]["b"]["y"], [9.0])
    same("its parent", read.parent, made)
    same("the first one waits still", status(made), "queued")

    # A second run under a clone of its own, as `execute --clone` makes it.
    process = agent("execute", "--id", copy.id, "--clone", log="clone.log")
    same("execute --clone ends", ended(process, 90), 0)
    # The agent gives its clone the parent of what it clones.
    family = Task.get_tasks(task_filter={"parent": made})
    same("one more task", [t.get_status() for t in family], ["completed"] * 2)


def services_mode_runs_many():
    services = queue("agent-services")
    # Without docker the agent knows no limit of its own: each is started at once.
    tasks = [make(f"service {n}", "import time\nprint('up', flush=True)\ntime.sleep(600)\n") for n in range(3)]
    for task in tasks:
        client.tasks.enqueue(task=task, queue=services)
    daemon = agent("daemon", "--services-mode", "--queue", "agent-services", "--foreground", "--cpu-only",
                   CLEARML_WORKER_NAME="services")  # fmt: skip
    for task in tasks:
        until(task, "in_progress")
        eventually("it runs", lambda: "up" in log_of(task))
    same("all at once", [status(task) for task in tasks], ["in_progress"] * 3)
    eventually("a worker for each", lambda: len([w for w in client.workers.get_all() if w.id.startswith("services") and w.task]) == 3)
    for task in tasks:
        client.tasks.stop(task=task)
    for task in tasks:
        until(task, "stopped", seconds=60)
    ended(daemon, 30, signal.SIGINT)


def list_and_stop():
    queue("agent-detached")
    starter = agent("daemon", "--queue", "agent-detached", "--detached", "--cpu-only", CLEARML_WORKER_NAME="detached", **QUIET)
    same("the starter ends", ended(starter, 60), 0)
    workers = lambda: [w for w in client.workers.get_all() if w.id.startswith("detached")]
    mine = lambda: [w.id for w in workers()]
    eventually("the worker is there, and has reported", lambda: [w for w in workers() if w.last_report_time > w.register_time], 60)
    lister = agent("list", log="list.log")
    same("list ends", ended(lister, 60), 0)
    held("it lists the worker", mine()[0] in Path("list.log").read_text(), Path("list.log").read_text())
    stopper = agent("daemon", "--queue", "agent-detached", "--cpu-only", "--stop", log="stop.log", CLEARML_WORKER_NAME="detached")
    same("stop ends", ended(stopper, 60), 0)
    eventually("the worker is gone", lambda: not mine(), 60)


globals()[os.environ["PART"]]()
done()
