"""The SDK of 2020 on this server: what its users did then."""

import sys

from flow import done, eventually, held, same
from trains import Task
from trains.backend_api.session.client import APIClient


def main():
    sys.argv = ["old_sdk.py", "--epochs", "4"]
    import argparse

    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=1)
    task = Task.init(project_name="trains", task_name="old sdk", auto_resource_monitoring=False, output_uri=None)
    args = parser.parse_args()
    settings = task.connect({"rate": 0.5})
    logger = task.get_logger()
    for i in range(args.epochs):
        logger.report_scalar("loss", "train", value=settings["rate"] / (i + 1), iteration=i)
    logger.report_text("a line of old")
    print("printed by old")
    # It sends no credentials to a file server, and this one asks for them: artifacts by address alone.
    held("artifact", task.upload_artifact("file", "https://files.example.org/artifact.txt"))
    task.set_comment("old comment")
    task.add_tags(["old"])
    task.flush(wait_for_uploads=True)
    task.close()

    read = Task.get_task(task_id=task.id)
    same("status", str(read.status), "completed")
    same("parameter", read.get_parameters()["General/rate"], "0.5")
    same("argument", read.get_parameters()["Args/epochs"], "4")
    same("scalars", eventually("scalars", lambda: read.get_reported_scalars().get("loss"))["train"]["x"], [0, 1, 2, 3])
    held("console", any("a line of old" in text for text in read.get_reported_console_output(20)))
    same("artifact comes back", read.artifacts["file"].url, "https://files.example.org/artifact.txt")
    same("comment", read.comment, "old comment")
    copy = Task.clone(source_task=read, name="copy of old")
    client = APIClient()
    queue = client.queues.create(name="trains").id
    Task.enqueue(copy, queue_name="trains")
    same("queued", [e.task for e in client.queues.get_by_id(queue=queue).entries], [copy.id])
    same("found", [t.id for t in Task.get_tasks(project_name="trains", task_name="copy of old")], [copy.id])
    Task.dequeue(copy)
    copy.reset()
    same("created again", str(Task.get_task(task_id=copy.id).status), "created")
    done()


main()
