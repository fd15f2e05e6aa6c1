//! Uploads: each part of a request streams beside the tree, then moves to its place.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::multipart::Field;
use axum::extract::{FromRequest as _, Multipart, Request};
use axum::response::Response;
use futures::StreamExt as _;
use http::StatusCode;
use serde_json::json;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use super::super::wire::new_id;
use super::super::{App, disk};
use super::folders::Folders;
use super::paths::safe;
use super::{Failure, failed, json_answer};

/// The most of an upload that may arrive before a part begins or goes on: so much of it is in memory.
const LARGEST_HEAD: usize = 2 << 20;

/// The most parts of an upload, as on a stock file server. The SDK sends one; the names of so many, each of a path's
/// length, are 2 MiB of memory.
const MOST_PARTS: usize = 1000;

/// Each part's field name is the path of a file (§2.8); the answer lists what was stored. Of an upload that is refused
/// halfway the files before that stay, each of them whole.
pub(super) async fn upload(app: &App, request: Request) -> Result<Response, Failure> {
    let unreadable = |why: String| {
        (
            StatusCode::BAD_REQUEST,
            format!("the upload cannot be read: {why}"),
        )
    };
    let waiting = Arc::new(AtomicUsize::new(0));
    let request = request.map(|body| bounded(body, Arc::clone(&waiting)));
    let mut parts = Multipart::from_request(request, &())
        .await
        .map_err(|error| unreadable(error.body_text()))?;
    let mut stored = Vec::new();
    let mut count = 0;
    while let Some(mut part) = parts
        .next_field()
        .await
        .map_err(|error| unreadable(error.body_text()))?
    {
        waiting.store(0, Ordering::Relaxed);
        count += 1;
        if count > MOST_PARTS {
            let text = format!("the upload has more than {MOST_PARTS} parts: send it in several");
            return Err((StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        let name = part
            .name()
            .map(|name| name.trim_start_matches('/').to_owned());
        let Some(name) = name.filter(|_| part.file_name().is_some()) else {
            // Else it would be passed over as part of the next one's head.
            while next_chunk(&mut part, &waiting).await?.is_some() {}
            continue;
        };
        let target = safe(&app.files, &name)?;
        store(app, part, &target, &waiting).await?;
        stored.push(name);
    }
    Ok(json_answer(&json!(stored)))
}

/// The body, until more than [`LARGEST_HEAD`] of it was taken without being used. What reads the parts keeps all that
/// comes before a part's contents, however much that is.
fn bounded(body: Body, waiting: Arc<AtomicUsize>) -> Body {
    Body::from_stream(body.into_data_stream().map(move |chunk| {
        let chunk = chunk.map_err(std::io::Error::other)?;
        let before = waiting.fetch_add(chunk.len(), Ordering::Relaxed);
        if before + chunk.len() > LARGEST_HEAD {
            return Err(std::io::Error::other("a part's head is too long"));
        }
        Ok(chunk)
    }))
}

async fn next_chunk(
    part: &mut Field<'_>,
    waiting: &AtomicUsize,
) -> Result<Option<axum::body::Bytes>, Failure> {
    let chunk = part.chunk().await.map_err(|error| {
        let text = format!("the upload broke off: {error}");
        (StatusCode::BAD_REQUEST, text)
    })?;
    waiting.store(0, Ordering::Relaxed);
    Ok(chunk)
}

/// A file on its way in; what is still there when the value goes was cut off, and goes too.
struct Arriving(PathBuf);

impl Drop for Arriving {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Streams a part beside the tree, then moves it to its place.
async fn store(
    app: &App,
    mut part: Field<'_>,
    target: &Path,
    waiting: &AtomicUsize,
) -> Result<(), Failure> {
    let new = Arriving(app.uploads.join(new_id()));
    let broken = |error: &std::io::Error| failed("store the file", target, error);
    let mut file = File::create(&new.0).await.map_err(|error| broken(&error))?;
    let mut size = 0_u64;
    while let Some(chunk) = next_chunk(&mut part, waiting).await? {
        size += chunk.len() as u64;
        if size > app.largest_file {
            let text = format!("the file is larger than {} bytes", app.largest_file);
            return Err((StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        file.write_all(&chunk)
            .await
            .map_err(|error| broken(&error))?;
    }
    // What went wrong with the last write is told by this alone.
    file.flush().await.map_err(|error| broken(&error))?;
    file.sync_all().await.map_err(|error| broken(&error))?;
    let (folders, to) = (Arc::clone(&app.folders), target.to_owned());
    let placed = tokio::task::spawn_blocking(move || place(&new.0, &to, &folders)).await;
    match placed.map_err(std::io::Error::other).flatten() {
        Ok(()) => Ok(()),
        Err(error) if is_in_the_way(&error) => {
            let text = "a file and a folder of that name exclude each other";
            Err((StatusCode::CONFLICT, text.to_owned()))
        }
        Err(error) => Err(broken(&error)),
    }
}

fn is_in_the_way(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, IsADirectory, NotADirectory};
    matches!(
        error.kind(),
        AlreadyExists | DirectoryNotEmpty | IsADirectory | NotADirectory
    )
}

/// Renames into place. Folders on the way may be taken away, being empty, before the file is in them: then once more.
fn place(from: &Path, to: &Path, folders: &Folders) -> std::io::Result<()> {
    match folders.place(from, to, disk::sync) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && from.exists() => {
            folders.place(from, to, disk::sync)
        }
        placed => placed,
    }
}
