"""Scalars, plots, tables, images, media and console text, read back as the SDK reads them."""

import io
import json
import math
import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from clearml import Logger, Task
from clearml.storage import StorageManager
from flow import done, eventually, held, same
from PIL import Image


def alike(what, seen, expected, tolerance=1e-5):
    """`held` for numbers of one shape: the SDK makes most of them `float32`."""
    seen, expected = np.asarray(seen, dtype=float), np.asarray(expected, dtype=float)
    close = seen.shape == expected.shape and np.allclose(seen, expected, rtol=0, atol=tolerance)
    held(f"{what} should be {expected.tolist()}", close, seen.tolist())


def traces(plot):
    """What a plot draws, as plotly takes it."""
    return json.loads(plot["plot_str"])["data"]


def cells(plot):
    """Head and columns of a table; of a column's name plotly takes a list."""
    (table,) = traces(plot)
    same("a table's type", table["type"], "table")
    names = [name[0] if isinstance(name, list) else name for name in table["header"]["values"]]
    return names, table["cells"]["values"]


def curve(what, plot, expected):
    """What matplotlib drew: numbers, or a picture where the SDK cannot turn it into them."""
    figure = json.loads(plot["plot_str"])
    if figure["data"]:
        lines = [trace["y"] for trace in figure["data"] if len(trace.get("y") or []) == len(expected)]
        held(f"{what} should be {expected}", any(np.allclose(np.asarray(y, dtype=float), expected) for y in lines), lines)
    else:
        source = figure["layout"]["images"][0]["source"]
        held(f"{what}, as a picture", Path(StorageManager.get_local_copy(source)).stat().st_size > 0, source)


def contents(sample):
    """The bytes of a debug sample."""
    return Path(StorageManager.get_local_copy(sample["url"])).read_bytes()


def pixels(sample):
    """The colours of a debug sample; their deviation from what was reported is that of JPEG."""
    return np.asarray(Image.open(io.BytesIO(contents(sample))).convert("RGB"))


def picture(green):
    """An image of one colour."""
    return np.full((16, 24, 3), (200, green, 0), dtype=np.uint8)


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

    cloud, surface, confusion = np.random.rand(5, 3), np.random.rand(4, 4), np.array([[5, 1, 0], [2, 7, 0.5], [0, 0, 9]])
    logger.report_histogram("plots", "histogram", iteration=0, values=np.arange(5), xlabels=list("abcde"))
    logger.report_vector("plots", "vector", iteration=0, values=[1, 2, 3])
    logger.report_scatter2d("plots", "scatter", iteration=0, scatter=np.array([[0, 1], [1, 2]]), mode="markers")
    logger.report_scatter3d("plots", "cloud", iteration=0, scatter=cloud)
    logger.report_surface("plots", "surface", iteration=0, matrix=surface)
    logger.report_confusion_matrix("plots", "confusion", iteration=3, matrix=confusion, xlabels=list("abc"))
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

    for i in range(3):
        logger.report_image("samples", "array", iteration=i, image=picture(60 * i))
    logger.report_image("samples", "pillow", iteration=0, image=Image.fromarray(picture(180)))
    Image.fromarray(picture(240)).save("picture.png")
    logger.report_image("samples", "file", iteration=0, local_path="picture.png")
    logger.report_image("samples", "address", iteration=0, url="https://example.org/picture.jpg")
    Path("page.html").write_text("<b>page</b>")
    logger.report_media("media", "page", iteration=0, local_path="page.html")
    logger.report_media("media", "stream", iteration=0, stream=io.BytesIO(bytes(range(256))), file_extension="wav")
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
    same("a histogram", [traces(plots["plots", "histogram"])[0][axis] for axis in "xy"], [list("abcde"), [0, 1, 2, 3, 4]])
    alike("a vector", traces(plots["plots", "vector"])[0]["y"], [1, 2, 3])
    scatter = traces(plots["plots", "scatter"])[0]
    alike("points of a plane", [scatter["x"], scatter["y"]], [[0, 1], [1, 2]])
    same("how they are drawn", scatter["mode"], "markers")
    points = traces(plots["plots", "cloud"])[0]
    alike("points of a space", [points[axis] for axis in "xyz"], cloud.T)
    alike("a surface", traces(plots["plots", "surface"])[0]["z"], surface)
    heat = traces(plots["plots", "confusion"])[0]
    same("a matrix is a", heat["type"], "heatmap")
    same("its labels", heat["x"], list("abc"))
    alike("a matrix", heat["z"], confusion)
    same("a plot's iteration", plots["plots", "confusion"]["iter"], 3)
    bar = traces(plots["plots", "plotly"])[0]
    same("a figure of plotly's", [bar["type"], bar["x"], bar["y"]], ["bar", [1], [2]])
    same("a table", cells(plots["tables", "frame"]), (["a", "b"], [[1, 2], ["x", "y"]]))
    same("a table of a file", cells(plots["tables", "csv"]), (["a", "b"], [[1], [2]]))
    curve("a figure of matplotlib's", plots["figures", "figure"], [3, 2, 1])
    shown = [plot for (metric, _), plot in plots.items() if "drawn" in metric]
    held("a plot of what matplotlib showed", shown, list(plots))
    curve("what matplotlib showed", shown[0], [1, 2, 3])

    samples = read.get_debug_samples("samples", "array", n_last_iterations=10)
    same("images of a series", sorted(s["iter"] for s in samples), [0, 1, 2])
    for sample in samples:
        alike(f"the image of iteration {sample['iter']}", pixels(sample), picture(60 * sample["iter"]), tolerance=8)

    def only(title, series):
        found = read.get_debug_samples(title, series)
        same(f"samples of {title} {series}", len(found), 1)
        return found[0]

    alike("an image of pillow's", pixels(only("samples", "pillow")), picture(180), tolerance=8)
    same("an image of a file", contents(only("samples", "file")), Path("picture.png").read_bytes())
    same("an image of elsewhere", only("samples", "address")["url"], "https://example.org/picture.jpg")
    same("a page", contents(only("media", "page")), b"<b>page</b>")
    same("a stream", contents(only("media", "stream")), bytes(range(256)))
    same("a film of elsewhere", only("media", "address")["url"], "https://example.org/film.mp4")
    figure = pixels(only("figures", "as image"))
    held("a figure as an image", figure.shape[0] > 100 and figure.min() < 100 and figure.max() > 200, figure.shape)

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
