"""Input and output models: made, registered, found, loaded, changed, published, deleted."""

from pathlib import Path

import joblib
import numpy as np
from clearml import InputModel, Model, OutputModel, Task
from clearml.backend_api import Session
from flow import done, eventually, held, same
from sklearn.linear_model import LogisticRegression


def main():
    task = Task.init(
        project_name="models", task_name="train", output_uri=True, auto_resource_monitoring=False, reuse_last_task_id=False
    )
    # What was fitted, as a file of its own.
    fitted = LogisticRegression().fit(np.arange(10).reshape(-1, 1), np.arange(10) > 4)
    joblib.dump(fitted, "fitted.pkl")
    learned = OutputModel(task=task, name="learned", framework="ScikitLearn")
    learned.update_weights("fitted.pkl", auto_delete_file=False)

    made = OutputModel(
        task=task, name="by hand", framework="PyTorch", label_enumeration={"cat": 0, "dog": 1},
        config_dict={"layers": [1, 2]}, tags=["fresh"], comment="made by hand",
    )  # fmt: skip
    Path("weights.bin").write_bytes(b"weights " * 1000)
    made.update_weights("weights.bin", iteration=7)
    made.set_metadata("accuracy", "0.5", "float")
    made.set_all_metadata({"note": {"type": "str", "value": "good"}}, replace=False)
    made.report_scalar("quality", "f1", 0.5, 1)
    made.report_single_value("score", 3)
    made.report_table("table", "t", csv=None, table_plot=__import__("pandas").DataFrame({"a": [1]}), iteration=0)
    made.wait_for_uploads()
    task.flush(wait_for_uploads=True)

    read = Model(made.id)
    same("name", read.name, "by hand")
    same("framework", read.framework, "PyTorch")
    same("labels", read.labels, {"cat": 0, "dog": 1})
    same("configuration", read.config_dict, {"layers": [1, 2]})
    same("tags", read.tags, ["fresh"])
    held("comment", "made by hand" in read.comment, read.comment)
    same("task", read.task, task.id)
    same("weights", Path(read.get_local_copy()).read_bytes(), b"weights " * 1000)
    same("metadata", read.get_metadata("accuracy"), "0.5")
    same("cast metadata", read.get_metadata_casted("accuracy"), 0.5)
    same("all metadata", read.get_all_metadata()["note"]["value"], "good")
    # The SDK has no reader of its own for a model's reports; its session can ask.
    def ask(action, **body):
        return Session().send_request("events", action, json=body).json()["data"]

    of_model = {"task": made.id, "model_events": True}
    curves = eventually("scalars of the model", lambda: ask("scalar_metrics_iter_histogram", **of_model))
    same("a scalar", curves["quality"]["f1"]["y"], [0.5])
    values = ask("get_task_single_value_metrics", tasks=[made.id], model_events=True)["tasks"]
    same("a single value", values[0]["values"][0]["value"], 3)
    same("plots", [p["metric"] for p in ask("get_task_plots", **of_model)["plots"]], ["table"])
    of_task = Task.get_task(task.id).models["output"]
    same("models of the task", [m.name for m in of_task], ["learned", "by hand"])
    same("by the file's name, as the SDK keeps them", of_task["weights"].id, made.id)
    same("latest", Task.get_task(task.id).models["output"][-1].id, made.id)

    made.tags = ["fresh", "second"]
    made.name = "renamed"
    made.comment = "changed"
    same("renamed", (Model(made.id).name, Model(made.id).comment), ("renamed", "changed"))
    made.set_metadata("accuracy", "0.6", "float")
    same("metadata changed", Model(made.id).get_metadata("accuracy"), "0.6")

    # Several files, and a package.
    for n in range(2):
        Path(f"part{n}.bin").write_text(f"part {n}")
    package = OutputModel(task=task, name="package")
    package.update_weights_package(weights_filenames=["part0.bin", "part1.bin"], auto_delete_file=False)
    package.wait_for_uploads()
    paths = Model(package.id).get_weights_package(return_path=False)
    same("files of a package", sorted(Path(p).name for p in paths), ["part0.bin", "part1.bin"])

    # Found.
    def names(**query):
        return sorted(m.name for m in Model.query_models(project_name="models", **query))

    same("by name", names(model_name="renamed"), ["renamed"])
    same("by tag", names(tags=["second"]), ["renamed"])
    same("without a tag", "renamed" in names(tags=["-second"]), False)
    same("by metadata", names(metadata={"note": "good"}), ["renamed"])
    same("published only", names(only_published=True), [])
    made.publish()
    same("published", names(only_published=True), ["renamed"])
    held("says so", Model(made.id).published)
    Model(package.id).archive()
    held("archived is not listed", "package" not in names())
    held("but with archived", "package" in names(include_archived=True))
    Model(package.id).unarchive()
    held("and again", "package" in names())

    # An input model: registered by address, connected, loaded.
    imported = InputModel.import_model(
        weights_url=read.url, name="imported", framework="Keras", label_enumeration={"x": 1}, create_as_published=True,
        project="models",
    )  # fmt: skip
    held("an address has one model", imported.id is not None)
    user = Task.create(project_name="models", task_name="user")
    user.connect(InputModel(model_id=package.id), name="start from")
    same("input model", [m.name for m in Task.get_task(user.id).models["input"]], ["package"])
    same("its name in the task", list(Task.get_task(user.id).models["input"].keys()), ["start from"])
    user.remove_input_models([package.id])
    same("removed", list(Task.get_task(user.id).models["input"]), [])
    user.set_input_model(model_id=made.id, name="again")
    copy = Task.clone(source_task=user, name="copy of the user")
    same("a copy keeps its input", [m.id for m in Task.get_task(copy.id).models["input"]], [made.id])
    same("by name and project", InputModel(name="renamed", project="models", only_published=True).id, made.id)
    loaded = joblib.load(InputModel(model_id=learned.id).get_local_copy())
    same("what was learned", bool(loaded.predict([[9]])[0]), True)
    task.close()

    held("a model is deleted with its file", Model.remove(package.id, delete_weights_file=True, force=True))
    same("gone", [m for m in Model.query_models(project_name="models", include_archived=True) if m.id == package.id], [])
    done()


main()
