"""Datasets: made, filled, uploaded, closed, read, derived, compared, listed, squashed, deleted."""

from pathlib import Path

import numpy as np
from clearml import Dataset, Task
from flow import done, held, refused, same


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file())


def main():
    source = Path("source")
    (source / "below").mkdir(parents=True)
    (source / "one.txt").write_text("one")
    (source / "below/two.txt").write_text("two")
    (source / "below/large.bin").write_bytes(np.random.default_rng(1).bytes(2_000_000))
    first = Dataset.create(dataset_project="data", dataset_name="images", dataset_version="1.0", dataset_tags=["raw"],
                           description="what it is")  # fmt: skip
    same("files added", first.add_files(source), 3)
    first.set_metadata({"origin": "made"}, metadata_name="facts")
    first.get_logger().report_scalar("sizes", "files", 3, 0)
    first.upload(show_progress=False, chunk_size=1)
    held("closed", first.finalize())
    same("is final", first.is_final(), True)
    refused("a file added to a closed one", lambda: first.add_files(__file__), "")

    read = Dataset.get(dataset_project="data", dataset_name="images")
    same("found by name", read.id, first.id)
    same("files", sorted(read.list_files()), ["below/large.bin", "below/two.txt", "one.txt"])
    copy = read.get_local_copy()
    same("a copy", files(copy), ["below/large.bin", "below/two.txt", "one.txt"])
    same("content", (Path(copy) / "below/large.bin").read_bytes(), (source / "below/large.bin").read_bytes())
    same("nothing differs", read.verify_dataset_hash(copy), [])
    same("metadata", read.get_metadata("facts"), {"origin": "made"})
    same("version", read.version, "1.0")
    same("tags", read.tags, ["raw"])

    second = Dataset.create(dataset_project="data", dataset_name="images", parent_datasets=[first.id], dataset_version="1.1")
    (source / "one.txt").write_text("one, changed")
    (source / "three.txt").write_text("three")
    second.add_files(source / "three.txt")
    same("changed: removed, added, modified", second.sync_folder(source), (0, 1, 1))
    second.remove_files("below/two.txt")
    second.upload(show_progress=False)
    second.finalize()
    read = Dataset.get(dataset_id=second.id)
    same("files of the second", sorted(read.list_files()), ["below/large.bin", "one.txt", "three.txt"])
    same("added", read.list_added_files(), ["three.txt"])
    same("removed", read.list_removed_files(), ["below/two.txt"])
    same("modified", read.list_modified_files(), ["one.txt"])
    writable = read.get_mutable_local_copy("writable")
    same("a writable copy", (Path(writable) / "one.txt").read_text(), "one, changed")
    held("ancestors", first.id in read.get_dependency_graph()[second.id])
    same("newest by name", Dataset.get(dataset_project="data", dataset_name="images").id, second.id)
    same("by version", Dataset.get(dataset_project="data", dataset_name="images", dataset_version="1.0").id, first.id)
    same("by tag", Dataset.get(dataset_project="data", dataset_name="images", dataset_tags=["raw"]).id, first.id)
    listed = Dataset.list_datasets(dataset_project="data", only_completed=True)
    same("listed", sorted(d["version"] for d in listed), ["1.0", "1.1"])
    same("of that name", {d["name"] for d in listed}, {"images"})

    squashed = Dataset.squash(dataset_name="squashed", dataset_ids=[second.id])
    same("squashed", sorted(squashed.list_files()), ["below/large.bin", "one.txt", "three.txt"])
    made = Dataset.get(dataset_project="data", dataset_name="made on demand", auto_create=True)
    made.add_files(source / "three.txt")
    held("made on demand", made.finalize(auto_upload=True))
    part = Dataset.get(dataset_id=second.id).get_local_copy(part=0, num_parts=1)
    held("a part", len(files(part)) >= 1, files(part))
    Dataset.move_to_project("elsewhere", dataset_project="data", dataset_name="images")
    same("moved", Dataset.get(dataset_project="elsewhere", dataset_name="images").id, second.id)
    # A rename is of the project alone: the SDK leaves the versions' own names as they are.
    Dataset.rename("pictures", dataset_project="elsewhere", dataset_name="images")
    same("renamed", Task.get_task(task_id=second.id).get_project_name(), "elsewhere/.datasets/pictures")
    refused("one that is not there", lambda: Dataset.get(dataset_project="data", dataset_name="nothing of that name"), "")

    # Used by a task: the dataset is among what the task names.
    task = Task.init(project_name="data", task_name="reader", auto_resource_monitoring=False)
    Dataset.get(dataset_id=second.id, alias="training data")
    task.flush(wait_for_uploads=True)
    held("alias", second.id in str(Task.get_task(task.id).get_parameters()), Task.get_task(task.id).get_parameters())
    task.close()

    Dataset.delete(dataset_id=made.id, delete_files=True)
    same("deleted", [d["id"] for d in Dataset.list_datasets(dataset_project="data", ids=[made.id])], [])
    done()


main()
