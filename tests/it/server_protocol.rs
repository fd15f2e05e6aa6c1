//! What the protocol says of single members and codes, where neither a recording nor a client shows it: pages of lists,
//! new tasks, edits that are refused, names of projects, lifetimes of tokens.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use serde_json::{Value, json};

use crate::server_admin::{keys_of, trainyard};
use crate::server_world::{Client, InProcess, served};

/// Status and subcode of a call.
async fn refused(client: &Client, call: &str, ask: Value) -> (u16, u64) {
    let (status, answer) = client.raw(call, ask).await;
    (status, answer["meta"]["result_subcode"].as_u64().unwrap())
}

fn names(list: &Value) -> Vec<&str> {
    let items = list.as_array().unwrap().iter();
    items.map(|item| item["name"].as_str().unwrap()).collect()
}

#[test]
fn a_scroll_goes_on_where_it_was_until_nothing_is_left() {
    served(async |client| {
        for i in 0..5 {
            client.task(&format!("task {i}")).await;
            let project = json!({"name": format!("project {i}")});
            client.call("projects.create", project).await;
            let queue = json!({"name": format!("queue {i}")});
            client.call("queues.create", queue).await;
            let model = json!({"name": format!("model {i}"), "uri": "http://x/m"});
            client.call("models.create", model).await;
        }
        for (call, list) in [
            ("tasks.get_all", "tasks"),
            ("tasks.get_all_ex", "tasks"),
            ("projects.get_all", "projects"),
            ("projects.get_all_ex", "projects"),
            ("queues.get_all", "queues"),
            ("queues.get_all_ex", "queues"),
            ("models.get_all", "models"),
        ] {
            let (mut seen, mut scroll) = (Vec::new(), Value::Null);
            loop {
                let ask = json!({"name": " [0-4]$", "order_by": ["name"], "only_fields": ["name"],
                                 "size": 2, "scroll_id": scroll});
                let mut page = client.call(call, ask).await;
                let shown = names(&page[list]).into_iter().map(str::to_owned);
                let before = seen.len();
                seen.extend(shown);
                scroll = page["scroll_id"].take();
                assert!(scroll.is_string() && seen.len() <= 5, "{call}: {seen:?}");
                if seen.len() == before {
                    break;
                }
            }
            let kind = list.trim_end_matches('s');
            let all: Vec<String> = (0..5).map(|i| format!("{kind} {i}")).collect();
            assert_eq!(seen, all, "{call}");
        }
        let plain = client.call("tasks.get_all", json!({"size": 2})).await;
        assert!(plain.get("scroll_id").is_none(), "{plain}");
    });
}

#[test]
fn what_a_filter_leaves_out_takes_no_place_on_a_page() {
    served(async |client| {
        for (name, ready) in [("model a", false), ("model b", true), ("model c", true)] {
            let model = json!({"name": name, "uri": "http://x/m", "ready": ready});
            client.call("models.create", model).await;
        }
        for name in ["aa/below", "bb"] {
            client.call("projects.create", json!({"name": name})).await;
        }
        let page = json!({"order_by": ["name"], "page": 0, "page_size": 2, "ready": true});
        let found = client.call("models.get_all", page.clone()).await;
        assert_eq!(names(&found["models"]), ["model b", "model c"]);
        let mut page = page;
        page["ready"] = json!(false);
        let found = client.call("models.get_all", page.clone()).await;
        assert_eq!(names(&found["models"]), ["model a"]);
        page["shallow_search"] = json!(true);
        let found = client.call("projects.get_all", page).await;
        assert_eq!(names(&found["projects"]), ["aa", "bb"]);
    });
}

#[test]
fn a_new_task_is_created_whatever_status_is_asked_for() {
    served(async |client| {
        let new = json!({"name": "new", "type": "training", "status": "completed"});
        let task = client.call("tasks.create", new).await["id"].clone();
        let status = async || {
            let found = client.call("tasks.get_by_id", json!({"task": task})).await;
            found["task"]["status"].clone()
        };
        assert_eq!(status().await, "created");
        let edit = json!({"task": task, "status": "completed"});
        let edited = client.call("tasks.edit", edit).await;
        assert_eq!(edited["fields"]["status"], "completed");
        assert_eq!(status().await, "completed");
    });
}

#[test]
fn a_task_that_is_not_there_is_started_with_a_code_of_its_own() {
    served(async |client| {
        for (call, subcode) in [("tasks.started", 10), ("tasks.stopped", 101)] {
            let ask = json!({"task": "0".repeat(32)});
            assert_eq!(refused(&client, call, ask).await, (400, subcode), "{call}");
        }
        let ask = json!({"ids": ["0".repeat(32)]});
        let many = client.call("tasks.started_many", ask).await;
        assert_eq!(many["failed"][0]["error"]["codes"], json!([400, 10]));
    });
}

#[test]
fn parameters_of_a_task_that_ran_are_not_replaced_by_none() {
    served(async |client| {
        let task = client.task("with parameters").await;
        let item = json!({"section": "Args", "name": "lr", "value": "1"});
        let ask = json!({"task": task, "hyperparams": [item]});
        client.call("tasks.edit_hyper_params", ask).await;
        client.call("tasks.started", json!({"task": task})).await;
        client.call("tasks.completed", json!({"task": task})).await;
        let none = json!({"task": task, "hyperparams": [], "replace_hyperparams": "all"});
        let (status, subcode) = refused(&client, "tasks.edit_hyper_params", none).await;
        assert_eq!((status, subcode), (400, 110));
        // Properties are of no run, and may be changed after it.
        let item = json!({"section": "properties", "name": "p", "value": "1"});
        let ask = json!({"task": task, "hyperparams": [item]});
        client.call("tasks.edit_hyper_params", ask).await;
        let found = client.call("tasks.get_by_id", json!({"task": task})).await;
        let sections = &found["task"]["hyperparams"];
        assert_eq!(sections["Args"]["lr"]["value"], "1");
        assert_eq!(sections["properties"]["p"]["value"], "1");
    });
}

#[test]
fn tags_that_are_none_are_refused_by_an_update() {
    served(async |client| {
        let task = client.task("tagged").await;
        for tags in [json!([1]), json!({"a": 1}), json!(7)] {
            let ask = json!({"task": task, "tags": tags});
            assert_eq!(refused(&client, "tasks.update", ask).await, (400, 12));
        }
        let ask = json!({"task": task, "tags": "one", "system_tags": null});
        let updated = client.call("tasks.update", ask).await;
        assert_eq!(updated["fields"]["tags"], json!(["one"]));
    });
}

#[test]
fn a_copy_for_an_older_client_takes_its_command_as_the_container() {
    served(async |client| {
        let task = client.task("source").await;
        let ask = json!({"task": task, "execution_overrides": {"docker_cmd": "image:1 -e A=b"}});
        let copy = client.call("v2.5/tasks.clone", ask).await["id"].clone();
        let found = client.call("tasks.get_by_id", json!({"task": copy})).await;
        assert_eq!(
            found["task"]["container"],
            json!({"image": "image:1", "arguments": "-e A=b"})
        );
        assert!(found["task"]["execution"].get("docker_cmd").is_none());
    });
}

#[test]
fn blanks_make_no_other_name_of_a_project() {
    served(async |client| {
        let made = client
            .call("projects.create", json!({"name": "team / vision"}))
            .await;
        let found = client
            .call("projects.get_by_id", json!({"project": made["id"]}))
            .await;
        assert_eq!(found["project"]["name"], "team/vision");
        for name in ["team / vision", " team/vision "] {
            let ask = json!({"name": name});
            let code = refused(&client, "projects.create", ask).await;
            assert_eq!(code, (400, 801), "{name:?}");
        }
        let task = client.task("source").await;
        let ask = json!({"task": task, "new_project_name": "team /vision"});
        let copy = client.call("tasks.clone", ask).await;
        assert_eq!(copy["new_project"]["id"], made["id"]);
        let other = client.call("projects.create", json!({"name": "o"})).await["id"].clone();
        let ask = json!({"project": other, "name": " team/vision"});
        assert_eq!(refused(&client, "projects.update", ask).await, (400, 801));
    });
}

#[test]
fn the_next_task_of_a_queue_has_no_name_once_it_is_deleted() {
    served(async |client| {
        let project = client
            .call("projects.create", json!({"name": "short-lived"}))
            .await["id"]
            .clone();
        let new = json!({"name": "next", "type": "training", "project": project});
        let task = client.call("tasks.create", new).await["id"].clone();
        let queue = client
            .call("queues.create", json!({"name": "served"}))
            .await["id"]
            .clone();
        let ask = json!({"task": task, "queue": queue});
        client.call("tasks.enqueue", ask).await;
        let ask = json!({"worker": "host:0", "queues": [queue]});
        client.call("workers.register", ask).await;
        let next = async || {
            let all = client.call("workers.get_all", json!({})).await;
            all["workers"][0]["queues"][0]["next_task"].clone()
        };
        assert_eq!(next().await, json!({"id": task, "name": "next"}));
        // Entries outlive tasks that go with their project.
        let ask = json!({"project": project, "force": true, "delete_contents": true});
        client.call("projects.delete", ask).await;
        assert_eq!(next().await, json!({"id": task}));
    });
}

#[test]
fn an_administrator_asks_for_no_longer_tokens_than_others_and_for_parts_of_the_settings() {
    let server = InProcess::start();
    let added = trainyard(
        &["user", "add", "root", "--role", "admin"],
        server.data.path(),
    );
    let admin = Client::by_keys(&server.url, keys_of(&added));
    server.block_on(async {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        // The server looks for new users from time to time.
        let me = loop {
            let (status, answer) = admin.raw("users.get_current_user", json!({})).await;
            if status == 200 {
                break answer["data"]["user"]["id"].clone();
            }
            assert!(std::time::Instant::now() < deadline, "{answer}");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        };
        let year = 365 * 24 * 3600;
        let ask = json!({"user": me, "expiration_sec": year});
        admin.call("auth.get_token_for_user", ask).await;
        for seconds in [0, year + 1] {
            let ask = json!({"user": me, "expiration_sec": seconds});
            let code = refused(&admin, "auth.get_token_for_user", ask).await;
            assert_eq!(code, (400, 12), "{seconds}");
        }

        let all = admin.call("server.config", json!({})).await;
        for path in ["files", "tasks.non_responsive_tasks_watchdog"] {
            let part = admin.call("server.config", json!({"path": path})).await;
            let pointer = format!("/{}", path.replace('.', "/"));
            assert_eq!(Some(&part), all.pointer(&pointer), "{path}");
        }
        for path in ["nothing", "api_version"] {
            let code = refused(&admin, "server.config", json!({"path": path})).await;
            assert_eq!(code, (400, 12), "{path}");
        }
    });
}
