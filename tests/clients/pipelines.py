"""Pipelines from tasks, from functions and by decorators: on this machine, and through queues that agents serve."""

import os
import subprocess
import sys
from pathlib import Path

from clearml import PipelineController, PipelineDecorator, Task
from clearml.backend_api.session.client import APIClient
from flow import done, eventually, held, same

client = APIClient()


def make_base():
    """The tasks that a pipeline copies."""
    source = (
        "from clearml import Task\n"
        "task = Task.init(project_name='pipelines', task_name='base', auto_resource_monitoring=False)\n"
        "p = task.connect({'n': 1, 'from': ''})\n"
        "print('step with', p)\n"
        "task.upload_artifact('out', {'n': int(p['n']) * 2}, wait_on_upload=True)\n"
        "task.get_logger().report_single_value('doubled', int(p['n']) * 2)\n"
    )
    Path("base.py").write_text(source)
    base = Task.create(project_name="pipelines", task_name="base", script="base.py", packages=["clearml"])
    base.set_parameters({"General/n": 1, "General/from": ""})
    base.set_base_docker("python:3.12")
    return base


def step_of_function(start: int, factor: int = 2):
    result = int(start) * factor
    print(f"function says {result}")
    return result


def last_of_function(value):
    print(f"last says {value}")
    return {"value": value}


def tasks_of(controller):
    return {t.name: t for t in Task.get_tasks(task_filter={"parent": controller}) if t.id != controller}


def from_tasks(queue=None):
    """Two copies of a task, the second with a value of the first."""
    local = Task.running_locally()
    base = make_base() if local else Task.get_task(project_name="pipelines", task_name="base")
    pipe = PipelineController(project="pipelines", name=f"of tasks {queue}", version="1.0.0", add_pipeline_tags=True, pool_frequency=0.02)
    pipe.add_parameter("start", 5)
    if queue:
        pipe.set_default_execution_queue(queue)
    pipe.add_step(name="first", base_task_id=base.id, parameter_override={"General/n": "${pipeline.start}"})
    pipe.add_step(
        name="second", parents=["first"], base_task_project="pipelines", base_task_name="base",
        parameter_override={"General/n": 7, "General/from": "${first.artifacts.out.url}"},
        monitor_metrics=[("Summary", "doubled")] if queue else None,
    )  # fmt: skip
    return pipe


def check_tasks(controller):
    read = Task.get_task(task_id=controller)
    same("the controller ended", read.get_status(), "completed")
    same("its type", read.task_type, "controller")
    steps = tasks_of(controller)
    same("its steps", sorted(steps), ["first", "second"])
    same("ended", [steps[s].get_status() for s in sorted(steps)], ["completed"] * 2)
    same("a parameter of the pipeline", steps["first"].get_parameter("General/n", cast=True), 5)
    same("an artifact", steps["first"].artifacts["out"].get(), {"n": 10})
    same("its address in the second", steps["second"].get_parameter("General/from"), steps["first"].artifacts["out"].url)
    same("the container settings of the base", steps["second"].get_base_docker(), "python:3.12")
    held("the tag", any(tag.startswith("pipe:") for tag in steps["first"].get_tags()), steps["first"].get_tags())
    held("the picture of it", ("Pipeline", "Execution Flow") in [(p["metric"], p["variant"]) for p in read.get_reported_plots()])
    held("it is among the pipelines", "pipeline" in read.get_system_tags(), read.get_system_tags())


def local_tasks():
    pipe = from_tasks()
    pipe.start_locally(run_pipeline_steps_locally=True)
    held("it succeeded", pipe.is_successful())
    check_tasks(pipe.id)


def local_functions():
    pipe = PipelineController(project="pipelines", name="of functions", version="2.0", pool_frequency=0.02)
    pipe.add_parameter("start", 3)
    pipe.add_function_step(name="double", function=step_of_function, function_kwargs={"start": "${pipeline.start}"},
                           function_return=["result"], cache_executed_step=True)  # fmt: skip
    pipe.add_function_step(name="last", function=last_of_function, function_kwargs={"value": "${double.result}"},
                           function_return=["answer"])  # fmt: skip
    pipe.start_locally(run_pipeline_steps_locally=True)
    held("it succeeded", pipe.is_successful())
    steps = tasks_of(pipe.id)
    same("its steps", sorted(steps), ["double", "last"])
    held("what the function said", "function says 6" in "".join(steps["double"].get_reported_console_output(20)))
    same("what it gave", steps["last"].artifacts["answer"].get(), {"value": 6})
    found = PipelineController.get(pipeline_project="pipelines", pipeline_name="of functions", pipeline_version="2.0")
    same("found by its name and version", found.id, pipe.id)


@PipelineDecorator.component(return_values=["number"], cache=False)
def component_one(start):
    print("component one")
    return int(start) + 1


@PipelineDecorator.component(return_values=["number"], task_type="data_processing")
def component_two(number):
    print("component two")
    return number * 10


@PipelineDecorator.pipeline(name="of decorators", project="pipelines", version="0.1", pool_frequency=0.02)
def decorated(start=1):
    number = component_one(start)
    result = component_two(number)
    print(f"the pipeline says {result}")
    return result


def local_decorators():
    PipelineDecorator.run_locally()
    same("its result", decorated(start=4), 50)
    [controller] = Task.get_tasks(project_name="pipelines/.pipelines/of decorators", task_name="of decorators",
                                  task_filter={"search_hidden": True, "_allow_extra_fields_": True})  # fmt: skip
    steps = tasks_of(controller.id)
    same("its steps", sorted(steps), ["component_one", "component_two"])
    same("type of the second", steps["component_two"].task_type, "data_processing")
    same("ended", [steps[s].get_status() for s in sorted(steps)], ["completed"] * 2)


def agent(name, *queues, services=False):
    """A daemon whose tasks run with this Python, nothing installed."""
    environment = {
        **os.environ,
        "CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL": "1",
        "CLEARML_AGENT_SKIP_PIP_VENV_INSTALL": sys.executable,
        "CLEARML_AGENT_QUEUE_POLL_FREQ_SEC": "0.5",
        "CLEARML_WORKER_NAME": name,
    }
    mode = ["--services-mode"] if services else []
    out = open(f"{name}.log", "ab")
    command = [os.environ["AGENT_PYTHON"], "-m", "clearml_agent", "daemon", *mode, "--queue", *queues, "--foreground", "--cpu-only"]
    return subprocess.Popen(command, env=environment, stdout=out, stderr=out)


def send_away():
    """`start` stores the pipeline, enqueues its controller, and ends the process; under the agent it goes on."""
    pipe = from_tasks("pipe-steps")
    print(f"CONTROLLER {pipe.id}", flush=True)
    pipe.start(queue="pipe-services", wait=True)


def through_queues():
    """The controller in `pipe-services`, its steps in `pipe-steps`, whose agent takes one task at a time."""
    for name in ("pipe-services", "pipe-steps"):
        client.queues.create(name=name)
    # What the agents run is this file again.
    os.environ.update(PART="send_away", PYTHONPATH=str(Path(__file__).parent))
    agents = [agent("pipe-services", "pipe-services", services=True), agent("pipe-steps", "pipe-steps")]
    run = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=270)
    held("the process that starts it ends well", run.returncode == 0, run.stdout + run.stderr)
    [controller] = [line.split()[1] for line in run.stdout.splitlines() if line.startswith("CONTROLLER ")]
    eventually("the controller ended", lambda: Task.get_task(task_id=controller).get_status() in ("completed", "failed"), 100)
    check_tasks(controller)
    same("steps ran in their queue", tasks_of(controller)["first"].get_executed_queue(return_name=True), "pipe-steps")
    for one in agents:
        one.terminate()


if __name__ == "__main__":
    part = os.environ["PART"]
    globals()[part]()
    if part != "send_away":
        done()
