//! The client against answers that a server gives on bad days.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;
use crate::task::{Status, TaskId};

fn ok(data: &Value) -> ResponseTemplate {
    ResponseTemplate::new(200)
        .set_body_json(json!({"meta": {"result_code": 200, "result_subcode": 0, "result_msg": "OK"}, "data": data}))
}

fn refusal(http: u16, subcode: u32) -> ResponseTemplate {
    ResponseTemplate::new(http).set_body_json(
        json!({"meta": {"result_code": http, "result_subcode": subcode, "result_msg": "no"}, "data": {}}),
    )
}

async fn server() -> (MockServer, Client) {
    let server = MockServer::start().await;
    let client = Client::new(Settings::new(
        server.uri(),
        Credentials::keys("key", "secret"),
        "worker",
    ))
    .unwrap();
    (server, client)
}

async fn answer(server: &MockServer, action: &str, template: ResponseTemplate) {
    Mock::given(method("POST"))
        .and(path(format!("/{action}")))
        .respond_with(template)
        .mount(server)
        .await;
}

async fn logged_in() -> (MockServer, Client) {
    let (server, client) = server().await;
    answer(&server, "auth.login", ok(&json!({"token": "a.b.c"}))).await;
    (server, client)
}

fn task_id() -> TaskId {
    "0123456789abcdef0123456789abcdef".parse().unwrap()
}

fn queue_id() -> crate::task::QueueId {
    "fedcba9876543210fedcba9876543210".parse().unwrap()
}

#[tokio::test]
async fn one_login_serves_many_calls() {
    let (server, client) = logged_in().await;
    answer(&server, "tasks.ping", ok(&json!({}))).await;
    client.ping(&task_id()).await.unwrap();
    client.ping(&task_id()).await.unwrap();
    let requests = server.received_requests().await.unwrap();
    assert_eq!(
        requests
            .iter()
            .filter(|request| request.url.path() == "/auth.login")
            .count(),
        1
    );
    assert_eq!(
        requests[0].headers["authorization"],
        "Basic a2V5OnNlY3JldA=="
    );
    assert_eq!(requests[1].headers["x-clearml-worker"], "worker");
}

#[tokio::test]
async fn a_rejected_token_is_replaced_and_the_header_built_anew() {
    let (server, client) = server().await;
    let logins = std::sync::Arc::new(AtomicUsize::new(0));
    let counter = logins.clone();
    Mock::given(path("/auth.login"))
        .respond_with(move |_: &wiremock::Request| {
            ok(&json!({"token": format!("a.b.{}", counter.fetch_add(1, Ordering::SeqCst))}))
        })
        .mount(&server)
        .await;
    Mock::given(path("/tasks.ping"))
        .and(header("authorization", "Bearer a.b.1"))
        .respond_with(ok(&json!({})))
        .mount(&server)
        .await;
    Mock::given(path("/tasks.ping"))
        .and(header("authorization", "Bearer a.b.0"))
        .respond_with(refusal(401, 30))
        .mount(&server)
        .await;
    client.ping(&task_id()).await.unwrap();
    assert_eq!(logins.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn wrong_credentials_are_a_refusal_and_not_repeated() {
    let (server, client) = server().await;
    answer(&server, "auth.login", refusal(401, 22)).await;
    let error = client.ping(&task_id()).await.unwrap_err();
    assert!(error.is_unauthorized(), "{error}");
    assert_eq!(server.received_requests().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_token_alone_is_renewed_by_itself() {
    let (server, _) = server().await;
    Mock::given(path("/auth.login"))
        .and(header("authorization", "Bearer old.x.y"))
        .respond_with(ok(&json!({"token": "new.x.y"})))
        .mount(&server)
        .await;
    Mock::given(path("/tasks.ping"))
        .and(header("authorization", "Bearer new.x.y"))
        .respond_with(ok(&json!({})))
        .mount(&server)
        .await;
    Mock::given(path("/tasks.ping"))
        .respond_with(refusal(401, 30))
        .mount(&server)
        .await;
    let credentials = Credentials::Token(SecretString::from("old.x.y"));
    let client = Client::new(Settings::new(server.uri(), credentials, "worker")).unwrap();
    client.ping(&task_id()).await.unwrap();
}

#[tokio::test]
async fn too_many_requests_carry_the_servers_wish_and_certainly_did_nothing() {
    let (server, client) = logged_in().await;
    answer(
        &server,
        "tasks.ping",
        refusal(429, 0).insert_header("retry-after", "7"),
    )
    .await;
    let error = client.ping(&task_id()).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    assert!(error.is_undelivered());
}

#[tokio::test]
async fn a_server_error_is_transient_and_may_have_taken_effect() {
    let (server, client) = logged_in().await;
    answer(&server, "queues.remove_task", refusal(500, 102)).await;
    let error = client
        .remove_from_queue(&queue_id(), &task_id())
        .await
        .unwrap_err();
    assert!(error.is_transient() && !error.is_undelivered(), "{error}");
}

#[tokio::test]
async fn retry_goes_on_until_the_server_has_recovered() {
    let (server, client) = logged_in().await;
    Mock::given(path("/tasks.ping"))
        .respond_with(refusal(503, 0))
        .up_to_n_times(2)
        .mount(&server)
        .await;
    answer(&server, "tasks.ping", ok(&json!({}))).await;
    let until = Instant::now() + Duration::from_secs(20);
    let task = task_id();
    retry(until, || client.ping(&task)).await.unwrap();
}

#[tokio::test]
async fn retry_ends_at_its_deadline_and_never_repeats_a_refusal() {
    let (server, client) = logged_in().await;
    answer(&server, "tasks.ping", refusal(503, 0)).await;
    let (started, task) = (Instant::now(), task_id());
    let error = retry(started + Duration::from_millis(600), || client.ping(&task))
        .await
        .unwrap_err();
    assert!(error.is_transient());
    assert!(started.elapsed() < Duration::from_secs(5));
    answer(&server, "tasks.failed", refusal(400, 110)).await;
    let error = retry(Instant::now() + Duration::from_secs(20), || {
        client.failed(&task, "", "")
    })
    .await
    .unwrap_err();
    assert!(error.is(400, 110));
}

#[test]
fn waits_grow_to_their_cap_begin_anew_after_a_success_and_never_undercut_the_servers_wish() {
    let mut backoff = Backoff::new(Duration::from_secs(2));
    for longest in [250, 500, 1000, 2000, 2000, 2000] {
        let longest = Duration::from_millis(longest);
        let wait = backoff.next(None);
        assert!(
            (longest / 2..=longest).contains(&wait),
            "{wait:?} of {longest:?}"
        );
    }
    let asked = Duration::from_secs(7);
    assert_eq!(backoff.next(Some(asked)), asked, "longer than the cap");
    let wait = backoff.next(Some(Duration::ZERO));
    assert!(wait >= Duration::from_secs(1), "{wait:?}");
    backoff.reset();
    let wait = backoff.next(None);
    assert!(wait <= Duration::from_millis(250), "{wait:?}");
}

#[tokio::test]
async fn with_a_proxy_each_request_takes_it() {
    let (proxy, _) = logged_in().await;
    answer(&proxy, "tasks.ping", ok(&json!({}))).await;
    // Nobody but the proxy knows who that is.
    let keys = Credentials::keys("key", "secret");
    let client = Client::new(Settings {
        proxy: Some(SecretString::from(proxy.uri())),
        ..Settings::new("http://clearml.invalid:8008", keys, "worker")
    })
    .unwrap();
    client.ping(&task_id()).await.unwrap();
    let requests = proxy.received_requests().await.unwrap();
    let asked: Vec<&str> = requests
        .iter()
        .map(|request| request.url.as_str())
        .collect();
    assert_eq!(
        asked,
        [
            "http://clearml.invalid:8008/auth.login",
            "http://clearml.invalid:8008/tasks.ping"
        ]
    );
}

#[tokio::test]
async fn nobody_listening_is_transient_and_undelivered() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{port}");
    let client = Client::new(Settings::new(
        url,
        Credentials::keys("key", "secret"),
        "worker",
    ))
    .unwrap();
    let error = client.ping(&task_id()).await.unwrap_err();
    assert!(error.is_undelivered(), "{error}");
}

#[tokio::test]
async fn broken_bodies_are_not_understood_rather_than_believed() {
    for body in [
        "",
        "<html>",
        "[]",
        "{}",
        r#"{"meta":{"result_code":200},"data":null}"#,
        r#"{"meta":{"result_code":400},"data":{}}"#,
    ] {
        let (server, client) = logged_in().await;
        answer(
            &server,
            "queues.remove_task",
            ResponseTemplate::new(200).set_body_string(body),
        )
        .await;
        let error = client
            .remove_from_queue(&queue_id(), &task_id())
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{body:?}: {error}");
    }
}

#[tokio::test]
async fn a_page_of_something_else_names_the_cause() {
    let (server, client) = logged_in().await;
    answer(
        &server,
        "tasks.ping",
        ResponseTemplate::new(404).set_body_string("nginx: not here"),
    )
    .await;
    let error = client.ping(&task_id()).await.unwrap_err();
    assert!(error.to_string().contains("nginx"), "{error}");
    answer(
        &server,
        "tasks.started",
        ResponseTemplate::new(308).insert_header("location", "https://other"),
    )
    .await;
    let error = client.started(&task_id(), "", "").await.unwrap_err();
    assert!(error.to_string().contains("https://other"), "{error}");
}

#[tokio::test]
async fn an_answer_that_does_not_come_ends_in_time() {
    let (server, _) = logged_in().await;
    answer(
        &server,
        "tasks.ping",
        ok(&json!({})).set_delay(Duration::from_secs(30)),
    )
    .await;
    let mut settings = Settings::new(server.uri(), Credentials::keys("key", "secret"), "worker");
    settings.timeout = Duration::from_millis(300);
    let client = Client::new(settings).unwrap();
    let started = Instant::now();
    let error = client.ping(&task_id()).await.unwrap_err();
    assert!(error.is_transient() && !error.is_undelivered(), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn an_empty_list_of_ids_is_never_sent() {
    let (server, client) = logged_in().await;
    assert!(client.queue_entries(&[], 10).await.unwrap().is_empty());
    assert!(client.task_facts(&[]).await.unwrap().tasks.is_empty());
    assert!(server.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn more_than_500_ids_are_asked_for_in_pages() {
    let (server, client) = logged_in().await;
    answer(&server, "tasks.get_all", ok(&json!({"tasks": []}))).await;
    let ids: Vec<TaskId> = (0..501)
        .map(|number| format!("{number:032x}").parse().unwrap())
        .collect();
    client.task_facts(&ids).await.unwrap();
    let requests = server.received_requests().await.unwrap();
    assert_eq!(
        requests
            .iter()
            .filter(|request| request.url.path() == "/tasks.get_all")
            .count(),
        2
    );
}

#[tokio::test]
async fn only_the_caller_that_got_the_entry_hears_yes() {
    for (template, expected) in [
        (ok(&json!({"removed": 1})), true),
        (ok(&json!({"removed": 1.0})), true),
        (ok(&json!({"removed": 0})), false),
        (ok(&json!({})), false),
        (refusal(400, 703), false),
    ] {
        let (server, client) = logged_in().await;
        answer(&server, "queues.remove_task", template).await;
        assert_eq!(
            client
                .remove_from_queue(&queue_id(), &task_id())
                .await
                .unwrap(),
            expected
        );
    }
}

#[tokio::test]
async fn one_unreadable_task_does_not_spoil_the_others() {
    let (server, client) = logged_in().await;
    let odd = "ffffffffffffffffffffffffffffffff";
    answer(
        &server,
        "tasks.get_all",
        ok(&json!({"tasks": [
            {"id": task_id(), "status": "in_progress", "runtime": {"_trainyard_attempt": "w:x:1"}, "last_worker": ""},
            {"id": odd, "status": 5},
            {"no": "id"},
        ]})),
    )
    .await;
    let found = client
        .task_facts(&[task_id(), odd.parse().unwrap()])
        .await
        .unwrap();
    assert_eq!(found.tasks.len(), 1);
    assert_eq!(found.tasks[0].status, Status::InProgress);
    assert_eq!(found.tasks[0].mark.as_ref().unwrap().0, "w:x:1");
    assert_eq!(found.tasks[0].last_worker, None);
    assert_eq!(found.unreadable[0].id.as_str(), odd);
}

#[tokio::test]
async fn a_cut_off_queue_says_so_and_foreign_entries_are_left_out() {
    let (server, client) = logged_in().await;
    answer(
        &server,
        "queues.get_all",
        ok(&json!({"queues": [{"id": queue_id(), "entries": [
            {"task": task_id(), "added": "2025-11-04T14:46:17.123000+00:00"}, {"task": "nonsense"},
        ]}]})),
    )
    .await;
    let cut = client.queue_entries(&[queue_id()], 2).await.unwrap();
    assert!(cut[0].cut && cut[0].entries.len() == 1 && cut[0].entries[0].added.is_some());
    assert!(!client.queue_entries(&[queue_id()], 0).await.unwrap()[0].cut);
}

#[tokio::test]
async fn a_queue_is_found_by_its_exact_name_only() {
    let (server, client) = logged_in().await;
    answer(
        &server,
        "queues.get_all",
        ok(&json!({"queues": [{"id": queue_id(), "name": "gpu.x"}]})),
    )
    .await;
    assert!(client.find_queue("gpu.x").await.unwrap().is_some());
    assert!(client.find_queue("gpu").await.unwrap().is_none());
    let requests = server.received_requests().await.unwrap();
    let body: Value = serde_json::from_slice(&requests[1].body).unwrap();
    assert_eq!(body["name"], "^gpu\\.x$");
}

#[tokio::test]
async fn a_batch_is_sent_as_lines_and_refused_ones_are_counted() {
    let (server, client) = logged_in().await;
    answer(&server, "events.add_batch", refusal(400, 131)).await;
    let line = Event::Log {
        task: task_id(),
        worker: crate::task::WorkerId("w".into()),
        level: "INFO",
        msg: "a\n".into(),
        timestamp: 1,
    };
    let added = client.add_events(&[line.clone(), line]).await.unwrap();
    assert_eq!((added.added, added.errors), (0, 2));
    let requests = server.received_requests().await.unwrap();
    let body = std::str::from_utf8(&requests[1].body).unwrap();
    assert_eq!(body.lines().count(), 2);
    assert!(body.starts_with(r#"{"type":"log""#), "{body}");
    // Also of a task that was published meanwhile.
    assert!(body.ends_with(r#""allow_locked":true}"#), "{body}");
    assert_eq!(
        requests[1].headers["content-type"],
        "application/json-lines"
    );
}

#[tokio::test]
async fn a_file_server_below_the_api_is_found_if_there_is_one() {
    let (server, client) = server().await;
    assert_eq!(client.files_below_api().await.unwrap(), None);
    Mock::given(method("GET"))
        .and(path("/files"))
        .respond_with(ResponseTemplate::new(200).set_body_string("OK"))
        .mount(&server)
        .await;
    let found = client.files_below_api().await.unwrap();
    assert_eq!(found, Some(format!("{}/files", server.uri())));
}

#[test]
fn settings_that_cannot_work_are_refused_at_once() {
    let settings = |url: &str| Settings::new(url, Credentials::keys("k", "s"), "worker");
    for url in ["", "api.example", "ftp://x", "http://"] {
        assert!(
            matches!(Client::new(settings(url)), Err(SetupError::BadUrl(_))),
            "{url}"
        );
    }
    let with_ca = Settings {
        ca: Some(b"no certificate".to_vec()),
        ..settings("https://api.example")
    };
    assert!(matches!(Client::new(with_ca), Err(SetupError::BadCa)));
}
