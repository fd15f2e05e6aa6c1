//! The server's edges over HTTP: methods and bodies, who may do what, files, pages, sizes, packed answers.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use trainyard::server::Options;

use crate::server_world::{Client, InProcess, multipart, served};

async fn status_and_text(request: reqwest::RequestBuilder) -> (u16, String) {
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn upload(client: &Client, path: &str, contents: &[u8]) -> (u16, String) {
    status_and_text(client.upload(path, contents)).await
}

#[test]
fn files_go_up_come_down_in_parts_and_go_away() {
    let server = InProcess::start();
    let client = server.client();
    let open = Client::without_keys(&server.url);
    server.block_on(async {
        let (status, stored) =
            upload(&client, "p/task name.1/artifacts/a/data.bin", b"0123456789").await;
        assert_eq!(
            (status, stored.as_str()),
            (200, r#"["p/task name.1/artifacts/a/data.bin"]"#)
        );

        let path = "files/p/task%20name.1/artifacts/a/data.bin";
        assert_eq!(
            status_and_text(open.request(Method::GET, path)).await,
            (200, "0123456789".into())
        );
        let part = open.request(Method::GET, path).header("Range", "bytes=2-4");
        assert_eq!(status_and_text(part).await, (206, "234".into()));
        let beyond = open.request(Method::GET, path).header("Range", "bytes=10-");
        assert_eq!(status_and_text(beyond).await.0, 416);
        let head = open.request(Method::HEAD, path).send().await.unwrap();
        assert_eq!(head.headers()["content-length"], "10");

        let list = json!({"files": ["p/task%20name.1/artifacts/a/data.bin", "none", "../x"]});
        let (_, answer) = status_and_text(
            client
                .request(Method::POST, "files/delete_many")
                .json(&list),
        )
        .await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["deleted"].as_object().unwrap().len(), 1);
        assert_eq!(answer["errors"].as_object().unwrap().len(), 2);
        assert_eq!(
            status_and_text(open.request(Method::GET, path)).await.0,
            404
        );

        upload(&client, "p/b.txt", b"b").await;
        assert_eq!(upload(&client, "p/b.txt/c", b"c").await.0, 409);
        assert_eq!(upload(&client, "p", b"p").await.0, 409);
        let on_the_way = server.data.path().join("uploads");
        assert_eq!(std::fs::read_dir(on_the_way).unwrap().count(), 0);
        assert_eq!(
            status_and_text(client.request(Method::DELETE, "files/p/b.txt"))
                .await
                .0,
            200
        );
        assert_eq!(
            status_and_text(open.request(Method::GET, "files/p/b.txt"))
                .await
                .0,
            404
        );
        assert_eq!(
            status_and_text(open.request(Method::GET, "files/")).await,
            (200, "OK".into())
        );
    });
}

#[test]
fn an_upload_that_has_no_place_on_the_way_is_an_error_of_the_servers() {
    let server = InProcess::start();
    let client = server.client();
    let on_the_way = server.data.path().join("uploads");
    std::fs::remove_dir(&on_the_way).unwrap();
    server.block_on(async {
        let refused = upload(&client, "p/a.txt", b"a").await;
        assert_eq!(refused, (500, "could not store the file".into()));
        for method in [Method::GET, Method::DELETE] {
            let missing = client.request(method, "files/p/a.txt");
            assert_eq!(status_and_text(missing).await, (404, "no such file".into()));
        }
        std::fs::create_dir(&on_the_way).unwrap();
        assert_eq!(upload(&client, "p/a.txt", b"a").await.0, 200);
    });
}

#[test]
fn an_upload_of_too_many_parts_is_refused_and_the_files_before_stay() {
    served(async |client| {
        let field = "--edge\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\nv\r\n";
        for (fields, expected) in [(999, 200), (1000, 413)] {
            let path = format!("p/{fields}.txt");
            let file = format!(
                "--edge\r\nContent-Disposition: form-data; name=\"{path}\"; filename=\"f\"\r\n\r\nf\r\n"
            );
            let body = file + &field.repeat(fields) + "--edge--\r\n";
            let request = client
                .request(Method::POST, "files")
                .header("Content-Type", "multipart/form-data; boundary=edge")
                .body(body);
            let (status, text) = status_and_text(request).await;
            assert_eq!(status, expected, "{text}");
            if status == 413 {
                let told = "the upload has more than 1000 parts: send it in several";
                assert_eq!(text, told);
            }
            let stored = client.request(Method::GET, &format!("files/{path}"));
            assert_eq!(status_and_text(stored).await, (200, "f".into()));
        }
    });
}

/// Uploads 32 MiB as a client that reads nothing before all is sent; the answer.
fn send_then_read(client: &Client, path: &str) -> String {
    let (kind, body) = multipart(path, &vec![b'x'; 32 << 20]);
    let (key, secret) = client.keys.clone().unwrap_or_default();
    let pair = STANDARD.encode(format!("{key}:{secret}"));
    let host = client.url.trim_start_matches("http://");
    let head = format!(
        "POST /files HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {pair}\r\nConnection: close\r\n\
         Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(host).unwrap();
    let patience = Some(Duration::from_secs(60));
    stream.set_read_timeout(patience).unwrap();
    stream.set_write_timeout(patience).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_client_whose_upload_is_refused_early_reads_why_after_it_has_sent_all() {
    let server = InProcess::with(|data| Options {
        largest_file: 1000,
        ..Options::new(data)
    });
    let (client, open) = (server.client(), Client::without_keys(&server.url));
    for (client, path, status, why) in [
        (&open, "p/a.bin", "401 ", "Unauthorized"),
        (
            &client,
            "../a.bin",
            "400 ",
            "has a part that is not allowed",
        ),
        (
            &client,
            "p/a.bin",
            "413 ",
            "the file is larger than 1000 bytes",
        ),
    ] {
        let answer = send_then_read(client, path);
        let (line, _) = answer.split_once('\r').unwrap();
        assert!(line.contains(status) && answer.contains(why), "{answer}");
    }
}

#[test]
fn files_are_written_only_inside_their_folder_and_only_with_keys() {
    let server = InProcess::start();
    let (client, open) = (server.client(), Client::without_keys(&server.url));
    server.block_on(async {
        for path in ["../../escape", "a/../../escape", "..", "/"] {
            assert_eq!(upload(&client, path, b"x").await.0, 400, "{path}");
        }
        for path in [
            "files/%2e%2e/keys.json",
            "files/..%2fkeys.json",
            "files/p/%2e%2e/%2e%2e/keys.json",
        ] {
            let (status, _) = status_and_text(open.request(Method::GET, path)).await;
            assert!(status == 400 || status == 404, "{path}: {status}");
        }
        assert_eq!(upload(&open, "p/a.txt", b"x").await.0, 401);
        assert_eq!(
            status_and_text(open.request(Method::DELETE, "files/p"))
                .await
                .0,
            401
        );
        assert!(!server.data.path().join("escape").exists());
    });
}

#[test]
fn every_method_carries_a_body_and_the_query_counts() {
    served(async |client| {
        let body = json!({"name": "^default$", "only_fields": ["name"], "method": "get"});
        for method in [Method::GET, Method::POST, Method::PUT] {
            let (status, text) =
                status_and_text(client.request(method, "v2.23/queues.get_all").json(&body)).await;
            assert_eq!(status, 200, "{text}");
            assert!(text.contains(r#""queues":[{"name":"default"}]"#), "{text}");
        }
        let by_query = client.request(
            Method::GET,
            "queues.get_all?name=default&only_fields[]=name",
        );
        assert!(
            status_and_text(by_query)
                .await
                .1
                .contains(r#"[{"name":"default"}]"#)
        );
        assert_eq!(
            status_and_text(client.request(Method::OPTIONS, "tasks.get_all")).await,
            (200, String::new())
        );
    });
}

#[test]
fn a_token_serves_until_it_is_logged_out_and_renews_itself() {
    served(async |client| {
        let token = client.call("auth.login", json!({})).await["token"]
            .as_str()
            .unwrap()
            .to_owned();
        let with = |token: &str, call: &str| {
            client
                .http
                .post(format!("{}/{call}", client.url))
                .bearer_auth(token)
                .send()
        };
        let renewed: Value = with(&token, "auth.login")
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert!(
            renewed["data"]["token"]
                .as_str()
                .unwrap()
                .split('.')
                .count()
                == 3
        );
        assert_eq!(with(&token, "auth.logout").await.unwrap().status(), 200);
        let refused: Value = with(&token, "queues.get_all")
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert_eq!(
            (
                &refused["meta"]["result_code"],
                &refused["meta"]["result_subcode"]
            ),
            (&json!(401), &json!(30))
        );
        let forged = format!("{}x", &token[..token.len() - 1]);
        assert_eq!(with(&forged, "queues.get_all").await.unwrap().status(), 401);
    });
}

#[test]
fn what_is_too_large_encoded_or_sent_by_another_site_is_refused() {
    let server = InProcess::start();
    let client = server.client();
    server.block_on(async {
        let large = client
            .request(Method::POST, "debug.ping")
            .body(vec![b' '; 33 << 20]);
        let (status, text) = status_and_text(large).await;
        assert_eq!(status, 413);
        let answer: Value = serde_json::from_str(&text).unwrap();
        let told = answer["meta"]["result_msg"].as_str().unwrap();
        assert!(told.contains("larger than 33554432 bytes"), "{told}");
        // A large request that is refused for another reason gets its answer too.
        let unknown = Client::without_keys(&server.url)
            .request(Method::POST, "tasks.get_all")
            .body(vec![b' '; 8 << 20]);
        assert_eq!(status_and_text(unknown).await.0, 401);
        let encoded = client
            .request(Method::POST, "debug.ping")
            .header("Content-Encoding", "gzip")
            .body("x");
        assert_eq!(status_and_text(encoded).await.0, 415);
        let foreign = client
            .request(Method::GET, "queues.get_all")
            .header("Sec-Fetch-Site", "cross-site");
        assert_eq!(status_and_text(foreign).await.0, 403);
        let upload = client
            .upload("p/a.txt", b"x")
            .header("Sec-Fetch-Site", "cross-site");
        assert_eq!(status_and_text(upload).await.0, 403);
        assert_eq!(client.call("debug.ping", json!({"a": 1})).await["a"], 1);
    });
}

#[test]
fn the_page_is_given_to_all_holds_no_data_and_lets_no_foreign_script_in() {
    let server = InProcess::start();
    let (client, open) = (server.client(), Client::without_keys(&server.url));
    server.block_on(async {
        let ask = json!({"name": "a secret name", "type": "training"});
        let task = client.call("tasks.create", ask).await["id"]
            .as_str()
            .unwrap()
            .to_owned();
        for path in [
            String::new(),
            format!("projects/p/tasks/{task}/output/log"),
            format!("projects/*/experiments/{task}"),
        ] {
            let answer = open.request(Method::GET, &path).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{path}");
            let policy = answer.headers()["content-security-policy"]
                .to_str()
                .unwrap()
                .to_owned();
            for part in [
                "default-src 'none'",
                "script-src 'self'",
                "style-src 'self'",
                "require-trusted-types-for 'script'",
            ] {
                assert!(policy.contains(part), "{policy}");
            }
            assert!(!policy.contains("unsafe"), "{policy}");
            let text = answer.text().await.unwrap();
            assert!(
                text.contains("/page/start.js") && !text.contains("secret"),
                "{text}"
            );
        }
        let missing = status_and_text(open.request(Method::GET, "page/none.js")).await;
        assert_eq!(missing.0, 404);
        let other = status_and_text(open.request(Method::POST, "")).await;
        assert_eq!(other.0, 400, "{}", other.1);
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
