//! What the server cannot store stops it with the reason; its secrets stay its owner's. What survives a kill is in
//! `s57_server.rs` and `server_kills.rs`.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server_world::{Alone, Client, Program};

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

/// A user made by the command line while the server runs, and known to it: access key and secret.
async fn added(server: &Program, name: &str) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_trainyard"))
        .args(["server", "user", "add", name, "--data"])
        .arg(&server.data)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let pair: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |key: &str| pair[key].as_str().unwrap().to_owned();
    let pair = (text("access_key"), text("secret_key"));
    let client = Client::by_keys(&server.url, pair.clone());
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (status, answer) = client.raw("auth.login", json!({})).await;
        if status == 200 {
            return pair;
        }
        assert!(Instant::now() < deadline, "still {status}: {answer}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn keys_and_configuration_are_for_their_owner_alone_and_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let (data, conf) = (
        folder.path().join("data"),
        folder.path().join("clearml.conf"),
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    command
        .env("TRAINYARD_SERVER_WRITE_CONF", &conf)
        .env("TRAINYARD_LOG", "trainyard=trace");
    let server = Program::start_by(&mut command, &data);
    let (key, secret) = crate::server_world::keys(&data);
    let text = fs::read_to_string(&conf).unwrap();
    assert!(
        text.contains(&key)
            && text.contains(&secret)
            && text.contains(&format!("{}/files", server.url))
    );

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let others = runtime.block_on(async {
        server.client().call("auth.login", json!({})).await;
        // A wrong secret is refused with words of the server's own, too.
        let wrong = (key.clone(), format!("{secret}x"));
        let (status, _) = Client::by_keys(&server.url, wrong)
            .raw("auth.login", json!({}))
            .await;
        assert_eq!(status, 401);
        added(&server, "ada").await
    });
    let database = data.join("trainyard.sqlite");
    let mut stored = fs::read(&database).unwrap();
    stored.extend(fs::read(data.join("trainyard.sqlite-wal")).unwrap());
    let said = server.stopped();
    assert!(said.contains("keys.json"), "nothing was read: {said}");
    for (key, secret) in [(&key, &secret), (&others.0, &others.1)] {
        assert!(contains(&stored, key), "the database does not know {key}");
        assert!(!contains(&stored, secret), "the database holds a secret");
        assert!(!said.contains(secret.as_str()), "{said}");
    }

    for (path, mode) in [
        (data.join("keys.json"), 0o600),
        (database, 0o600),
        (conf, 0o600),
        (data, 0o700),
    ] {
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            mode,
            "{}",
            path.display()
        );
    }
}

/// Behind a proxy or on a host that pods know by another name: links and configuration have the address that is given.
#[test]
fn the_public_address_is_announced_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("clearml.conf");
    let public = "https://clearml.example.org/team";
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    command
        .args([
            "server",
            "--listen",
            "127.0.0.1:0",
            "--public-url",
            public,
            "--data",
        ])
        .arg(folder.path().join("data"))
        .arg("--write-conf")
        .arg(&conf)
        .stdout(std::process::Stdio::piped());
    let mut server = command.spawn().unwrap();
    let mut said = String::new();
    let mut stdout = std::io::BufReader::new(server.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut said).unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(said, format!("server: {public}\n"));
    let text = fs::read_to_string(&conf).unwrap();
    for address in [
        format!("api_server: \"{public}\""),
        format!("web_server: \"{public}\""),
        format!("files_server: \"{public}/files\""),
    ] {
        assert!(text.contains(&address), "{address}: {text}");
    }
}

/// Starts the program on a folder it must refuse: exit code and message.
fn refused(data: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_trainyard"))
        .args(["server", "--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .output()
        .unwrap();
    assert!(output.stdout.is_empty(), "it must not announce itself");
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn a_corrupt_database_keeps_the_server_from_starting_with_the_reason() {
    let data = tempfile::tempdir().unwrap();
    Program::start(data.path()).kill();
    let database = data.path().join("trainyard.sqlite");
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(data.path().join(format!("trainyard.sqlite{suffix}")));
    }
    fs::write(&database, "this is not a database ".repeat(1000)).unwrap();
    let (code, text) = refused(data.path());
    assert_eq!(code, Some(1));
    assert!(
        text.contains("is corrupt") && text.lines().count() == 1,
        "{text}"
    );
}

#[test]
fn a_damaged_page_within_the_database_keeps_the_server_from_starting_with_the_reason() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Program::start(data.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(server.client().task("kept"));
    server.kill();
    let database = data.path().join("trainyard.sqlite");
    let db = rusqlite::Connection::open(&database).unwrap();
    let number = |sql: &str| -> usize {
        let number: u32 = db.query_row(sql, [], |row| row.get(0)).unwrap();
        number.try_into().unwrap()
    };
    // Nothing of it is left in the journal, which would mend the page.
    assert_eq!(number("PRAGMA wal_checkpoint(TRUNCATE)"), 0);
    let size = number("PRAGMA page_size");
    let page = number("SELECT rootpage FROM sqlite_schema WHERE name = 'tasks'");
    let pages = number("PRAGMA page_count");
    drop(db);
    assert!(1 < page && page < pages, "page {page} of {pages}");
    let mut bytes = fs::read(&database).unwrap();
    assert_eq!(bytes.len(), pages * size);
    let damaged = &mut bytes[(page - 1) * size..page * size];
    assert!(contains(damaged, "kept"), "a task is on that page");
    for (byte, noise) in damaged.iter_mut().zip(b"noise".iter().cycle()) {
        *byte ^= noise;
    }
    fs::write(&database, bytes).unwrap();
    let (code, text) = refused(data.path());
    assert_eq!(code, Some(1));
    let reason = format!("page {page}: ");
    assert!(
        text.contains("is corrupt (") && text.contains(&reason) && text.lines().count() == 1,
        "{text}"
    );
}

#[test]
fn a_second_server_on_the_same_folder_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let _first = Program::start(data.path());
    let (code, text) = refused(data.path());
    assert_eq!(code, Some(1));
    assert!(text.contains("another trainyard server"), "{text}");
}

/// The program, whose files may not grow beyond 2 MiB: for it the disk is then full.
fn on_a_small_disk(data: &Path) -> Program {
    let mut shell = Command::new("sh");
    let limited = "trap '' XFSZ; ulimit -f 4096; exec \"$0\" \"$@\"";
    shell.args(["-c", limited, env!("CARGO_BIN_EXE_trainyard")]);
    Program::start_by(&mut shell, data)
}

#[test]
fn an_upload_whose_last_byte_finds_no_room_is_not_acknowledged() {
    let alone = Alone::by(on_a_small_disk);
    let client = &alone.client;
    for (size, fits) in [(2 << 20, true), ((2 << 20) + 1, false)] {
        let request = client.upload(&format!("p/{size}"), &vec![b'x'; size]);
        let status = alone.block_on(request.send()).unwrap().status();
        assert_eq!(status == 200, fits, "{size} bytes: {status}");
        let request = client.request(reqwest::Method::GET, &format!("files/p/{size}"));
        let status = alone.block_on(request.send()).unwrap().status().as_u16();
        assert_eq!(status, if fits { 200 } else { 404 }, "{size} bytes");
    }
    alone.block_on(client.call("debug.ping", json!({})));
}

#[test]
fn a_full_disk_stops_the_server_with_the_reason() {
    let alone = Alone::by(on_a_small_disk);
    let client = &alone.client;
    alone.block_on(async {
        let task = client
            .call("tasks.create", json!({"name": "large", "type": "training"}))
            .await;
        for _ in 0..100 {
            let ask = json!({"type": "log", "task": task["id"], "msg": "x".repeat(100_000)});
            let (status, answer) = client.raw("events.add", ask).await;
            if status != 200 {
                assert!(status == 500 || status == 0, "{answer}");
                return;
            }
        }
        panic!("the disk never became full");
    });
    let (code, text) = alone.server.ended();
    assert_eq!(code, Some(1));
    assert!(text.contains("the database failed: the disk"), "{text}");
}
