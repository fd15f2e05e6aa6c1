"""Answers of each endpoint that the SDK describes fit what it says of them, in each version that it speaks: it throws a
whole answer away for one member of the wrong type."""

import importlib
import time

import jsonschema
from clearml import Task
from clearml.backend_api.session import Request
from flow import done, held
from referencing.exceptions import Unresolvable

SERVICES = ("auth", "events", "models", "organization", "pipelines", "projects", "queues", "tasks", "workers")
VERSIONS = ("2.9", "2.13", "2.20", "2.23")
# What the real server answers here is not what the SDK says of it: no client reads it.
DIFFERENT = {
    "events.get_vector_metrics_and_variants",
    "tasks.get_configurations",
    "tasks.get_configuration_names",
    "queues.get_all 2.20",
    "queues.get_by_id 2.20",
}

BROKEN = {"events.plots", "events.debug_images"}

SCHEMAS = {}
for service in SERVICES:
    for version in VERSIONS:
        try:
            module = importlib.import_module(f"clearml.backend_api.services.v{version.replace('.', '_')}.{service}")
        except ImportError:
            continue
        for name, kind in vars(module).items():
            if isinstance(kind, type) and issubclass(kind, Request) and getattr(kind, "_action", None):
                answer = getattr(module, name.removesuffix("Request") + "Response", None)
                if answer is not None and getattr(answer, "_schema", None):
                    SCHEMAS[version, f"{kind._service}.{kind._action}"] = answer._schema

session = Task._get_default_session()
asked = set()


def ask(endpoint, version=None, lines=None, **body):
    """Sends a request, in all versions of the SDK unless one is named; the newest answer."""
    service, action = endpoint.split(".")
    answer = None
    for each in [version] if version else VERSIONS:
        if each != version and (each, endpoint) not in SCHEMAS:
            continue
        if lines:
            [sent] = session.send_request_batch(service, action, version=each, json=lines, method="post")
        else:
            sent = session.send_request(service, action, version=each, json=body, method="post")
        held(f"{endpoint} {each} {body} is answered", sent.status_code == 200, sent.text)
        answer = sent.json()["data"]
        asked.add(endpoint)
        schema = SCHEMAS.get((each, endpoint))
        if schema and not {endpoint, f"{endpoint} {each}"} & DIFFERENT:
            try:
                jsonschema.validate(answer, schema)
            except Unresolvable:
                # The SDK's own schema names a part that it does not have.
                held(f"{endpoint} {each}: the schema can be read", endpoint in BROKEN, schema)
            except jsonschema.ValidationError as error:
                held(f"{endpoint} {each}: {list(error.absolute_path)} {error.message[:300]}", False, answer)
    return answer


def once(endpoint, **body):
    """A request that changes something."""
    return ask(endpoint, version="2.23", **body)


def reported(task):
    """One of each kind of event."""
    now = int(time.time() * 1000)
    plot = '{"data": [], "layout": {}}'
    once("events.add", type="log", task=task, msg="one", level="INFO")
    kinds = [
        {"type": "log", "msg": "two", "level": "ERROR"},
        {"type": "training_stats_scalar", "metric": "m", "variant": "v", "iter": 1, "value": 0.5},
        {"type": "training_stats_scalar", "metric": "m", "variant": "v", "iter": 2, "value": 1},
        {"type": "training_stats_scalar", "metric": "Summary", "variant": "s", "iter": -(2**31), "value": 3},
        {"type": "training_stats_vector", "metric": "w", "variant": "v", "iter": 1, "values": [1, 2]},
        {"type": "plot", "metric": "p", "variant": "v", "iter": 1, "plot_str": plot},
        {"type": "plot", "metric": "p", "variant": "v", "iter": 2, "plot_str": plot},
        {"type": "training_debug_image", "metric": "i", "variant": "v", "iter": 1, "key": "k", "url": "http://x/1"},
        {"type": "training_debug_image", "metric": "i", "variant": "v", "iter": 2, "key": "k", "url": "http://x/2"},
    ]
    once("events.add_batch", lines=[{**event, "task": task, "timestamp": now} for event in kinds])


def events(task):
    """All ways to read them."""
    several = {"tasks": [task]}
    metrics = [{"task": task, "metric": None}]
    for key in ("iter", "timestamp", "iso_time"):
        ask("events.scalar_metrics_iter_histogram", task=task, key=key)
        ask("events.scalar_metrics_iter_raw", task=task, key=key, metric={"metric": "m"}, count_total=True)
    ask("events.multi_task_scalar_metrics_iter_histogram", **several)
    ask("events.get_scalar_metrics_and_variants", task=task)
    ask("events.get_vector_metrics_and_variants", task=task)
    ask("events.vector_metrics_iter_histogram", task=task, metric="w", variant="v")
    ask("events.get_scalar_metric_data", task=task, metric="m")
    ask("events.get_task_latest_scalar_values", task=task)
    ask("events.get_task_single_value_metrics", **several)
    for kind in (None, "log", "plot", "training_stats_scalar", "training_debug_image"):
        ask("events.get_task_events", task=task, **({"event_type": kind} if kind else {}))
        ask("events.get_task_metrics", event_type=kind or "plot", **several)
    ask("events.get_task_log", task=task)
    ask("events.get_task_log", task=task, navigate_earlier=False, order="asc")
    ask("events.get_task_plots", task=task)
    ask("events.get_multi_task_plots", **several)
    ask("events.plots", metrics=[{**m, "metric": "p"} for m in metrics])
    ask("events.debug_images", metrics=[{**m, "metric": "i"} for m in metrics])
    image = ask("events.get_debug_image_sample", task=task, metric="i", variant="v")
    ask("events.next_debug_image_sample", task=task, scroll_id=image["scroll_id"])
    ask("events.next_debug_image_sample", task=task, scroll_id=image["scroll_id"], navigate_earlier=False)
    plot = ask("events.get_plot_sample", task=task, metric="p")
    ask("events.next_plot_sample", task=task, scroll_id=plot["scroll_id"])
    once("events.clear_scroll", scroll_id="none")


def tasks(project, task, queue):
    """A task edited, copied, and through its statuses."""
    once("tasks.validate", name="checked", type="training", project=project)
    once("tasks.edit", task=task, comment="c", tags=["t"], container={"image": "i", "arguments": "-a"})
    once("tasks.update", task=task, name="renamed")
    once("tasks.update_batch", lines=[{"task": task, "comment": "batch"}])
    parameter = {"section": "Args", "name": "a", "value": "1", "type": "int", "description": "d"}
    once("tasks.edit_hyper_params", task=task, hyperparams=[parameter, {**parameter, "name": "b"}])
    once("tasks.delete_hyper_params", task=task, hyperparams=[{"section": "Args", "name": "b"}])
    once("tasks.edit_configuration", task=task, configuration=[{"name": "c", "value": "v"}, {"name": "d", "value": "v"}])
    once("tasks.delete_configuration", task=task, configuration=["d"])
    once("tasks.set_requirements", task=task, requirements={"pip": "x"})
    artifact = {"key": "k", "type": "t", "mode": "output", "uri": "http://x", "timestamp": 5, "content_size": 7,
                "type_data": {"preview": "p"}, "display_data": [["a", "b"]]}  # fmt: skip
    once("tasks.add_or_update_artifacts", task=task, artifacts=[artifact, {**artifact, "key": "l"}])
    once("tasks.delete_artifacts", task=task, artifacts=[{"key": "l"}])
    ask("tasks.get_hyper_params", tasks=[task])
    ask("tasks.get_configurations", tasks=[task])
    ask("tasks.get_configuration_names", tasks=[task])
    ask("tasks.get_types", projects=[project])
    copy = once("tasks.clone", task=task, new_task_name="copy", new_task_parent=task)["id"]
    once("tasks.ping", task=copy)
    once("tasks.enqueue", task=copy, queue=queue)
    ask("tasks.get_by_id", task=copy)
    once("tasks.dequeue", task=copy)
    once("tasks.enqueue_many", ids=[copy], queue=queue)
    once("tasks.dequeue_many", ids=[copy, "nobody"])
    once("tasks.started", task=copy)
    once("workers.status_report", worker="w", task=copy, timestamp=int(time.time() * 1000),
         machine_stats={"cpu_usage": [1.5], "memory_used": 5, "gpu_usage": [1, 2]})  # fmt: skip
    once("tasks.stop", task=copy)
    ask("tasks.get_all", id=[copy])
    once("tasks.stopped", task=copy, force=True)
    once("tasks.failed", task=copy, force=True)
    once("tasks.completed", task=copy, force=True)
    once("tasks.stop_many", ids=[copy], force=True)
    once("tasks.close", task=copy, force=True)
    once("tasks.publish", task=copy, force=True)
    once("tasks.publish_many", ids=[copy])
    once("tasks.reset", task=copy, force=True)
    once("tasks.reset_many", ids=[copy])
    once("tasks.archive", tasks=[copy])
    once("tasks.unarchive_many", ids=[copy])
    once("tasks.archive_many", ids=[copy])
    once("tasks.move", ids=[copy], project_name="schemas/moved")
    ask("tasks.get_all", project=[project], order_by=["-last_update"])
    ask("tasks.get_by_id", task=task)
    second = once("tasks.clone", task=copy)["id"]
    once("tasks.delete", task=copy, force=True)
    once("tasks.delete_many", ids=[second], force=True)


def queues(queue, task):
    """A queue and its entries."""
    once("queues.update", queue=queue, tags=["t"])
    once("queues.add_or_update_metadata", queue=queue, metadata=[{"key": "k", "value": "v", "type": "t"}])
    once("queues.add_task", queue=queue, task=task)
    other = once("tasks.clone", task=task)["id"]
    once("queues.add_task", queue=queue, task=other)
    for move in ("forward", "backward", "to_front", "to_back"):
        once(f"queues.move_task_{move}", queue=queue, task=task)
    ask("queues.get_all", id=[queue])
    ask("queues.get_by_id", queue=queue)
    ask("queues.get_default")
    ask("queues.get_num_entries", queue=queue)
    ask("queues.peek_task", queue=queue)
    once("queues.remove_task", queue=queue, task=task)
    once("queues.get_next_task", queue=queue, get_task_info=True)
    once("queues.get_next_task", queue=queue)
    ask("queues.get_queue_metrics", queue_ids=[queue], from_date=time.time() - 600, to_date=time.time() + 5, interval=10)
    once("queues.delete_metadata", queue=queue, keys=["k"])
    ask("pipelines.start_pipeline", task=task, queue=queue, args=[{"name": "a", "value": "2"}])


def models(project, task):
    """A model's life."""
    model = once("models.create", uri="http://x/m", name="model", labels={"a": 1}, project=project)["id"]
    once("models.edit", model=model, comment="c", design={"text": "d"}, framework="PyTorch", task=task)
    once("models.update", model=model, tags=["t"])
    once("models.update_for_task", task=task, uri="http://x/u", name="of task")
    once("models.add_or_update_metadata", model=model, metadata=[{"key": "k", "value": "v", "type": "t"}])
    once("tasks.add_or_update_model", task=task, name="m", model=model, type="output")
    ask("models.get_by_id", model=model)
    ask("models.get_all", id=[model])
    ask("models.get_frameworks")
    ask("projects.get_model_tags")
    ask("projects.get_model_metadata_keys")
    ask("projects.get_model_metadata_values", key="k")
    once("models.delete_metadata", model=model, keys=["k"])
    once("models.move", ids=[model], project_name="schemas/models")
    once("tasks.delete_models", task=task, models=[{"name": "m", "type": "output"}])
    # The task that made it has not run, so it cannot be published along with its model.
    once("models.set_ready", model=model, publish_task=False)
    ask("models.get_by_task_id", task=task)
    once("models.archive_many", ids=[model])
    once("models.unarchive_many", ids=[model])
    second = once("models.create", uri="http://x/2", name="second")["id"]
    once("models.publish_many", ids=[second])
    once("models.delete", model=model, force=True)
    once("models.delete_many", ids=[second, "nobody"], force=True)


def projects(project):
    """A project and what is in it."""
    once("projects.update", project=project, description="d", tags=["t"])
    ask("projects.get_by_id", project=project)
    ask("projects.get_all", name="schemas")
    ask("projects.get_all", id=[project], include_stats=True)
    for call in ("get_task_tags", "get_project_tags", "get_task_parents", "get_hyper_parameters"):
        ask(f"projects.{call}", **({"projects": [project]} if call == "get_task_parents" else {}))
    ask("projects.get_unique_metric_variants", project=project)
    ask("projects.get_hyperparam_values", projects=[project], section="Args", name="a")
    ask("organization.get_tags")
    other = once("projects.create", name="schemas/other", description="")["id"]
    once("projects.move", project=other, new_location="schemas/deep")
    once("projects.merge", project=other, destination_project=project)
    last = once("projects.create", name="schemas/last", description="")["id"]
    ask("projects.validate_delete", project=last)
    once("projects.delete", project=last, force=True)


def workers(queue):
    """Workers, and what is known of them."""
    once("workers.register", worker="w", queues=[queue], tags=["t"])
    once("workers.status_report", worker="w", queues=[queue], timestamp=int(time.time() * 1000) - 60_000,
         machine_stats={"cpu_usage": [1.5], "memory_used": 5, "gpu_usage": [1, 2]})  # fmt: skip
    ask("workers.get_all")
    ask("workers.get_metric_keys")
    span = {"from_date": time.time() - 3600, "to_date": time.time() + 60, "interval": 60}
    for split in (False, True):
        ask("workers.get_stats", items=[{"key": "cpu_usage", "aggregation": "avg"}, {"key": "gpu_usage"}],
            split_by_variant=split, split_by_resource=split, **span)  # fmt: skip
    ask("workers.get_activity_report", **span)
    once("workers.unregister", worker="w")


def main():
    pair = once("auth.create_credentials", label="l")["credentials"]["access_key"]
    ask("auth.get_credentials")
    once("auth.edit_credentials", access_key=pair, label="m")
    once("auth.revoke_credentials", access_key=pair)
    project = once("projects.create", name="schemas", description="d")["id"]
    task = once("tasks.create", name="first", type="training", project=project, script={"diff": "print()"})["id"]
    queue = once("queues.create", name="schemas")["id"]
    workers(queue)
    reported(task)
    events(task)
    tasks(project, task, queue)
    queues(queue, task)
    models(project, task)
    projects(project)
    once("events.clear_task_log", task=task)
    once("events.delete_for_task", task=task)
    once("queues.delete", queue=queue, force=True)
    known = {endpoint for _, endpoint in SCHEMAS}
    # The enterprise's, what would share something with other companies, and what was asked in another way.
    left_out = {
        "auth.login", "auth.edit_user", "events.delete_for_model", "events.download_task_log", "tasks.share",
        *(f"{kind}.make_{way}" for kind in ("models", "projects", "tasks") for way in ("public", "private")),
    }  # fmt: skip
    held("all that the SDK describes was asked", known - asked <= left_out, sorted(known - asked - left_out))
    done()


main()
