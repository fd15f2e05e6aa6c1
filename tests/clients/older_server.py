"""The SDK of today on servers of years ago: VERSION names the API version that the server plays."""

import os

from clearml import Task
from clearml.backend_api import Session
from clearml.backend_api.session.client import APIClient
from flow import done, eventually, held, same

VERSION = os.environ["VERSION"]


def main():
    task = Task.init(project_name="older", task_name=VERSION, output_uri=True, auto_resource_monitoring=False)
    same("the version that the SDK found", Session.api_version, VERSION)
    settings = task.connect({"rate": 0.5})
    logger = task.get_logger()
    for i in range(3):
        logger.report_scalar("loss", "train", value=settings["rate"] / (i + 1), iteration=i)
    logger.report_text("a line of it")
    held("an artifact", task.upload_artifact("result", {"of": VERSION}, wait_on_upload=True))
    task.flush(wait_for_uploads=True)
    task.close()

    read = Task.get_task(task_id=task.id)
    same("status", read.get_status(), "completed")
    same("parameter", read.get_parameter("General/rate"), "0.5")
    curve = eventually("scalars", lambda: read.get_reported_scalars().get("loss"))["train"]
    same("iterations", curve["x"], [0, 1, 2])
    same("last value", round(curve["y"][-1], 4), 0.1667)
    eventually("console", lambda: any("a line of it" in text for text in read.get_reported_console_output(20)))
    same("artifact", read.artifacts["result"].get(), {"of": VERSION})
    same("found", [t.id for t in Task.get_tasks(project_name="older", task_name=f"^{VERSION}$")], [task.id])

    # Without a version it looks for services that the older schemas have not, and fails by itself.
    client = APIClient(api_version=VERSION)
    queue = client.queues.create(name="older").id
    copy = Task.clone(source_task=read, name="copy")
    Task.enqueue(copy, queue_name="older")
    same("queued", Task.get_task(task_id=copy.id).get_status(), "queued")
    same("in the queue", [e.task for e in client.queues.get_by_id(queue=queue).entries], [copy.id])
    same("with the parameter", Task.get_task(task_id=copy.id).get_parameter("General/rate"), "0.5")
    Task.dequeue(copy)
    same("taken out", Task.get_task(task_id=copy.id).get_status(), "created")
    done()


main()
