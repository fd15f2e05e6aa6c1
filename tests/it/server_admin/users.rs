//! Who may call: users that come and go, keys and tokens that end, the cookie of a browser.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::{keys_of, said, trainyard};
use crate::server_world::{Client, InProcess, Program};

/// Asks until the answer's status is this one.
fn until(server: &InProcess, client: &Client, call: &str, wanted: u16) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (status, answer) = server.block_on(client.raw(call, json!({})));
        if status == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "still {status}: {answer}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn users_come_and_go_while_the_server_runs() {
    let server = InProcess::start();
    let data = server.data.path();
    let added = trainyard(
        &["user", "add", "ada", "--role", "user", "--expires", "30"],
        data,
    );
    let ada = Client::by_keys(&server.url, keys_of(&added));
    until(&server, &ada, "users.get_current_user", 200);
    server.block_on(async {
        let me = ada.call("users.get_current_user", json!({})).await;
        assert_eq!(me["user"]["name"], "ada");
        let task = ada
            .call("tasks.create", json!({"name": "mine", "type": "training"}))
            .await;
        let task = ada
            .call("tasks.get_by_id", json!({"task": task["id"]}))
            .await;
        assert_eq!(task["task"]["user"], me["user"]["id"]);
        let (status, _) = ada.raw("server.config", json!({})).await;
        assert_eq!(status, 403);
    });

    let guest = Client::by_keys(
        &server.url,
        keys_of(&trainyard(
            &["user", "add", "visitor", "--role", "guest"],
            data,
        )),
    );
    until(&server, &guest, "tasks.get_all", 200);
    let admin = Client::by_keys(
        &server.url,
        keys_of(&trainyard(
            &["user", "add", "root of all", "--role", "admin"],
            data,
        )),
    );
    until(&server, &admin, "server.config", 200);
    server.block_on(async {
        let (status, answer) = guest
            .raw(
                "tasks.create",
                json!({"name": "not mine", "type": "training"}),
            )
            .await;
        assert_eq!(
            (status, &answer["meta"]["result_subcode"]),
            (403, &json!(20))
        );
        for (client, expected) in [(&guest, 403_u16), (&ada, 200), (&guest, 403)] {
            let sent = client.upload("p/a.txt", b"a").send().await.unwrap();
            assert_eq!(sent.status(), expected);
            let path = "files/p/a.txt";
            let looked = client.request(Method::GET, path).send().await.unwrap();
            assert_eq!(looked.status() == 200, expected == 200, "no guest's upload");
            let deleted = client.request(Method::DELETE, path).send().await.unwrap();
            assert_eq!(deleted.status(), expected);
        }
        let token = guest.call("auth.login", json!({})).await;
        assert!(token["token"].is_string());
        let user = ada.call("users.get_current_user", json!({})).await["user"]["id"].clone();
        let token = admin
            .call("auth.get_token_for_user", json!({"user": user}))
            .await;
        assert!(token["token"].is_string());
    });

    let token = server.block_on(ada.call("auth.login", json!({})))["token"].clone();
    let list = said(&trainyard(&["user", "list"], data));
    assert!(
        list.contains("ada (user)") && list.contains("visitor (guest)"),
        "{list}"
    );
    assert!(
        list.contains("ends 20") && list.contains("last used 20"),
        "{list}"
    );
    assert!(trainyard(&["user", "remove", "ada"], data).status.success());
    until(&server, &ada, "tasks.get_all", 401);
    let by_token = Client::without_keys(&server.url);
    let asked = by_token
        .request(Method::POST, "tasks.get_all")
        .bearer_auth(token.as_str().unwrap());
    let status = server.block_on(asked.send()).unwrap().status();
    assert_eq!(status, 401, "a token of a removed user must not count");
}

/// `meta` of a call's answer, asked by a token.
async fn by_token(server: &Program, token: &str) -> Value {
    let asked = Client::without_keys(&server.url)
        .request(Method::POST, "tasks.get_all")
        .bearer_auth(token);
    let answer: Value = asked.send().await.unwrap().json().await.unwrap();
    answer["meta"].clone()
}

#[test]
fn a_token_and_a_key_pair_end_at_their_time() {
    let data = tempfile::tempdir().unwrap();
    let server = Program::start(data.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let login = json!({"expiration_sec": 1});
        let short = server.client().call("auth.login", login).await["token"].clone();
        let short = short.as_str().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let refused = loop {
            let answer = by_token(&server, short).await;
            if answer["result_code"] != 200 || Instant::now() > deadline {
                break answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert_eq!(refused["result_code"], 401, "{refused}");
        assert_eq!(refused["result_subcode"], 30, "{refused}");
        assert_eq!(refused["result_msg"], "Unauthorized (token expired)");
        let long = server.client().call("auth.login", json!({})).await["token"].clone();
        let answer = by_token(&server, long.as_str().unwrap()).await;
        assert_eq!(answer["result_code"], 200, "{answer}");
    });

    let ada = keys_of(&trainyard(
        &["user", "add", "ada", "--expires", "30"],
        data.path(),
    ));
    drop(server);
    let server = Program::start(data.path());
    let client = Client::by_keys(&server.url, ada.clone());
    runtime.block_on(client.call("tasks.get_all", json!({})));
    drop(server);
    let db = rusqlite::Connection::open(data.path().join("trainyard.sqlite")).unwrap();
    let ended = "UPDATE credentials SET until = 1 WHERE access_key = ?1";
    assert_eq!(db.execute(ended, [&ada.0]).unwrap(), 1);
    drop(db);
    let server = Program::start(data.path());
    let client = Client::by_keys(&server.url, ada);
    let (status, answer) = runtime.block_on(client.raw("tasks.get_all", json!({})));
    assert_eq!(
        (status, &answer["meta"]["result_subcode"]),
        (401, &json!(22))
    );
    let list = said(&trainyard(&["user", "list"], data.path()));
    assert!(list.contains(", ended 1970-01-01"), "{list}");
}

#[test]
fn mistakes_with_users_are_told_in_one_line() {
    let server = InProcess::start();
    let data = server.data.path();
    let nowhere = tempfile::tempdir().unwrap();
    assert!(trainyard(&["user", "add", "ada"], data).status.success());
    for (arguments, folder, text) in [
        (
            vec!["user", "add", "ada"],
            data,
            "there is a user named \"ada\" already",
        ),
        (vec!["user", "add", " "], data, "1 to 100 characters"),
        (
            vec!["user", "remove", "bob"],
            data,
            "no user is named \"bob\"",
        ),
        (
            vec!["user", "add-key", "bob"],
            data,
            "no user is named \"bob\"",
        ),
        (
            vec!["user", "remove", "trainyard"],
            data,
            "cannot be removed",
        ),
        (
            vec!["user", "list"],
            nowhere.path(),
            "no trainyard server's database",
        ),
    ] {
        let output = trainyard(&arguments, folder);
        let error = String::from_utf8(output.stderr.clone()).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(
            error.contains(text) && error.lines().count() == 1,
            "{error}"
        );
    }
}

#[test]
fn a_browser_that_logged_in_is_known_by_its_cookie_until_it_logs_out() {
    let server = InProcess::start();
    let (client, open) = (server.client(), Client::without_keys(&server.url));
    server.block_on(async {
        let login = client
            .request(Method::POST, "auth.login")
            .send()
            .await
            .unwrap();
        let cookie = login.headers()["set-cookie"].to_str().unwrap().to_owned();
        for part in [
            "clearml_token_basic=",
            "HttpOnly",
            "Path=/",
            "SameSite=Strict",
        ] {
            assert!(cookie.contains(part), "{cookie}");
        }
        let pair = cookie.split(';').next().unwrap().to_owned();
        let ask = |call: &str| {
            open.request(Method::POST, call)
                .header("Cookie", format!("a=b; {pair}"))
        };
        assert_eq!(ask("tasks.get_all").send().await.unwrap().status(), 200);
        let foreign = ask("tasks.get_all").header("Sec-Fetch-Site", "cross-site");
        assert_eq!(foreign.send().await.unwrap().status(), 403);
        let bad = ask("tasks.get_all").basic_auth("wrong", Some("keys"));
        assert_eq!(
            bad.send().await.unwrap().status(),
            401,
            "the header goes before the cookie"
        );
        let logout = ask("auth.logout").send().await.unwrap();
        assert!(
            logout.headers()["set-cookie"]
                .to_str()
                .unwrap()
                .contains("Max-Age=0")
        );
        assert_eq!(ask("tasks.get_all").send().await.unwrap().status(), 401);
    });
}
