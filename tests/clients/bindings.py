"""Libraries that the SDK notices by itself: what their command lines were given, and what TensorBoard was told, is on the
server. Each in a process of its own, as users have them."""

import subprocess
import sys

from flow import done, eventually, held, same


def begun(name):
    from clearml import Task

    task = Task.init(project_name="bindings", task_name=name, auto_resource_monitoring=False)
    print(f"SAID {task.id}", flush=True)
    return task


def of_fire():
    import fire

    begun("fire")

    def train(epochs, rate=0.1, name="net"):
        print(f"fire gave {epochs} {rate} {name}", flush=True)

    fire.Fire(train, command=["--epochs", "5", "--rate=0.5"])


def of_absl():
    from absl import app, flags

    flags.DEFINE_integer("epochs", 1, "how often")
    flags.DEFINE_string("model", "net", "which")
    begun("absl")
    app.run(lambda _: print(f"absl gave {flags.FLAGS.epochs}", flush=True), argv=["train", "--epochs=7"])


def of_jsonargparse():
    from jsonargparse import ArgumentParser

    begun("jsonargparse")
    parser = ArgumentParser()
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.1)
    given = parser.parse_args(["--epochs=9"])
    print(f"jsonargparse gave {given.epochs}", flush=True)


def of_tensorboard():
    import numpy as np
    import tensorboardX

    task = begun("tensorboard")
    writer = tensorboardX.SummaryWriter("runs")
    for step in range(10):
        writer.add_scalar("loss/train", 1.0 / (step + 1), step)
        writer.add_scalar("loss/test", 2.0 / (step + 1), step)
    picture = np.zeros((3, 16, 24), dtype=np.uint8)
    picture[0] = 200
    writer.add_image("samples/picture", picture, 3)
    writer.close()
    task.flush(wait_for_uploads=True)


def run(mode):
    """The task of a process in that mode, read back after its end, and what the process said."""
    from clearml import Task

    ended = subprocess.run([sys.executable, __file__, mode], capture_output=True, text=True, timeout=300)
    held(f"{mode} ends well", ended.returncode == 0, ended.stdout + ended.stderr)
    [made] = [line.split()[1] for line in ended.stdout.splitlines() if line.startswith("SAID ")]
    task = Task.get_task(task_id=made)
    same(f"{mode} is completed", task.get_status(), "completed")
    return task, ended.stdout


def main():
    from clearml.storage import StorageManager
    from PIL import Image

    for mode, library, expected in [
        ("of_fire", "fire gave 5 0.5 net", {"Args/epochs": "5", "Args/rate": "0.5", "Args/name": "net"}),
        ("of_absl", "absl gave 7", {"TF_DEFINE/epochs": "7", "TF_DEFINE/model": "net"}),
        ("of_jsonargparse", "jsonargparse gave 9", {"Args/epochs": "9", "Args/rate": "0.1"}),
    ]:
        task, said = run(mode)
        held(f"{mode}: the library itself is not disturbed", library in said, said)
        values = task.get_parameters()
        same(f"{mode}: parameters", {key: values.get(key) for key in expected}, expected)

    task, _ = run("of_tensorboard")
    scalars = eventually("TensorBoard's scalars", lambda: task.get_reported_scalars().get("loss"))
    same("both curves", sorted(scalars), ["test", "train"])
    same("their steps", scalars["train"]["x"], list(range(10)))
    held("their values", abs(scalars["test"]["y"][3] - 0.5) < 1e-6, scalars["test"])
    [sample] = task.get_debug_samples("samples", "picture")
    same("an image's step", sample["iter"], 3)
    same("the image itself", Image.open(StorageManager.get_local_copy(sample["url"])).size, (24, 16))
    done()


if __name__ == "__main__":
    globals()[sys.argv[1]]() if len(sys.argv) > 1 else main()
