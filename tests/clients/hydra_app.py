"""An application of Hydra as users write it; says what it was given."""

import json

import hydra
from clearml import Task
from omegaconf import OmegaConf


@hydra.main(version_base=None, config_path="conf", config_name="config")
def app(config):
    task = Task.init(project_name="hydra", task_name="app", auto_resource_monitoring=False)
    print("GIVEN", json.dumps([task.id, OmegaConf.to_container(config, resolve=True)]), flush=True)


app()
