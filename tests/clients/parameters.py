"""Parameters in all the ways in which they are bound, read back from the server and put back into the objects."""

import argparse
import json
import sys
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from clearml import Task
from flow import done, eventually, held, same


class Plain:
    size = 3
    name = "plain"
    rate = 0.5


@dataclass
class Settings:
    depth: int = 4
    wide: bool = True
    layers: list = field(default_factory=lambda: [1, 2])


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


def main():
    sys.argv = ["parameters.py", "--epochs", "5", "--rate=0.25", "--items", "a", "b", "--flag", "train", "--split", "9"]
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--flag", action="store_true")
    parser.add_argument("--items", nargs="+")
    parser.add_argument("--empty", default=None)
    commands = parser.add_subparsers(dest="command")
    train = commands.add_parser("train")
    train.add_argument("--split", type=int, default=0)

    task = Task.init(project_name="parameters", task_name="all", auto_resource_monitoring=False)
    args = parser.parse_args()
    same("argparse itself is not disturbed", (args.epochs, args.items, args.split), (5, ["a", "b"], 9))

    flat = task.connect({"alpha": 1, "beta": 0.5, "text": "x = y", "none": None, "yes": True, "list": [1, "two"]})
    nested = task.connect(
        {"outer": {"inner": {"deep": 7}, "other": "o"}, "with/slash": 1, "empty": {}}, name="nested section"
    )
    same("nested values stay", nested["outer"]["inner"]["deep"], 7)
    task.connect(Plain, name="object")
    task.connect(Settings(), name="dataclass")
    task.connect({"colour": Colour.BLUE}, name="enum")
    task.connect({"umlaut ä": "grün ✓", "tuple": (1, 2), "big": 2**70, "tiny": 1e-300}, name="unicode")
    Path("settings.yaml").write_text("a: 1\nb: [2, 3]\n")
    held("a path comes back", Path(task.connect_configuration(Path("settings.yaml"), name="file")).is_file())
    same("a dict comes back", task.connect_configuration({"x": {"y": [1, 2]}}, name="tree")["x"]["y"], [1, 2])
    task.connect_label_enumeration({"cat": 0, "dog": 1})
    task.set_parameter("General/added", 12, description="with words", value_type=int)
    task.set_parameters_as_dict({"Later": {"group": {"k": "v"}}})
    task.set_user_properties({"name": "reviewed", "description": "by whom", "value": "me"}, speed="fast", number=3)
    task.set_configuration_object("written", config_text="k = 1", config_type="text", description="by hand")
    task.set_configuration_object("as dict", config_dict={"n": [1, {"m": 2}]})
    flat["beta"] = 0.75
    task.flush(wait_for_uploads=True)

    read = eventually(
        "a change of a connected value is kept",
        lambda: next((t for t in [Task.get_task(task.id)] if t.get_parameter("General/beta") == "0.75"), None),
    )
    values = read.get_parameters()
    expected = {
        "Args/epochs": "5", "Args/rate": "0.25", "Args/flag": "True", "Args/items": "['a', 'b']",
        "Args/split": "9",
        "General/alpha": "1", "General/text": "x = y", "General/none": "", "General/yes": "True",
        "General/added": "12", "nested section/outer/inner/deep": "7", "nested section/outer/other": "o",
        "object/size": "3", "object/name": "plain", "dataclass/depth": "4", "dataclass/wide": "True",
        "enum/colour": "BLUE", "unicode/umlaut ä": "grün ✓", "Later/group/k": "v",
    }  # fmt: skip
    for key, value in expected.items():
        same(f"parameter {key}", values.get(key), value)
    typed = read.get_parameters(cast=True)
    same("types come back", (typed["Args/epochs"], typed["Args/rate"], typed["Args/flag"]), (5, 0.25, True))
    same("and of lists", typed["General/list"], [1, "two"])
    same("and large ones", (typed["unicode/big"], typed["unicode/tiny"]), (2**70, 1e-300))
    tree = read.get_parameters_as_dict(cast=True)
    same("as a tree", tree["nested section"]["outer"]["inner"]["deep"], 7)

    same("configuration tree", read.get_configuration_object_as_dict("tree"), {"x": {"y": [1, 2]}})
    held("configuration file", "b: [2, 3]" in read.get_configuration_object("file"))
    same("configuration text", read.get_configuration_object("written"), "k = 1")
    same("configuration dict", read.get_configuration_object_as_dict("as dict"), {"n": [1, {"m": 2}]})
    same("all configurations", set(read.get_configuration_objects()) >= {"tree", "file", "written", "as dict"}, True)
    same("labels", read.get_labels_enumeration(), {"cat": 0, "dog": 1})
    properties = read.get_user_properties()
    same("user property", properties["reviewed"]["value"], "me")
    same("its description", properties["reviewed"]["description"], "by whom")
    same("number", properties["number"]["value"], "3")
    same("value only", read.get_user_properties(value_only=True)["speed"], "fast")
    held("a property is removed", read.delete_user_properties([("properties", "speed")]))
    same("properties left", sorted(Task.get_task(task.id).get_user_properties()), ["number", "reviewed"])
    held("a parameter is removed", read.delete_parameter("General/added", force=True))
    same("it is gone", Task.get_task(task.id).get_parameter("General/added"), None)

    # Another's change of a copy, and what the copy holds besides.
    copy = Task.clone(source_task=task, name="copy")
    copy.set_parameters({**copy.get_parameters(), "Args/epochs": 9, "General/alpha": 2})
    copy.set_configuration_object("tree", config_dict={"x": 5})
    again = Task.get_task(copy.id)
    same("the copy's own value", again.get_parameter("Args/epochs", cast=True), 9)
    same("the original's", Task.get_task(task.id).get_parameter("Args/epochs", cast=True), 5)
    same("the copy's configuration", again.get_configuration_object_as_dict("tree"), {"x": 5})
    copy.update_parameters({"Args/rate": 2.0})
    same("one changed, all kept", Task.get_task(copy.id).get_parameters()["Args/items"], "['a', 'b']")
    found = Task.query_tasks(project_name="parameters", additional_return_fields=["hyperparams.Args.epochs.value"])
    held("asked for by a field", {"9", "5"} <= {json.loads(json.dumps(t))["hyperparams.Args.epochs.value"] for t in found}, found)
    task.close()
    done()


main()
