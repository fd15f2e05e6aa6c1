"""Artifacts of each kind, up and down."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from clearml import Task
from clearml.storage import StorageManager
from flow import done, eventually, held, refused, same
from PIL import Image


class Own:
    """Something that only pickle can keep."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return self.value == other.value


def address_of(task, name):
    """Where an artifact is on record; `task.artifacts` has the frame itself in place of one that is registered."""
    task.reload()
    return next((one.uri for one in task.data.execution.artifacts or [] if one.key == name), None)


def main():
    task = Task.init(project_name="artifacts", task_name="all", output_uri=True, auto_resource_monitoring=False)
    frame = pd.DataFrame({"n": range(50), "square": [n * n for n in range(50)]})
    folder = Path("folder/below")
    folder.mkdir(parents=True)
    (folder / "one.txt").write_text("one")
    (folder.parent / "two.bin").write_bytes(bytes(range(256)) * 100)
    Path("report ü & more.txt").write_text("file with an odd name")
    (Path("wild")).mkdir()
    for n in range(3):
        Path(f"wild/{n}.csv").write_text(f"a\n{n}\n")
    things = {
        "dict": {"a": 1, "b": [1, {"c": None}]},
        "array": np.arange(24).reshape(4, 6),
        "frame": frame,
        "series": None,
        "image": Image.new("RGB", (8, 6), "red"),
        "text": "some text\nof two lines",
        "own": Own([1, 2]),
        "list": [1, "two", 3.0],
        "number": 12.5,
        "file": Path("report ü & more.txt"),
        "folder": Path("folder"),
        "odd name/with slash": {"x": 1},
    }
    things.pop("series")
    for name, thing in things.items():
        held(f"upload of {name}", task.upload_artifact(name, thing, metadata={"kind": name}, wait_on_upload=True))
    held("wildcard", task.upload_artifact("wild", "wild/*.csv", wait_on_upload=True))
    held("csv", task.upload_artifact("as csv", frame, extension_name=".csv", wait_on_upload=True))
    held("parquet is not needed", task.upload_artifact("pickled frame", frame, auto_pickle=True, extension_name=".pkl",
                                                       wait_on_upload=True))  # fmt: skip
    held("by address", task.upload_artifact("address", "https://example.org/model.bin"))
    held("preview", task.upload_artifact("previewed", {"z": 1}, preview="my own preview", wait_on_upload=True))
    held("large", task.upload_artifact("large", np.zeros(3_000_000, dtype=np.uint8), wait_on_upload=True))
    held("in the background", task.upload_artifact("later", {"late": True}))
    task.register_artifact("registered", frame, metadata={"m": 1})
    same("a registered frame", len(task.get_registered_artifacts()["registered"]), 50)
    # Snapshots of it have one address, and two at once would come there in any order.
    first = eventually("its first snapshot", lambda: address_of(task, "registered"))
    eventually("the file of the first", lambda: StorageManager.exists_file(first))
    frame.loc[0, "n"] = 99
    # The end of a task takes no snapshot while another is under way; this asks for a last one.
    task.unregister_artifact("registered")
    eventually("the last snapshot begins", lambda: "registered" not in task.get_registered_artifacts())
    task.flush(wait_for_uploads=True)
    task.close()

    read = Task.get_task(task_id=task.id)
    kept = eventually("the one of the background", lambda: read.artifacts if "later" in read.artifacts else read.reload())
    same("dict", kept["dict"].get(), things["dict"])
    held("array", np.array_equal(kept["array"].get(), things["array"]))
    same("frame", list(kept["frame"].get()["square"])[:4], [0, 1, 4, 9])
    same("csv", list(kept["as csv"].get()["square"])[-1], 49 * 49)
    same("image", kept["image"].get().size, (8, 6))
    same("text", kept["text"].get(), things["text"])
    same("list", list(kept["list"].get()), things["list"])
    same("number", kept["number"].get(), 12.5)
    same("file", Path(kept["file"].get_local_copy()).read_text(), "file with an odd name")
    unpacked = Path(kept["folder"].get_local_copy())
    same("folder", (unpacked / "below/one.txt").read_text(), "one")
    same("its other file", (unpacked / "two.bin").stat().st_size, 25600)
    held("not unpacked", kept["folder"].get_local_copy(extract_archive=False).endswith(".zip"))
    same("wildcard", len(list(Path(kept["wild"].get_local_copy()).rglob("*.csv"))), 3)
    same("odd name", kept["odd name/with slash"].get(), {"x": 1})
    same("own class", kept["own"].get(), Own([1, 2]))
    same("address", kept["address"].url, "https://example.org/model.bin")
    same("own preview", kept["previewed"].preview, "my own preview")
    same("registered", int(kept["registered"].get()["n"].iloc[0]), 99)
    same("its metadata", kept["registered"].metadata, {"m": "1"})
    same("large", kept["large"].get().nbytes, 3_000_000)
    one = kept["dict"]
    same("type", one.type, "JSON") if one.type in ("JSON", "json") else same("type", one.type, "dict")
    same("metadata", one.metadata["kind"], "dict")
    same("size", one.size, Path(one.get_local_copy()).stat().st_size)
    held("hash", len(one.hash or "") == 64, one.hash)
    held("time", one.timestamp is not None)
    same("mode", one.mode, "output")
    held("a preview of the frame", "square" in (kept["frame"].preview or ""), kept["frame"].preview)
    held("preview of a dict is JSON", json.loads(kept["dict"].preview.replace("'", '"').replace("None", "null")) is not None)

    # Deleting an artifact takes its file along.
    url = kept["number"].url
    held("the file is there", StorageManager.exists_file(url))
    same("its size is told", StorageManager.get_file_size_bytes(url) > 0, True)
    held("deleted", read.delete_artifacts(["number"]))
    held("one of elsewhere is only forgotten", read.delete_artifacts(["address"], delete_from_storage=False))
    held("not listed", "number" not in Task.get_task(task_id=task.id).artifacts)
    held("the file is gone", not StorageManager.exists_file(url))

    # Artifacts of a copy, and of a task deleted.
    copy = Task.clone(source_task=read, name="copy")
    held("output artifacts are not copied", "dict" not in Task.get_task(copy.id).artifacts, None)
    dict_url = kept["dict"].url
    held("a task is deleted with its artifacts", read.delete(delete_artifacts_and_models=True))
    same("the task is gone", Task.query_tasks(task_filter={"id": [task.id]}), [])
    held("its file too", not StorageManager.exists_file(dict_url))
    refused("a task that is gone", lambda: Task.get_task(task_id="0" * 32), "0" * 32)
    done()


main()
