"""What Hydra made of files and overrides is on the server; what is changed there comes back into the next run."""

import json
import os
import subprocess
import sys
from pathlib import Path

from clearml import Task
from flow import done, held, same

FILES = {
    "config.yaml": "defaults:\n  - optimiser: sgd\n  - _self_\nmodel:\n  size: 3\n  name: net-${model.size}\nspare: 1\n",
    "optimiser/sgd.yaml": "kind: sgd\nrate: 0.1\n",
    "optimiser/adam.yaml": "kind: adam\nrate: 0.001\nbetas: [0.9, 0.99]\n",
}


def run(*arguments, task=None, fails=False):
    """The application in a process of its own; with a task as an agent starts it. Each run's task and configuration."""
    environment = dict(os.environ)
    if task:
        environment.update({"CLEARML_TASK_ID": task.id, "CLEARML_LOG_TASK_TO_BACKEND": "1"})
    ended = subprocess.run(
        [sys.executable, "hydra_app.py", *arguments], env=environment, capture_output=True, text=True, timeout=300
    )
    held(f"the application ends: {arguments}", (ended.returncode != 0) == fails, ended.stdout + ended.stderr)
    lines = [line for line in ended.stdout.splitlines() if line.startswith("GIVEN ")]
    return [tuple(json.loads(line.removeprefix("GIVEN "))) for line in lines]


def main():
    for name, text in FILES.items():
        path = Path("conf", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    [(first, given)] = run("model.size=5", "optimiser=adam", "+added.deep=[1,two]", "~spare")
    same("Hydra itself is not disturbed", given["model"], {"size": 5, "name": "net-5"})
    task = Task.get_task(first)
    same("it ended", task.status, "completed")
    overrides = {
        "Hydra/model.size": "5", "Hydra/optimiser": "adam", "Hydra/added.deep": "[1,two]", "Hydra/~spare": "",
        "Hydra/_allow_omegaconf_edit_": "False",
    }  # fmt: skip
    values = task.get_parameters()
    same("the overrides", {key: values.get(key) for key in overrides}, overrides)
    whole = task.get_configuration_object("OmegaConf")
    for line in ("  size: 5", "  name: net-${model.size}", "  kind: adam", "  deep:"):
        held(f"the whole configuration has {line!r}", line in whole.splitlines(), whole)
    held("what was taken away is not in it", "spare" not in whole, whole)

    # Overrides changed on the server, one of them new.
    copy = Task.clone(task, name="more")
    copy.set_parameters({**values, "Hydra/model.size": 9, "Hydra/optimiser.rate": 0.5})
    [(ran, given)] = run(task=copy)
    same("it is that task", ran, copy.id)
    same("the changed value arrives", given["model"], {"size": 9, "name": "net-9"})
    same("with the group that was chosen", given["optimiser"], {"kind": "adam", "rate": 0.5, "betas": [0.9, 0.99]})
    same("and the others", (given["added"], "spare" in given), ({"deep": [1, "two"]}, False))
    read = Task.get_task(copy.id)
    held("the whole is what ran", "  size: 9" in read.get_configuration_object("OmegaConf").splitlines())
    same("the original is as it was", Task.get_task(first).get_parameter("Hydra/model.size"), "5")

    # The whole configuration edited on the server.
    edited = Task.clone(task, name="edited")
    edited.set_parameter("Hydra/_allow_omegaconf_edit_", True)
    edited.set_configuration_object("OmegaConf", config_text="model:\n  size: 77\n", config_type="OmegaConf YAML")
    [(_, given)] = run(task=edited)
    same("the edited text is all that counts", given, {"model": {"size": 77}})

    # Several runs of one command are several tasks.
    runs = run("--multirun", "model.size=1,2", "optimiser=sgd,adam")
    same("four runs", len({ran for ran, _ in runs}), 4)
    for ran, given in runs:
        values = Task.get_task(ran).get_parameters()
        same(
            "each has its own overrides",
            (values["Hydra/model.size"], values["Hydra/optimiser"]),
            (str(given["model"]["size"]), given["optimiser"]["kind"]),
        )
        same("each has ended", Task.get_task(ran).status, "completed")
    found = Task.get_tasks(project_name="hydra", task_filter={"status": ["completed"]})
    held("all are found", {ran for ran, _ in runs} <= {t.id for t in found}, found)

    # An override that Hydra refuses never becomes a task.
    before = len(Task.get_tasks(project_name="hydra"))
    run("no.such=1", fails=True)
    same("no task of a refused command line", len(Task.get_tasks(project_name="hydra")), before)
    done()


main()
