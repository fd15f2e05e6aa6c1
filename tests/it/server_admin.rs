//! Running the server: users, TLS, older versions, backup and restore, settings; what an administrator relies on.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use trainyard::server::{Options, Version};

use crate::server_world::{Client, InProcess, Program, keys_in, served};

/// The server's command line on a data folder.
pub fn trainyard(arguments: &[&str], data: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trainyard"))
        .arg("server")
        .args(arguments)
        .arg("--data")
        .arg(data)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    text(&output.stdout) + &text(&output.stderr)
}

/// The key pair that `user add` prints.
pub fn keys_of(output: &Output) -> (String, String) {
    assert!(output.status.success(), "{}", said(output));
    keys_in(&output.stdout)
}

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
fn a_backup_of_a_busy_server_is_a_whole_one() {
    let (data, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Program::start(data.path());
    let client = server.client();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let archive = away.path().join("backup.tar");
    let known = runtime.block_on(async {
        let task = client
            .call("tasks.create", json!({"name": "kept", "type": "training"}))
            .await["id"]
            .clone();
        client
            .call(
                "events.add",
                json!({"type": "log", "task": task, "msg": "a line"}),
            )
            .await;
        let file = format!(
            "p/{}/{}.bin",
            task.as_str().unwrap(),
            "long name ".repeat(12).trim()
        );
        let sent = client.upload(&file, &vec![7; 70_000]).send().await;
        assert!(sent.unwrap().status().is_success());
        // Others go on writing meanwhile.
        let busy = tokio::spawn({
            let client = client.clone();
            async move {
                let mut count = 0;
                while client
                    .acknowledged(
                        "tasks.create",
                        json!({"name": "another", "type": "training"}),
                    )
                    .await
                    .is_some()
                {
                    count += 1;
                }
                count
            }
        });
        let (to, folder) = (archive.clone(), data.path().to_owned());
        let output = tokio::task::spawn_blocking(move || {
            trainyard(&["backup", to.to_str().unwrap()], &folder)
        });
        let output = output.await.unwrap();
        assert!(output.status.success(), "{}", said(&output));
        (task, file, busy)
    });
    let (task, file, busy) = known;
    let mut server = server;
    server.kill();
    let written: u32 = runtime.block_on(busy).unwrap();
    assert!(written > 0, "nothing was written meanwhile");
    let listed = Command::new("tar")
        .arg("tf")
        .arg(&archive)
        .output()
        .unwrap();
    assert!(
        said(&listed).contains(&file),
        "tar cannot read it: {}",
        said(&listed)
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&archive).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);

    let restored = away.path().join("data");
    let output = trainyard(&["restore", archive.to_str().unwrap()], &restored);
    assert!(output.status.success(), "{}", said(&output));
    let again = trainyard(&["restore", archive.to_str().unwrap()], &restored);
    assert!(
        !again.status.success() && said(&again).contains("already"),
        "{}",
        said(&again)
    );
    let server = Program::start(&restored);
    let client = server.client();
    runtime.block_on(async {
        let log = client
            .call("events.get_task_log", json!({"task": task}))
            .await;
        assert_eq!(log["events"][0]["msg"], "a line");
        let got = client.request(Method::GET, &format!("files/{file}"));
        assert_eq!(
            got.send().await.unwrap().bytes().await.unwrap(),
            vec![7; 70_000]
        );
    });
}

#[test]
fn a_damaged_backup_is_refused_and_leaves_no_database() {
    let folder = tempfile::tempdir().unwrap();
    let server = InProcess::start();
    let archive = folder.path().join("backup.tar");
    let path = archive.to_str().unwrap();
    assert!(
        trainyard(&["backup", path], server.data.path())
            .status
            .success()
    );
    let whole = std::fs::read(&archive).unwrap();
    for (i, bytes) in [&whole[..whole.len() - 1500], &whole[..700], b"no archive"]
        .into_iter()
        .enumerate()
    {
        std::fs::write(&archive, bytes).unwrap();
        let data = folder.path().join(format!("data{i}"));
        let output = trainyard(&["restore", path], &data);
        let error = said(&output);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            error.contains("is no backup") && error.lines().count() == 1,
            "{error}"
        );
        assert!(!data.join("trainyard.sqlite").exists());
    }
}

/// Makes `cert.pem`, a certificate for 127.0.0.1 that vouches for itself, and its `key.pem`.
pub fn certificate(folder: &Path) {
    let made = Command::new("openssl")
        .current_dir(folder)
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args([
            "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "2",
        ])
        .args([
            "-subj",
            "/CN=trainyard",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", said(&made));
}

#[test]
fn with_a_certificate_it_speaks_tls_of_both_versions_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let (cert, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    command
        .env("TRAINYARD_SERVER_TLS_CERT", &cert)
        .env("TRAINYARD_SERVER_TLS_KEY", &key);
    let server = Program::start_by(&mut command, &folder.path().join("data"));
    assert!(
        server.url.starts_with("https://127.0.0.1:"),
        "{}",
        server.url
    );
    // Python's clients speak TLS 1.2 alone.
    let python = "import json, ssl, sys, urllib.request as r\n\
        c = ssl.create_default_context(cafile=sys.argv[2])\n\
        c.minimum_version = c.maximum_version = getattr(ssl.TLSVersion, sys.argv[3])\n\
        print(json.load(r.urlopen(sys.argv[1] + '/debug.ping', context=c))['data']['msg'])\n";
    for version in ["TLSv1_2", "TLSv1_3"] {
        let output = Command::new("python3")
            .args(["-c", python, &server.url])
            .arg(&cert)
            .arg(version)
            .output()
            .unwrap();
        assert_eq!(said(&output).trim(), "ClearML server", "{version}");
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let plain = server.url.replace("https", "http");
    let (status, _) = runtime.block_on(Client::without_keys(&plain).raw("debug.ping", json!({})));
    assert_eq!(status, 0, "it must not answer without TLS");
}

#[test]
fn a_certificate_that_cannot_be_used_is_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(file("cert.pem"), "no certificate").unwrap();
    std::fs::write(file("key.pem"), "no key").unwrap();
    let output = trainyard(
        &[
            "--listen",
            "127.0.0.1:0",
            "--tls-cert",
            &file("cert.pem"),
            "--tls-key",
            &file("key.pem"),
        ],
        &folder.path().join("data"),
    );
    let error = said(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error.contains("could not read the certificate") && error.lines().count() == 1,
        "{error}"
    );
    let alone = trainyard(&["--tls-cert", &file("cert.pem")], folder.path());
    assert_eq!(alone.status.code(), Some(2), "{}", said(&alone));
}

/// A server that plays an older one.
fn playing(version: Version) -> InProcess {
    InProcess::with(|data| Options {
        api_version: version,
        ..Options::new(data)
    })
}

#[test]
fn an_older_server_has_not_what_came_later() {
    let server = playing(Version(2, 13));
    let client = server.client();
    server.block_on(async {
        let token = client.call("auth.login", json!({})).await;
        let claims = claims(token["token"].as_str().unwrap());
        assert_eq!(claims["api_version"], "2.13");
        let info = client.call("server.info", json!({})).await;
        assert_eq!(info["api_version"], "2.13");
        for call in [
            "queues.peek_task",
            "v2.34/tasks.edit_runtime",
            "queues.get_num_entries",
        ] {
            let (status, answer) = client.raw(call, json!({})).await;
            assert_eq!(
                (status, &answer["meta"]["result_subcode"]),
                (404, &json!(0)),
                "{call}"
            );
        }
        let (_, answer) = client.raw("debug.ping", json!({})).await;
        assert_eq!(answer["meta"]["endpoint"]["requested_version"], "2.13");

        // `task` of a pop came with 2.21, `update_execution_queue` with 2.31: unknown members, so they do nothing.
        let (mut tasks, mut queues) = (Vec::new(), Vec::new());
        for i in 0..2 {
            let new = json!({"name": format!("task {i}"), "type": "training"});
            tasks.push(client.call("tasks.create", new).await["id"].clone());
            let new = json!({"name": format!("queue {i}")});
            queues.push(client.call("queues.create", new).await["id"].clone());
        }
        for task in &tasks {
            client
                .call("tasks.enqueue", json!({"task": task, "queue": queues[0]}))
                .await;
        }
        let popped = client
            .call(
                "queues.get_next_task",
                json!({"queue": queues[0], "task": tasks[1]}),
            )
            .await;
        assert_eq!(popped["entry"]["task"], tasks[0]);
        let moved = json!({"task": tasks[1], "queue": queues[1], "update_execution_queue": false});
        client.call("tasks.enqueue", moved).await;
        let task = client
            .call("tasks.get_by_id", json!({"task": tasks[1]}))
            .await;
        assert_eq!(task["task"]["execution"]["queue"], queues[1]);
    });
}

fn claims(token: &str) -> Value {
    use base64::Engine as _;
    let payload = token.split('.').nth(1).unwrap();
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(payload)
        .unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn queues_are_hidden_by_the_tags_that_are_set() {
    let server = InProcess::with(|data| Options {
        hidden_queue_tags: vec!["secret".to_owned()],
        ..Options::new(data)
    });
    let client = server.client();
    server.block_on(async {
        for tag in ["secret", "k8s-glue"] {
            let new = json!({"name": format!("queue {tag}"), "system_tags": [tag]});
            client.call("queues.create", new).await;
        }
        let shown = client
            .call("queues.get_all", json!({"only_fields": ["name"]}))
            .await;
        let names: Vec<&str> = shown["queues"]
            .as_array()
            .unwrap()
            .iter()
            .map(|queue| queue["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["default", "queue k8s-glue"]);
        let all = client
            .call("queues.get_all", json!({"search_hidden": true}))
            .await;
        assert_eq!(all["queues"].as_array().unwrap().len(), 3);
    });
}

#[test]
fn what_is_silent_or_old_goes_as_it_is_set() {
    let server = InProcess::with(|data| Options {
        silence: Duration::from_secs(15),
        watch: Duration::from_millis(300),
        keep_logs: Some(1),
        ..Options::new(data)
    });
    let client = server.client();
    server.block_on(async {
        let task = client
            .call(
                "tasks.create",
                json!({"name": "silent", "type": "training"}),
            )
            .await["id"]
            .clone();
        let now = jiff::Timestamp::now().as_millisecond();
        for (text, at) in [("old", now - 2 * 24 * 3_600_000), ("new", now)] {
            let line = json!({"type": "log", "task": task, "msg": text, "timestamp": at});
            client.call("events.add", line).await;
        }
        client.call("tasks.started", json!({"task": task})).await;
        // One that tells nothing but that it is there, and one whose worker tells it.
        let (pings, worked) = (client.task("pings").await, client.task("worked").await);
        for alive in [&pings, &worked] {
            client.call("tasks.started", json!({"task": alive})).await;
        }
        let deadline = Instant::now() + Duration::from_secs(90);
        let ended = loop {
            client.call("tasks.ping", json!({"task": pings})).await;
            let status = json!({"worker": "w:0", "timestamp": 1, "task": worked});
            client.call("workers.status_report", status).await;
            let found = client.call("tasks.get_by_id", json!({"task": task})).await;
            if found["task"]["status"] != "in_progress" || Instant::now() > deadline {
                break found["task"].clone();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert_eq!(ended["status"], "stopped");
        assert_eq!(ended["status_reason"], "Forced stop (non-responsive)");
        for alive in [&pings, &worked] {
            let found = client.call("tasks.get_by_id", json!({"task": alive})).await;
            assert_eq!(
                found["task"]["status"], "in_progress",
                "{}",
                found["task"]["name"]
            );
        }
        let log = client
            .call("events.get_task_log", json!({"task": task}))
            .await;
        assert_eq!(log["total"], 1);
        assert_eq!(log["events"][0]["msg"], "new");
    });
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

#[test]
fn answers_are_packed_for_clients_from_elsewhere_that_accept_it() {
    let server = InProcess::start();
    let client = server.client();
    server.block_on(async {
        for i in 0..20 {
            client
                .call("queues.create", json!({"name": format!("queue {i}")}))
                .await;
        }
        // The test's own client unpacks nothing: what the wire carries is seen.
        let http = reqwest::Client::builder().no_gzip().build().unwrap();
        let ask = |from: &str, accept: &str| {
            http.get(format!("{}/queues.get_all", server.url))
                .basic_auth(
                    &client.keys.as_ref().unwrap().0,
                    Some(&client.keys.as_ref().unwrap().1),
                )
                .header("Accept-Encoding", accept)
                .header("X-Forwarded-For", from)
                .send()
        };
        let packed = ask("192.0.2.1", "gzip, deflate").await.unwrap();
        assert_eq!(packed.headers()["content-encoding"], "gzip");
        let packed = packed.bytes().await.unwrap();
        let plain = ask("192.0.2.1", "identity").await.unwrap();
        assert!(!plain.headers().contains_key("content-encoding"));
        assert!(packed.len() * 3 < plain.bytes().await.unwrap().len());
        let unpacked = client
            .request(Method::GET, "queues.get_all")
            .header("X-Forwarded-For", "192.0.2.1");
        let answer: Value = unpacked.send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["data"]["queues"].as_array().unwrap().len(), 21);
    });
}

#[test]
fn a_file_that_is_too_large_is_refused_with_the_limit() {
    let server = InProcess::with(|data| Options {
        largest_file: 1000,
        ..Options::new(data)
    });
    let client = server.client();
    server.block_on(async {
        let upload = client.upload("p/a.bin", &[1; 1001]);
        let answer = upload.send().await.unwrap();
        assert_eq!(answer.status(), 413);
        assert_eq!(
            answer.text().await.unwrap(),
            "the file is larger than 1000 bytes"
        );
    });
}

#[test]
fn a_reset_takes_the_files_of_the_run_away_and_nothing_else() {
    let server = InProcess::with(|data| Options {
        linger: Duration::ZERO,
        ..Options::new(data)
    });
    let client = server.client();
    server.block_on(async {
        let task = client
            .call("tasks.create", json!({"name": "again", "type": "training"}))
            .await["id"]
            .clone();
        let id = task.as_str().unwrap();
        let paths = [
            format!("p/again.{id}/artifacts/out/out.bin"),
            format!("p/again.{id}/metrics/m/v/1.png"),
            format!("p/again.{id}/artifacts/in/in.bin"),
            "p/another.0123456789abcdef0123456789abcdef/artifacts/out/out.bin".to_owned(),
        ];
        for path in &paths {
            let sent = client.upload(path, b"contents").send().await;
            assert!(sent.unwrap().status().is_success());
        }
        let uri = |i: usize| format!("http://some.name:8081/files/{}", paths[i]);
        let artifacts = json!([
            {"key": "out", "type": "custom", "uri": uri(0)},
            {"key": "in", "type": "custom", "mode": "input", "uri": uri(2)},
            {"key": "foreign", "type": "custom", "uri": uri(3)},
        ]);
        let add = json!({"task": task, "artifacts": artifacts});
        client.call("tasks.add_or_update_artifacts", add).await;
        let image = json!({"type": "training_debug_image", "task": task, "metric": "m", "variant": "v", "iter": 1, "url": uri(1)});
        client.call("events.add", image).await;
        client.call("tasks.reset", json!({"task": task})).await;
        let there = |i: usize| server.data.path().join("files").join(&paths[i]).exists();
        let deadline = Instant::now() + Duration::from_secs(30);
        while (there(0) || there(1)) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!([0, 1, 2, 3].map(there), [false, false, true, true]);
    });
}

#[test]
fn tags_are_put_on_and_taken_off_many_at_once() {
    served(async |client| {
        let new = json!({"name": "tagged", "type": "training", "tags": ["a", "b"]});
        let task = client.call("tasks.create", new).await["id"].clone();
        let model = json!({"uri": "http://x/m", "name": "model", "tags": ["b"]});
        let model = client.call("models.create", model).await["id"].clone();
        for (call, id, get, kind) in [
            ("tasks.update_tags", &task, "tasks.get_by_id", "task"),
            ("models.update_tags", &model, "models.get_by_id", "model"),
        ] {
            let ask = json!({"ids": [id, "nobody"], "add_tags": ["c", "b"], "remove_tags": ["a"]});
            assert_eq!(client.call(call, ask).await["updated"], 2);
            let found = client.call(get, json!({kind: id})).await;
            assert_eq!(found[kind]["tags"], json!(["b", "c"]));
            let (status, answer) = client.raw(call, json!({"ids": [id]})).await;
            assert_eq!(
                (status, &answer["meta"]["result_subcode"]),
                (400, &json!(12))
            );
        }
    });
}
