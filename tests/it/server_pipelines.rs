//! What belongs together goes together: a pipeline's controller and its steps, a model and the task that made it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use serde_json::{Value, json};
use trainyard::server::{Options, Version};

use crate::server_world::{Client, InProcess, served};

async fn made(client: &Client, call: &str, ask: Value) -> String {
    let answer = client.call(call, ask).await;
    answer["id"].as_str().unwrap().to_owned()
}

/// A controller with two steps: its id, and theirs.
async fn pipeline(client: &Client) -> (String, Vec<String>) {
    let controller = json!({"name": "controller", "type": "controller"});
    let controller = made(client, "tasks.create", controller).await;
    let mut steps = Vec::new();
    for n in 0..2 {
        let step = json!({"name": format!("step {n}"), "type": "training", "parent": controller});
        steps.push(made(client, "tasks.create", step).await);
    }
    (controller, steps)
}

async fn task(client: &Client, id: &str) -> Value {
    let found = client.call("tasks.get_by_id", json!({"task": id})).await;
    found["task"].clone()
}

async fn statuses(client: &Client, ids: &[String]) -> Vec<Value> {
    let mut found = Vec::new();
    for id in ids {
        found.push(task(client, id).await["status"].clone());
    }
    found
}

/// Status and subcode of a refusal.
async fn refused(client: &Client, call: &str, ask: Value) -> (u16, Value) {
    let (status, answer) = client.raw(call, ask).await;
    (status, answer["meta"]["result_subcode"].clone())
}

#[test]
fn steps_go_along_with_their_controller_when_that_is_asked_for() {
    served(async |client| {
        let (controller, steps) = pipeline(&client).await;
        let other = client.task("no controller").await;
        let child = json!({"name": "its child", "type": "training", "parent": other});
        let child = made(&client, "tasks.create", child).await;
        let queue = client.call("queues.get_default", json!({})).await["id"].clone();
        let waiting = [&controller, &steps[0], &other, &child];
        let enqueued = json!({"ids": waiting, "queue": queue});
        client.call("tasks.enqueue_many", enqueued).await;

        let along = |task: &str| json!({"task": task, "include_pipeline_steps": true});
        client.call("tasks.stop", along(&other)).await;
        assert_eq!(task(&client, &child).await["status"], "queued");
        client.call("tasks.stop", json!({"task": controller})).await;
        assert_eq!(statuses(&client, &steps).await, ["queued", "created"]);
        let answer = client.call("tasks.stop", along(&controller)).await;
        assert_eq!(answer["fields"]["status"], "stopped");
        assert_eq!(statuses(&client, &steps).await, ["stopped", "stopped"]);
        let found = client
            .call("queues.get_by_id", json!({"queue": queue}))
            .await;
        let entries = found["queue"]["entries"].as_array().unwrap();
        assert_eq!((entries.len(), &entries[0]["task"]), (1, &json!(child)));

        let archive = json!({"tasks": [controller], "include_pipeline_steps": true});
        assert_eq!(
            client.call("tasks.archive", archive.clone()).await["archived"],
            1
        );
        for id in steps.iter().chain([&controller]) {
            assert_eq!(task(&client, id).await["system_tags"], json!(["archived"]));
        }
        let back = json!({"ids": [controller], "include_pipeline_steps": true});
        let answer = client.call("tasks.unarchive_many", back).await;
        assert_eq!(answer["succeeded"][0]["unarchived"], true, "{answer}");
        for id in steps.iter().chain([&controller]) {
            assert_eq!(task(&client, id).await["system_tags"], json!([]));
        }

        // What has run is deleted without force only if it is archived.
        let refusal = refused(&client, "tasks.delete", along(&controller)).await;
        assert_eq!(refusal, (400, json!(123)));
        assert_eq!(statuses(&client, &steps).await, ["stopped", "stopped"]);
        client.call("tasks.archive", archive).await;
        let answer = client.call("tasks.delete", along(&controller)).await;
        let told = (&answer["deleted"], &answer["updated_children"]);
        assert_eq!(told, (&json!(true), &json!(0)), "{answer}");
        let left = client
            .call("tasks.get_all", json!({"only_fields": ["id"]}))
            .await;
        let left: Vec<&Value> = left["tasks"].as_array().unwrap().iter().collect();
        assert_eq!(left.len(), 2, "{left:?}");
        for id in [&other, &child] {
            assert!(left.contains(&&json!({"id": id})), "{left:?}");
        }
    });
}

#[test]
fn an_older_server_leaves_the_steps_alone() {
    let server = InProcess::with(|data| Options {
        api_version: Version(2, 29),
        ..Options::new(data)
    });
    let client = server.client();
    server.block_on(async {
        let (controller, steps) = pipeline(&client).await;
        let ask = json!({"ids": [controller], "force": true, "include_pipeline_steps": true});
        client.call("tasks.stop_many", ask).await;
        assert_eq!(task(&client, &controller).await["status"], "stopped");
        assert_eq!(statuses(&client, &steps).await, ["created", "created"]);
    });
}

/// A controller in the project of its pipeline: ids of project and task.
async fn of_project(client: &Client) -> (String, String) {
    let project = json!({"name": "team/.pipelines/train digits"});
    let project = made(client, "projects.create", project).await;
    let item = |section: &str, name: &str, value: &str| json!({"section": section, "name": name, "value": value, "type": "int", "description": "d"});
    let source = json!({
        "name": "train digits", "type": "controller", "project": project, "system_tags": ["pipeline"],
        "hyperparams": {
            "Args": {"epochs": item("Args", "epochs", "3"), "size": item("Args", "size", "28")},
            "properties": {"version": item("properties", "version", "1")},
        },
    });
    (project, made(client, "tasks.create", source).await)
}

#[test]
fn a_pipeline_is_started_again_with_other_arguments() {
    served(async |client| {
        let (project, source) = of_project(&client).await;
        let queue = made(&client, "queues.create", json!({"name": "services"})).await;
        let ask = json!({
            "task": source, "queue": queue, "verify_watched_queue": true,
            "args": [{"name": "epochs", "value": "9"}, {"name": "new", "value": "x"}],
        });
        let answer = client.call("pipelines.start_pipeline", ask.clone()).await;
        let told = (&answer["enqueued"], &answer["queue_watched"]);
        assert_eq!(told, (&json!(true), &json!(false)), "{answer}");
        let run = task(&client, answer["pipeline"].as_str().unwrap()).await;
        assert_eq!(run["name"], "train digits #2");
        assert_eq!(run["status"], "queued");
        assert_eq!(run["status_message"], "Starting pipeline");
        assert_eq!(
            (&run["parent"], &run["project"]),
            (&json!(source), &json!(project))
        );
        assert_eq!(run["execution"]["queue"], queue);
        let own = &run["hyperparams"]["Args"];
        assert_eq!(
            own["epochs"],
            json!({"section": "Args", "name": "epochs", "value": "9"})
        );
        assert_eq!(
            (&own["size"]["value"], &own["new"]["value"]),
            (&json!("28"), &json!("x"))
        );
        assert_eq!(run["hyperparams"]["properties"]["version"]["value"], "1");
        let kept = task(&client, &source).await;
        assert_eq!(
            (&kept["status"], &kept["name"]),
            (&json!("created"), &json!("train digits"))
        );
        assert_eq!(kept["hyperparams"]["Args"]["epochs"]["value"], "3");

        let worker = json!({"worker": "w:0", "queues": [queue]});
        client.call("workers.register", worker).await;
        let again = client.call("pipelines.start_pipeline", ask).await;
        assert_eq!(again["queue_watched"], true);
        let second = task(&client, again["pipeline"].as_str().unwrap()).await;
        assert_eq!(second["name"], "train digits #3");
        let found = client
            .call("queues.get_by_id", json!({"queue": queue}))
            .await;
        let entries = found["queue"]["entries"].as_array().unwrap();
        let entries: Vec<&Value> = entries.iter().map(|entry| &entry["task"]).collect();
        assert_eq!(entries, [&run["id"], &second["id"]]);

        for (ask, refusal) in [
            (json!({"task": source}), (400, json!(12))),
            (json!({"task": "nobody", "queue": queue}), (400, json!(101))),
            (
                json!({"task": source, "queue": "nowhere"}),
                (400, json!(701)),
            ),
            (
                json!({"task": source, "queue": queue, "args": [{"name": "a"}]}),
                (400, json!(12)),
            ),
        ] {
            let told = refused(&client, "pipelines.start_pipeline", ask.clone()).await;
            assert_eq!(told, refusal, "{ask}");
        }
    });
}

#[test]
fn runs_of_a_pipeline_are_deleted_with_their_steps_but_never_all() {
    served(async |client| {
        let (project, source) = of_project(&client).await;
        let queue = client.call("queues.get_default", json!({})).await["id"].clone();
        let ask = json!({"task": source, "queue": queue});
        let run = client.call("pipelines.start_pipeline", ask).await["pipeline"].clone();
        let step = json!({"name": "a step", "type": "training", "parent": run, "project": project});
        let step = made(&client, "tasks.create", step).await;
        let alone = json!({"name": "no run", "type": "training", "project": project});
        let alone = made(&client, "tasks.create", alone).await;

        let all = json!({"project": project, "ids": [source, run]});
        let refusal = refused(&client, "pipelines.delete_runs", all).await;
        assert_eq!(refusal, (400, json!(160)));
        assert_eq!(statuses(&client, &[step]).await, ["created"]);
        let some = json!({"project": project, "ids": [run, alone, "nobody"]});
        let answer = client.call("pipelines.delete_runs", some).await;
        let gone = answer["succeeded"].as_array().unwrap();
        assert_eq!((gone.len(), &gone[0]["id"]), (1, &run), "{answer}");
        assert_eq!(gone[0]["deleted"], true);
        assert_eq!(answer["failed"], json!([]));
        let ask = json!({"project": [project], "order_by": ["created"], "only_fields": ["id"]});
        let left = client.call("tasks.get_all", ask).await;
        assert_eq!(left["tasks"], json!([{"id": source}, {"id": alone}]));
        let entries = client
            .call("queues.get_by_id", json!({"queue": queue}))
            .await;
        assert_eq!(entries["queue"]["entries"], json!([]));
    });
}

#[test]
fn a_model_that_is_published_publishes_the_task_that_made_it() {
    served(async |client| {
        let task_id = client.task("trains").await;
        let model =
            |name: &str| json!({"name": name, "uri": format!("http://x/{name}"), "task": task_id});
        let first = made(&client, "models.create", model("first")).await;
        let second = made(&client, "models.create", model("second")).await;
        let third = made(&client, "models.create", model("third")).await;

        // A task that has not run cannot be published, and its model then neither.
        let ask = json!({"model": first});
        let refusal = refused(&client, "models.set_ready", ask.clone()).await;
        assert_eq!(refusal, (400, json!(110)));
        let alone = json!({"model": second, "publish_task": false});
        let answer = client.call("models.set_ready", alone).await;
        assert_eq!(answer, json!({"updated": 1}));
        assert_eq!(task(&client, &task_id).await["status"], "created");

        client.call("tasks.started", json!({"task": task_id})).await;
        client
            .call("tasks.completed", json!({"task": task_id}))
            .await;
        let answer = client.call("models.set_ready", ask.clone()).await;
        assert_eq!(answer["published_task"]["id"], task_id, "{answer}");
        assert_eq!(answer["published_task"]["data"]["updated"], 1, "{answer}");
        assert_eq!(task(&client, &task_id).await["status"], "published");
        assert_eq!(
            refused(&client, "models.set_ready", ask).await,
            (400, json!(203))
        );
        let answer = client
            .call("models.publish_many", json!({"ids": [third, second]}))
            .await;
        assert_eq!(answer["succeeded"], json!([{"updated": true, "id": third}]));
        assert_eq!(
            answer["failed"][0]["error"]["codes"],
            json!([400, 203]),
            "{answer}"
        );
    });
}

#[test]
fn names_of_configurations_are_those_that_have_a_value() {
    served(async |client| {
        let item = |name: &str, value: &str| json!({"name": name, "value": value});
        let items = json!({"z": item("z", "1"), "a": item("a", "2"), "empty": item("empty", "")});
        let new = json!({"name": "configured", "type": "training", "configuration": items});
        let configured = made(&client, "tasks.create", new).await;
        let bare = client.task("bare").await;
        for (all, names) in [
            (false, json!(["a", "z"])),
            (true, json!(["a", "empty", "z"])),
        ] {
            let ask = json!({"tasks": [bare, configured], "skip_empty": !all});
            let answer = client.call("tasks.get_configuration_names", ask).await;
            let wanted = json!([{"task": configured, "names": names}]);
            assert_eq!(answer["configurations"], wanted);
        }
    });
}
