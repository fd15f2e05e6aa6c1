"""What the SDK of 2020 uploads to a file server at the root of a port of its own, as the servers of its time had it."""

import urllib.request
from pathlib import Path

import numpy
from flow import done, eventually, held, same
from trains import InputModel, OutputModel, Task
from trains.backend_api import Session
from trains.backend_api.session.client import APIClient


def main():
    files = Session.get_files_server_host()
    task = Task.init(project_name="trains", task_name="old uploads", auto_resource_monitoring=False, output_uri=files)
    text = Path("notes with space.txt")
    text.write_text("notes of old")
    folder = Path("folder")
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.txt").write_text(name)
    held("a dict", task.upload_artifact("dict", {"a": [1, 2], "b": "ü"}))
    held("a file", task.upload_artifact("file", text))
    held("a folder", task.upload_artifact("folder", folder))
    held("an array", task.upload_artifact("array", numpy.arange(12).reshape(3, 4)))
    picture = numpy.zeros((8, 8, 3), dtype=numpy.uint8)
    picture[2:5, 2:5] = 255
    task.get_logger().report_image("sample", "square", iteration=3, image=picture)
    weights = Path("weights.bin")
    weights.write_bytes(bytes(range(256)) * 100)
    model = OutputModel(task=task, name="old model", framework="PyTorch")
    model.update_weights(weights_filename=str(weights), auto_delete_file=False)
    task.flush(wait_for_uploads=True)
    task.close()

    read = Task.get_task(task_id=task.id)
    artifacts = read.artifacts
    same("artifacts", sorted(artifacts), ["array", "dict", "file", "folder"])
    same("dict", artifacts["dict"].get(), {"a": [1, 2], "b": "ü"})
    same("file", Path(artifacts["file"].get_local_copy()).read_text(), "notes of old")
    unpacked = Path(artifacts["folder"].get_local_copy())
    same("folder", sorted(p.read_text() for p in unpacked.rglob("*.txt")), ["a", "b"])
    same("array", artifacts["array"].get().tolist(), numpy.arange(12).reshape(3, 4).tolist())
    client = APIClient()
    samples = eventually(
        "the sample is known",
        lambda: client.session.send_request(
            "events", "debug_images", version="2.9", json={"metrics": [{"task": task.id, "metric": "sample"}]}
        ).json()["data"]["metrics"][0]["iterations"],
    )
    address = samples[0]["events"][0]["url"]
    with urllib.request.urlopen(address, timeout=60) as answer:
        held("the sample is a picture", answer.read(200)[:3] in (b"\xff\xd8\xff", b"\x89PN"))
    # By its id: the list of a task's models needs a Python older than 3.11.
    same("the task's model", read.output_model_id, model.id)
    found = InputModel(model_id=model.id)
    same("weights", Path(found.get_weights()).read_bytes(), weights.read_bytes())
    same("framework", found.framework, "PyTorch")
    done()


main()
