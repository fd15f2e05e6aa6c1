//! Random uploads, whole and cut off: nothing is written outside the folder, nothing of one that was cut off stays, and
//! none is kept in memory.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::json;

use super::multipart::{content_type, part};
use super::{MEMORY, runner};
use crate::process::peak;
use crate::server_world::{Alone, Client, Program};

/// Uploads of one run; each file that is stored is written through to the disk.
const UPLOADS: u32 = 600;

/// How an upload comes to its end.
#[derive(Debug, Clone)]
enum End {
    Whole,
    /// The last edge is missing.
    Open,
    /// The body is cut somewhere.
    Cut(prop::sample::Index),
    /// Less arrives than was announced.
    BrokenOff(prop::sample::Index),
}

/// Sends an upload of which a part never comes; the answer's status, if there is an answer.
fn break_off(client: &Client, kind: &[u8], body: &[u8]) -> Result<Option<u16>, TestCaseError> {
    let failed = |error: std::io::Error| TestCaseError::fail(error.to_string());
    let (key, secret) = client.keys.clone().unwrap_or_default();
    let pair = STANDARD.encode(format!("{key}:{secret}"));
    let host = client.url.trim_start_matches("http://");
    let length = body.len() + 1000;
    let mut request = format!(
        "POST /files HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {pair}\r\nConnection: close\r\n\
         Content-Length: {length}\r\nContent-Type: "
    )
    .into_bytes();
    for piece in [kind, b"\r\n\r\n".as_slice(), body] {
        request.extend_from_slice(piece);
    }
    let mut stream = TcpStream::connect(host).map_err(failed)?;
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .map_err(failed)?;
    // The server may refuse it, and go, before all was sent.
    let _ = stream.write_all(&request);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer)
        && matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
    {
        return Err(TestCaseError::fail("neither an answer nor an end came"));
    }
    let text = String::from_utf8_lossy(&answer);
    let status = text.split(' ').nth(1);
    Ok(status.and_then(|status| status.parse().ok()))
}

/// Names in a folder.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.unwrap().file_name();
        name.to_string_lossy().into_owned()
    };
    entries.map(name).collect()
}

/// Sends an upload; all that the answer says is stored has to be there.
async fn upload(client: &Client, kind: &[u8], body: Vec<u8>) -> Result<Option<u16>, TestCaseError> {
    let request = client
        .request(reqwest::Method::POST, "files")
        .header("Content-Type", kind)
        .body(body);
    // It may refuse and go before all was sent; whether that was a panic is told at the end.
    let Ok(answer) = request.send().await else {
        return Ok(None);
    };
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap_or_default();
    prop_assert!(status < 500, "{status}: {text}");
    if status != 200 {
        return Ok(Some(status));
    }
    let stored: Vec<String> =
        serde_json::from_str(&text).map_err(|error| TestCaseError::fail(error.to_string()))?;
    for name in stored {
        let escaped: Vec<String> = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = format!("files/{}", escaped.concat());
        let got = client.request(reqwest::Method::GET, &path).send().await;
        let got = got.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let code = got.status().as_u16();
        prop_assert!(code == 200, "{name:?} was stored: {code}");
    }
    Ok(Some(status))
}

#[test]
fn no_upload_brings_the_server_into_trouble_or_leaves_its_folder() {
    // Deeper than any of the names climbs.
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("1/2/3/4/data");
    let server = Program::start(&data);
    let client = server.client();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(client.call("projects.create", json!({"name": "a"})));
    let keys = std::fs::read(data.join("keys.json")).unwrap();
    let before = names(&data);
    let end = prop_oneof![
        12 => Just(End::Whole),
        1 => Just(End::Open),
        2 => any::<prop::sample::Index>().prop_map(End::Cut),
        1 => any::<prop::sample::Index>().prop_map(End::BrokenOff),
    ];
    let parts = prop::collection::vec(part(folder.path()), 0..3);
    let body = prop_oneof![
        15 => parts.prop_map(|parts| {
            let mut body = Vec::new();
            for part in parts {
                part.write(&mut body);
            }
            body
        }),
        1 => prop::collection::vec(any::<u8>(), 0..500),
    ];
    let mut runner = runner(UPLOADS);
    let (answered, stored) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let result = runner.run(&(content_type(), body, end), |(kind, mut body, end)| {
        if !matches!(end, End::Open) {
            body.extend_from_slice(b"--edge--\r\n");
        }
        let status = match end {
            End::BrokenOff(place) => {
                body.truncate(place.index(body.len() + 1));
                break_off(&client, &kind, &body)?
            }
            End::Cut(place) => {
                body.truncate(place.index(body.len() + 1));
                runtime.block_on(upload(&client, &kind, body))?
            }
            End::Whole | End::Open => runtime.block_on(upload(&client, &kind, body))?,
        };
        if let Some(status) = status {
            prop_assert!(status < 500, "{status}");
            answered.set(answered.get() + 1);
            stored.set(stored.get() + u32::from(status == 200));
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let (answered, stored) = (answered.get(), stored.get());
    assert!(
        answered > UPLOADS / 2 && stored > UPLOADS / 20,
        "{answered} answers, {stored} uploads stored"
    );
    // Below a file there is none: no error of the server's.
    runtime.block_on(async {
        let (kind, body) = crate::server_world::multipart("a file", b"x");
        let status = upload(&client, kind.as_bytes(), body).await.unwrap();
        assert_eq!(status, Some(200));
        for method in [reqwest::Method::GET, reqwest::Method::DELETE] {
            let request = client.request(method, "files/a%20file/below");
            assert_eq!(request.send().await.unwrap().status(), 404);
        }
    });

    // What was cut off goes as soon as the server has noticed.
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !names(&data.join("uploads")).is_empty() {
        assert!(std::time::Instant::now() < deadline, "uploads are left");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(names(&data), before);
    assert_eq!(std::fs::read(data.join("keys.json")).unwrap(), keys);
    let mut above = data.as_path();
    while above != folder.path() {
        let name = above.file_name().unwrap().to_string_lossy().into_owned();
        above = above.parent().unwrap();
        assert_eq!(names(above), BTreeSet::from([name]), "{}", above.display());
    }
    let pong = runtime.block_on(client.call("debug.ping", json!({})));
    assert_eq!(pong["msg"], "ClearML server");
    let said = server.stopped();
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn an_upload_in_which_no_part_begins_is_not_kept_in_memory() {
    let alone = Alone::start();
    let client = &alone.client;
    // Neither the first edge nor the end of a part's head ever comes.
    for begin in ["", "--edge\r\nX-Long: "] {
        let chunks = std::iter::once(begin.as_bytes().to_vec())
            .chain(std::iter::repeat_n(vec![b'x'; 1 << 20], 400))
            .map(Ok::<_, std::io::Error>);
        let request = client
            .request(reqwest::Method::POST, "files")
            .header("Content-Type", "multipart/form-data; boundary=edge")
            .body(reqwest::Body::wrap_stream(futures::stream::iter(chunks)));
        // The server may go before all was sent.
        if let Ok(answer) = alone.block_on(request.send()) {
            assert_eq!(answer.status(), 400);
        }
    }
    let occupied = peak(alone.server.id());
    assert!(occupied < MEMORY, "the server occupied {occupied} MiB");
    alone.block_on(client.call("debug.ping", json!({})));
}
