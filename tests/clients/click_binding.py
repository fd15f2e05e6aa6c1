"""What a command line of click was given is on the server."""

import sys

import click
from clearml import Task
from flow import done, same

task = Task.init(project_name="parameters", task_name="click", auto_resource_monitoring=False)


@click.command()
@click.option("--count", default=1, type=int)
@click.option("--name", default="nobody")
@click.option("--loud/--quiet", default=False)
def hello(count, name, loud):
    task.flush(wait_for_uploads=True)
    values = Task.get_task(task.id).get_parameters()
    same("count", values["Args/count"], "3")
    same("name", values["Args/name"], "all")
    same("loud", values["Args/loud"], "True")
    done()


sys.argv = ["click_binding.py", "--count", "3", "--name", "all", "--loud"]
hello()
