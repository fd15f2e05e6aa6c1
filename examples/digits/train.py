"""Train a classifier on scikit-learn's handwritten digits, and report as one does with the ClearML SDK."""

import argparse
import time

import joblib
import numpy as np
from clearml import OutputModel, Task
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--alpha", type=float, default=1e-4)
    parser.add_argument("--queue", default="", help="run there instead of here")
    parser.add_argument("--name", default="digits")
    args = parser.parse_args()

    task = Task.init(project_name="demo", task_name=args.name, reuse_last_task_id=False, output_uri=True)
    if args.queue:
        print(f"task {task.id}", flush=True)
        task.execute_remotely(queue_name=args.queue, exit_process=True)
    logger = task.get_logger()

    data, target = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(data, target, test_size=0.25, random_state=7)
    scaler = StandardScaler().fit(train_x)
    train_x, test_x = scaler.transform(train_x), scaler.transform(test_x)
    classes = np.unique(target)
    print(f"{len(train_x)} images to learn from, {len(test_x)} to judge by, {args.epochs} epochs")

    model = SGDClassifier(loss="log_loss", alpha=args.alpha, random_state=7)
    for epoch in range(1, args.epochs + 1):
        model.partial_fit(train_x, train_y, classes=classes)
        accuracy = accuracy_score(test_y, model.predict(test_x))
        loss = log_loss(test_y, model.predict_proba(test_x))
        logger.report_scalar("accuracy", "test", value=accuracy, iteration=epoch)
        logger.report_scalar("loss", "test", value=loss, iteration=epoch)
        print(f"epoch {epoch:2d}: accuracy {accuracy:.4f}, loss {loss:.4f}", flush=True)
        time.sleep(0.1)

    matrix = confusion_matrix(test_y, model.predict(test_x))
    logger.report_confusion_matrix(
        "confusion", "test", matrix=matrix, iteration=args.epochs, xaxis="predicted", yaxis="true"
    )
    task.upload_artifact("confusion", artifact_object=matrix, wait_on_upload=True)
    joblib.dump(model, "digits.joblib")
    output = OutputModel(task=task, framework="ScikitLearn", name="digits")
    output.update_weights("digits.joblib", auto_delete_file=False)
    task.flush(wait_for_uploads=True)
    print(f"done: accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
