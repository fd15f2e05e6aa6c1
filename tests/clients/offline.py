"""A run without a server, uploaded afterwards, also into a task that is there.

No output model: `OutputModel.update_weights` of 2.1.12 fails in offline mode by itself ("no attribute 'locked'").
"""

import subprocess
import sys
from pathlib import Path

from flow import done, held, same


def away():
    """Runs with every address of the server replaced by one where nobody listens."""
    from clearml import Task

    Task.set_offline(True)
    task = Task.init(project_name="offline", task_name="away", output_uri=True, auto_resource_monitoring=False, tags=["x"])
    task.connect({"rate": 0.5})
    task.connect_configuration({"a": [1]}, name="tree")
    logger = task.get_logger()
    for i in range(4):
        logger.report_scalar("loss", "train", 1.0 / (i + 1), i)
    logger.report_single_value("best", 7)
    logger.report_table("table", "t", iteration=0, table_plot=[["a", "b"], [1, 2]])
    print("a line said offline")
    task.upload_artifact("dict", {"a": 1}, wait_on_upload=True)
    Path("notes.txt").write_text("notes")
    task.upload_artifact("file", "notes.txt", wait_on_upload=True)
    task.set_comment("made away")
    folder = task.get_offline_mode_folder()
    task.close()
    print(f"FOLDER {folder}")


def main():
    run = subprocess.run([sys.executable, __file__, "away"], capture_output=True, text=True, timeout=270)
    held("a run away from the server", run.returncode == 0, run.stdout + run.stderr)
    [folder] = [line.split()[1] for line in run.stdout.splitlines() if line.startswith("FOLDER ")]
    archive = Path(folder).with_suffix(".zip") if not folder.endswith(".zip") else Path(folder)
    held("its session is kept", archive.is_file() or Path(folder).is_dir(), run.stdout)

    from clearml import Task

    session = str(archive if archive.is_file() else folder)
    made = Task.import_offline_session(session)
    held("it is imported", isinstance(made, str) and len(made) == 32, made)
    read = Task.get_task(task_id=made)
    same("name", read.name, "away")
    same("project", read.get_project_name(), "offline")
    same("comment", read.comment, "made away")
    same("tags", "x" in read.get_tags(), True)
    same("parameter", read.get_parameter("General/rate"), "0.5")
    same("configuration", read.get_configuration_object_as_dict("tree"), {"a": [1]})
    same("scalars", read.get_reported_scalars()["loss"]["train"]["x"], [0, 1, 2, 3])
    same("single value", read.get_reported_single_value("best"), 7)
    held("table", any(p["metric"] == "table" for p in read.get_reported_plots()))
    held("console", any("a line said offline" in text for text in read.get_reported_console_output(20)))
    same("artifact", read.artifacts["dict"].get(), {"a": 1})
    same("a file", Path(read.artifacts["file"].get_local_copy()).read_text(), "notes")
    same("status", read.get_status(), "completed")

    # Into a task that is there, behind its last iteration.
    into = Task.create(project_name="offline", task_name="there before")
    into.mark_started()
    same("imported into a task", Task.import_offline_session(session, previous_task_id=into.id, iteration_offset=10), into.id)
    same("iterations", Task.get_task(into.id).get_reported_scalars()["loss"]["train"]["x"], [10, 11, 12, 13])
    done()


if __name__ == "__main__":
    away() if len(sys.argv) > 1 else main()
