"""A run of the SDK over a server that is killed and comes back: it goes on by itself, and all that it reported is there."""

import time
from pathlib import Path

from clearml import Task
from flow import done, eventually, held, same


def main():
    task = Task.init(project_name="s57", task_name="outlive", auto_resource_monitoring=False)
    settings = task.connect({"rate": 0.5})
    logger = task.get_logger()
    # The test kills the server once it reads this, and says by a file that another is up.
    print("READY", flush=True)
    iteration, again = 0, Path("again")
    until = time.monotonic() + 270
    after = 0
    while after < 20:
        logger.report_scalar("loss", "train", value=settings["rate"] / (iteration + 1), iteration=iteration)
        logger.report_text(f"line {iteration} of it")
        if iteration == 10:
            held("an upload is begun", task.upload_artifact("early", {"of": iteration}))
        iteration += 1
        after += again.exists()
        held("the server comes back", time.monotonic() < until)
        time.sleep(0.05)
    task.upload_artifact("late", {"of": iteration})
    task.flush(wait_for_uploads=True)
    task.close()

    read = Task.get_task(task_id=task.id)
    same("status", read.status, "completed")
    same("parameter", read.get_parameters()["General/rate"], "0.5")
    curve = eventually(
        "the whole curve", lambda: (c := read.get_reported_scalars()["loss"]["train"]) and len(c["x"]) == iteration and c
    )
    same("each iteration once", curve["x"], [float(i) for i in range(iteration)])
    said = "\n".join(read.get_reported_console_output(10_000))
    missing = [i for i in range(iteration) if f"line {i} of it" not in said]
    same("lines that are missing", missing, [])
    same("artifact of before", read.artifacts["early"].get(), {"of": 10})
    same("artifact of afterwards", read.artifacts["late"].get(), {"of": iteration})
    done()


main()
