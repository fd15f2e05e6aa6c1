//! A registry that gives no image away: what it says depends on the name that is asked for.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::json;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Listens on this machine's loopback address, which containerd asks without TLS; answers where.
pub(in crate::e2e) fn start() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the registry binds");
    let address = listener.local_addr().expect("the registry has an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
    address.to_string()
}

fn answer(mut stream: TcpStream) {
    let Ok(copy) = stream.try_clone() else { return };
    let lines = BufReader::new(copy).lines().map_while(Result::ok);
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    // `HEAD /v2/private/manifests/1 HTTP/1.1`
    let Some(asked) = head.first() else { return };
    let (status, field, body) = match asked.split('/').nth(2) {
        Some("private") => (
            "401 Unauthorized",
            "WWW-Authenticate: Basic realm=\"test\"".to_owned(),
            String::new(),
        ),
        Some("counted") => (
            "429 Too Many Requests",
            "Content-Type: text/plain".to_owned(),
            String::new(),
        ),
        Some("foreign") => ("200 OK", format!("Content-Type: {INDEX}"), index()),
        _ => (
            "404 Not Found",
            "Content-Type: text/plain".to_owned(),
            String::new(),
        ),
    };
    let shown = if asked.starts_with("HEAD ") {
        ""
    } else {
        body.as_str()
    };
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\n{field}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{shown}"
    );
    let _ = stream.write_all(text.as_bytes());
}

/// An image for one processor, which no node of ours has.
fn index() -> String {
    json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": format!("sha256:{}", "0".repeat(64)), "size": 2,
            "platform": {"os": "linux", "architecture": "s390x"},
        }],
    })
    .to_string()
}
