//! The smallest HTTP client that can ask a program on this machine whether it is well.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

/// An answer: status and body; headers are not needed here.
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// No answer that is asked for here is longer.
const LIMIT: u64 = 64 << 20;
/// A registry picks the type of the manifest by it.
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, */*";

/// Whether a `GET` is answered with 200.
pub fn is_ok(address: SocketAddr, path: &str) -> bool {
    request(address, &format!("GET {path} HTTP/1.0\r\n"), "")
        .is_ok_and(|answer| answer.status == 200)
}

/// Whether a `HEAD` is answered with 200.
pub fn exists(address: SocketAddr, path: &str) -> bool {
    request(address, &format!("HEAD {path} HTTP/1.0\r\n"), "")
        .is_ok_and(|answer| answer.status == 200)
}

/// `POST` of a JSON document.
pub fn post(address: SocketAddr, path: &str, authorization: &str, body: &str) -> Result<Answer> {
    let head = format!(
        "POST {path} HTTP/1.0\r\nAuthorization: {authorization}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
        body.len()
    );
    request(address, &head, body)
}

/// HTTP/1.0, so that the end of the body is the end of the connection and nothing comes in chunks.
fn request(address: SocketAddr, head: &str, body: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))
        .with_context(|| format!("could not connect to {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(
        stream,
        "{head}Host: {address}\r\nAccept: {ACCEPT}\r\n\r\n{body}"
    )?;
    let mut text = Vec::new();
    stream
        .take(LIMIT)
        .read_to_end(&mut text)
        .with_context(|| format!("{address} did not answer in time"))?;
    let text = String::from_utf8_lossy(&text);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .context("the answer has no end of headers")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .context("the answer has no status")?;
    Ok(Answer {
        status,
        body: body.to_owned(),
    })
}
