"""The SDK's search for hyperparameters, random and by grid, on queues that agents serve."""

import os
import subprocess
import sys
from pathlib import Path

from clearml import Task
from clearml.automation import (
    DiscreteParameterRange,
    GridSearch,
    HyperParameterOptimizer,
    RandomSearch,
    UniformIntegerParameterRange,
)
from clearml.backend_api.session.client import APIClient
from flow import done, held, same

SOURCE = """
from clearml import Task
task = Task.init(project_name='hpo', task_name='base', auto_resource_monitoring=False)
p = task.connect({'x': 1, 'y': 1})
for i in range(2):
    task.get_logger().report_scalar('score', 'value', int(p['x']) * 10 + int(p['y']), i)
"""


def agent(name, queue):
    environment = {
        **os.environ,
        "CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL": "1",
        "CLEARML_AGENT_SKIP_PIP_VENV_INSTALL": sys.executable,
        "CLEARML_AGENT_QUEUE_POLL_FREQ_SEC": "0.5",
        "CLEARML_WORKER_NAME": name,
    }
    out = open(f"{name}.log", "ab")
    command = [os.environ["AGENT_PYTHON"], "-m", "clearml_agent", "daemon", "--queue", queue, "--foreground", "--cpu-only"]
    return subprocess.Popen(command, env=environment, stdout=out, stderr=out)


def search(strategy, ranges, jobs, name):
    queue = f"hpo-{name}"
    APIClient().queues.create(name=queue)
    agents = [agent(f"{queue}-{n}", queue) for n in range(2)]
    Path("base.py").write_text(SOURCE)
    base = Task.create(project_name="hpo", task_name=f"base {name}", script="base.py", packages=["clearml"])
    base.set_parameters({"General/x": 1, "General/y": 1})
    base.set_base_docker("python:3.12", docker_arguments="--ipc=host")
    task = Task.init(project_name="hpo", task_name=name, task_type=Task.TaskTypes.optimizer, auto_resource_monitoring=False)
    optimizer = HyperParameterOptimizer(
        base_task_id=base.id,
        hyper_parameters=ranges,
        objective_metric_title="score",
        objective_metric_series="value",
        objective_metric_sign="max",
        max_number_of_concurrent_tasks=2,
        optimizer_class=strategy,
        execution_queue=queue,
        total_max_jobs=jobs,
        pool_period_min=0.02,
        save_top_k_tasks_only=-1,
    )
    optimizer.set_report_period(0.05)
    optimizer.start()
    held("it ended in time", optimizer.wait(timeout=6))
    top = optimizer.get_top_experiments(top_k=3)
    optimizer.stop()
    task.close()
    for one in agents:
        one.terminate()
    children = Task.get_tasks(task_filter={"parent": task.id})
    same("children", len(children), jobs)
    same("all ended", {child.get_status() for child in children}, {"completed"})
    same("container settings of each", {child.get_base_docker() for child in children}, {"python:3.12 --ipc=host"})
    scores = {c.id: c.get_last_scalar_metrics()["score"]["value"]["last"] for c in children}
    expected = {c.id: int(c.get_parameter("General/x")) * 10 + int(c.get_parameter("General/y")) for c in children}
    same("what each reported", scores, {k: float(v) for k, v in expected.items()})
    same("the best is the best", scores[top[0].id], max(scores.values()))
    held("the optimizer's own reports", Task.get_task(task.id).get_reported_scalars() or Task.get_task(task.id).get_reported_plots())
    return expected


def random():
    search(RandomSearch, [UniformIntegerParameterRange("General/x", 1, 9), UniformIntegerParameterRange("General/y", 0, 9)], 4, "random")


def grid():
    values = search(GridSearch, [DiscreteParameterRange("General/x", [1, 2]), DiscreteParameterRange("General/y", [3, 4])], 4, "grid")
    same("each point once", sorted(values.values()), [13, 14, 23, 24])


if __name__ == "__main__":
    globals()[os.environ["PART"]]()
    done()
