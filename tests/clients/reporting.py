"""Scalars, plots, tables, images, media and console text, read back as the SDK reads them."""

import io
import math
import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from clearml import Logger, Task
from flow import done, eventually, held, same
from PIL import Image


def main():
    task = Task.init(project_name="reporting", task_name="all", output_uri=True, auto_resource_monitoring=False)
    logger = task.get_logger()
    logger.set_default_upload_destination(task.get_output_destination() or task.output_uri)

    for i in range(20):
        logger.report_scalar("loss", "train", value=math.exp(-i / 5), iteration=i)
        logger.report_scalar("loss", "test", value=math.exp(-i / 4) + 0.1, iteration=i)
    logger.report_scalar("odd / title", "series: 1.5 $", value=1, iteration=0)
    logger.report_single_value("best", 0.93)
    logger.report_single_value("worst", -2)
    logger.report_scalar("not a number", "nan", value=float("nan"), iteration=1)
    Logger.current_logger().report_text("a line by report_text", print_console=False)
    Logger.current_logger().report_text("a warning", level=30, print_console=False)
    print("a printed line")
    print("an error line", file=sys.stderr)

    logger.report_histogram("plots", "histogram", iteration=0, values=np.arange(5), xlabels=list("abcde"))
    logger.report_vector("plots", "vector", iteration=0, values=[1, 2, 3])
    logger.report_scatter2d("plots", "scatter", iteration=0, scatter=np.array([[0, 1], [1, 2]]), mode="markers")
    logger.report_scatter3d("plots", "cloud", iteration=0, scatter=np.random.rand(5, 3))
    logger.report_surface("plots", "surface", iteration=0, matrix=np.random.rand(4, 4))
    logger.report_confusion_matrix("plots", "confusion", iteration=3, matrix=np.eye(3), xlabels=list("abc"))
    logger.report_table("tables", "frame", iteration=0, table_plot=pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}))
    Path("table.csv").write_text("a,b\n1,2\n")
    logger.report_table("tables", "csv", iteration=0, csv="table.csv")
    logger.report_plotly("plots", "plotly", iteration=0, figure={"data": [{"x": [1], "y": [2], "type": "bar"}], "layout": {}})
    plt.figure()
    plt.plot([1, 2, 3])
    plt.title("drawn")
    plt.show()
    plt.figure()
    plt.plot([3, 2, 1])
    logger.report_matplotlib_figure("figures", "figure", iteration=0, figure=plt.gcf())
    logger.report_matplotlib_figure("figures", "as image", iteration=0, figure=plt.gcf(), report_image=True)

    picture = np.zeros((16, 24, 3), dtype=np.uint8)
    picture[:, :, 0] = 200
    for i in range(3):
        logger.report_image("samples", "array", iteration=i, image=picture)
    logger.report_image("samples", "pillow", iteration=0, image=Image.fromarray(picture))
    Image.fromarray(picture).save("picture.png")
    logger.report_image("samples", "file", iteration=0, local_path="picture.png")
    logger.report_image("samples", "address", iteration=0, url="https://example.org/picture.jpg")
    Path("page.html").write_text("<b>page</b>")
    logger.report_media("media", "page", iteration=0, local_path="page.html")
    logger.report_media("media", "stream", iteration=0, stream=io.BytesIO(b"RIFF"), file_extension="wav")
    logger.report_media("media", "address", iteration=0, url="https://example.org/film.mp4")
    task.flush(wait_for_uploads=True)
    task.close()

    read = Task.get_task(task_id=task.id)
    scalars = read.get_reported_scalars()
    same("points", scalars["loss"]["train"]["x"], list(range(20)))
    held("values", abs(scalars["loss"]["test"]["y"][4] - (math.exp(-1) + 0.1)) < 1e-6, scalars["loss"]["test"]["y"])
    same("an odd name", scalars["odd / title"]["series: 1.5 $"]["y"], [1.0])
    for axis in ("timestamp", "iso_time"):
        held(f"by {axis}", len(read.get_reported_scalars(x_axis=axis)["loss"]["train"]["x"]) >= 1)
    few = read.get_reported_scalars(max_samples=5)["loss"]["train"]
    held("down-sampled", 1 <= len(few["x"]) <= 6, few)
    same("a single value", read.get_reported_single_value("best"), 0.93)
    same("all single values", read.get_reported_single_values(), {"best": 0.93, "worst": -2})
    last = read.get_last_scalar_metrics()
    same("last, least, most", [round(last["loss"]["train"][k], 6) for k in ("last", "min", "max")],
         [round(math.exp(-19 / 5), 6)] * 2 + [1.0])  # fmt: skip
    same("last iteration", read.get_last_iteration(), 19)
    everything = read.get_all_reported_scalars()
    same("all points", len(everything["loss"]["train"]["y"]), 20)

    plots = {(p["metric"], p["variant"]): p for p in read.get_reported_plots()}
    for key in [
        ("plots", "histogram"), ("plots", "vector"), ("plots", "scatter"), ("plots", "cloud"), ("plots", "surface"),
        ("plots", "confusion"), ("plots", "plotly"), ("tables", "frame"), ("tables", "csv"), ("figures", "figure"),
    ]:  # fmt: skip
        held(f"plot {key}", key in plots, list(plots))
    held("a plot's text", "plot_str" in plots["plots", "confusion"] and "heatmap" in plots["plots", "confusion"]["plot_str"])
    same("a plot's iteration", plots["plots", "confusion"]["iter"], 3)
    held("what matplotlib showed", any("drawn" in metric for metric, _ in plots), list(plots))

    samples = read.get_debug_samples("samples", "array", n_last_iterations=10)
    same("images of a series", sorted(s["iter"] for s in samples), [0, 1, 2])
    from clearml.storage import StorageManager

    image = Image.open(StorageManager.get_local_copy(samples[0]["url"]))
    same("the image itself", image.size, (24, 16))
    for title, series in [("samples", "pillow"), ("samples", "file"), ("samples", "address"), ("media", "page"),
                          ("media", "stream"), ("media", "address"), ("figures", "as image")]:  # fmt: skip
        held(f"sample {title} {series}", read.get_debug_samples(title, series), None)
    address = read.get_debug_samples("media", "page")[0]["url"]
    same("the media itself", Path(StorageManager.get_local_copy(address)).read_text(), "<b>page</b>")

    console = "\n".join(read.get_reported_console_output(number_of_reports=100))
    for line in ("a line by report_text", "a warning", "a printed line", "an error line"):
        held(f"console: {line}", line in console, console)

    # A reader beside a task that still runs.
    running = Task.create(project_name="reporting", task_name="slow")
    running.mark_started()
    running.get_logger().report_text("still running", print_console=False)
    running.get_logger().report_scalar("a", "b", 1, 1)
    running.flush(wait_for_uploads=True)
    eventually("text of a running task", lambda: "still running" in "".join(Task.get_task(running.id).get_reported_console_output(5)))
    eventually("scalar of a running task", lambda: Task.get_task(running.id).get_reported_scalars().get("a"))
    running.mark_completed()
    done()


main()
