//! The server of the index: a folder of wheels as a PEP 503 "simple" index with PEP 658 metadata.
//!
//! ```text
//! GET /simple/            every project
//! GET /simple/PROJECT/    its files, each with its SHA-256 and that of its metadata
//! GET /files/NAME         a wheel, or its METADATA as NAME.metadata
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::sh;

/// A request line and headers longer than this are nobody's whom we serve.
const HEAD_LIMIT: u64 = 16 * 1024;

/// What is served: pages by path, files by name. Read once; the folder does not change.
struct Index {
    pages: BTreeMap<String, String>,
    files: BTreeMap<String, PathBuf>,
}

/// Serves `folder` until the process is ended.
pub fn serve(folder: &Path, listen: SocketAddr) -> Result<()> {
    let index = Arc::new(Index::read(folder)?);
    let listener =
        TcpListener::bind(listen).with_context(|| format!("could not listen on {listen}"))?;
    println!(
        "package index: {} files on http://{listen}/simple/",
        index.files.len()
    );
    for stream in listener.incoming() {
        let index = Arc::clone(&index);
        // One thread for each connection: a few pods at a time, each with a few connections.
        std::thread::spawn(move || {
            if let Ok(stream) = stream
                && let Err(error) = converse(&index, stream)
            {
                eprintln!("package index: {error:#}");
            }
        });
    }
    Ok(())
}

impl Index {
    fn read(folder: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        let entries =
            fs::read_dir(folder).with_context(|| format!("could not read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
                files.insert(name.to_owned(), path.clone());
            }
        }
        let mut projects: BTreeMap<String, String> = BTreeMap::new();
        for (name, path) in files
            .iter()
            .filter(|(_, path)| path.extension().is_some_and(|kind| kind == "whl"))
        {
            let link = link(name, path, files.get(&format!("{name}.metadata")))?;
            projects.entry(project(name)).or_default().push_str(&link);
        }
        let mut pages = BTreeMap::new();
        let list = projects.keys().fold(String::new(), |mut list, project| {
            let _ = writeln!(list, "<a href=\"/simple/{project}/\">{project}</a><br>");
            list
        });
        pages.insert("/simple/".to_owned(), page(&list));
        for (project, links) in projects {
            pages.insert(format!("/simple/{project}/"), page(&links));
        }
        Ok(Self { pages, files })
    }
}

fn page(body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html><head><meta name=\"pypi:repository-version\" content=\"1.0\"></head><body>\n{body}</body></html>\n"
    )
}

fn link(name: &str, path: &Path, metadata: Option<&PathBuf>) -> Result<String> {
    let metadata = match metadata {
        Some(metadata) => {
            let hash = sh::file_hash(metadata)?;
            format!(
                " data-dist-info-metadata=\"sha256={hash}\" data-core-metadata=\"sha256={hash}\""
            )
        }
        None => String::new(),
    };
    Ok(format!(
        "<a href=\"/files/{name}#sha256={}\"{metadata}>{name}</a><br>\n",
        sh::file_hash(path)?
    ))
}

/// The project of a wheel, as PEP 503 writes names: lower case, runs of `-`, `_` and `.` as one `-`.
fn project(wheel: &str) -> String {
    let name = wheel.split('-').next().unwrap_or_default().to_lowercase();
    let parts: Vec<&str> = name
        .split(['_', '.', '-'])
        .filter(|part| !part.is_empty())
        .collect();
    parts.join("-")
}

/// Answers request after request on one connection until the client ends it or is silent for too long.
fn converse(index: &Index, stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    stream.set_write_timeout(Some(Duration::from_mins(1)))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut lines = Vec::new();
        let mut head = (&mut reader).take(HEAD_LIMIT);
        loop {
            let mut line = String::new();
            match head.read_line(&mut line) {
                // The end of the connection, its time or what it may send.
                Ok(0) | Err(_) => return Ok(()),
                Ok(_) if line.trim_end().is_empty() => break,
                Ok(_) => lines.push(line.trim_end().to_lowercase()),
            }
        }
        let keep = !lines
            .iter()
            .any(|line| line == "connection: close" || line.ends_with("http/1.0"));
        let request = lines.first().cloned().unwrap_or_default();
        answer(index, &request, &mut stream)?;
        if !keep {
            return Ok(());
        }
    }
}

fn answer(index: &Index, request: &str, stream: &mut TcpStream) -> Result<()> {
    let mut words = request.split(' ');
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let with_body = match method {
        "get" => true,
        "head" => false,
        _ => {
            return send(
                stream,
                "405 Method Not Allowed",
                "text/plain",
                b"only GET and HEAD\n",
                true,
            );
        }
    };
    if let Some(page) = index.pages.get(path) {
        return send(stream, "200 OK", "text/html", page.as_bytes(), with_body);
    }
    let name = path.strip_prefix("/files/").unwrap_or_default();
    // Names were lowered with the request; they are compared so, and only names that were listed are opened.
    match index
        .files
        .iter()
        .find(|(file, _)| file.to_lowercase() == name)
    {
        Some((_, file)) => send_file(stream, file, with_body),
        None => send(
            stream,
            "404 Not Found",
            "text/plain",
            b"not in this index\n",
            with_body,
        ),
    }
}

fn send(
    stream: &mut TcpStream,
    status: &str,
    kind: &str,
    body: &[u8],
    with_body: bool,
) -> Result<()> {
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    if with_body {
        answer.extend_from_slice(body);
    }
    Ok(stream.write_all(&answer)?)
}

fn send_file(stream: &mut TcpStream, path: &Path, with_body: bool) -> Result<()> {
    let mut file =
        fs::File::open(path).with_context(|| format!("could not open {}", path.display()))?;
    let size = file.metadata()?.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {size}\r\n\r\n"
    )?;
    if with_body {
        std::io::copy(&mut file, stream)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projects_are_named_as_pep_503_says() {
        assert_eq!(
            project("scikit_learn-1.7.2-cp311-cp311-manylinux_2_17_x86_64.whl"),
            "scikit-learn"
        );
        assert_eq!(
            project("PyYAML-6.0.3-cp311-cp311-manylinux_2_17_x86_64.whl"),
            "pyyaml"
        );
        assert_eq!(project("jaraco.text-4.0.0-py3-none-any.whl"), "jaraco-text");
    }
}
