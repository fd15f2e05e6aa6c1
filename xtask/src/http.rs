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

/// `GET` over plain HTTP/1.0, so that the end of the body is the end of the connection.
pub fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    request("GET", address, path)
}

/// Whether a `GET` is answered with 200.
pub fn is_ok(address: SocketAddr, path: &str) -> bool {
    get(address, path).is_ok_and(|answer| answer.status == 200)
}

/// Whether a `HEAD` is answered with 200; `accept` because a registry picks the manifest type by it.
pub fn exists(address: SocketAddr, path: &str) -> bool {
    request("HEAD", address, path).is_ok_and(|answer| answer.status == 200)
}

fn request(method: &str, address: SocketAddr, path: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, */*";
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nAccept: {accept}\r\n\r\n"
    )?;
    let mut text = Vec::new();
    stream.take(1 << 20).read_to_end(&mut text)?;
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
