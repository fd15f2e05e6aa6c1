//! The file service, under `/files` and on request at the root of a port of its own: uploads, downloads, deletion
//! (`protocol.md` §2.8).
//!
//! Contents stream through; an upload is answered once it is on the disk under its final name. Reading needs no
//! credentials, as on a stock file server: a link works in a browser, and its path holds the task's id, which nobody
//! guesses. Writing and deleting need them.

pub(crate) mod doomed;
mod paths;

use std::fs;
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::multipart::Field;
use axum::extract::{FromRequest as _, Multipart, Request, State};
use axum::response::Response;
use futures::StreamExt as _;
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use super::App;
use super::wire::new_id;
use paths::{Range, decoded, kind_of, safe};

/// First part of every file's address.
pub(crate) const PREFIX: &str = "/files";

/// How much of a file is in memory.
const CHUNK: usize = 128 << 10;

/// The most of an upload that may arrive before a part begins or goes on: so much of it is in memory.
const LARGEST_HEAD: usize = 2 << 20;

/// The largest list for `delete_many`.
const LARGEST_LIST: usize = 4 << 20;

type Failure = (StatusCode, String);

/// Any request on the port that is for files alone: they lie at its root, as on a stock file server.
pub(super) async fn entry(State(app): State<Arc<App>>, request: Request) -> Response {
    if request.method() == Method::OPTIONS {
        return Response::new(Body::empty());
    }
    answer(&app, "", request).await
}

/// Answers a request whose path begins with `prefix`.
pub(super) async fn answer(app: &Arc<App>, prefix: &str, request: Request) -> Response {
    let path = request
        .uri()
        .path()
        .strip_prefix(prefix)
        .unwrap_or_default()
        .to_owned();
    let method = request.method().clone();
    let result = match (&method, path.trim_matches('/')) {
        (&Method::GET | &Method::HEAD, "") => Ok(text(StatusCode::OK, "OK")),
        (&Method::GET | &Method::HEAD, file) => {
            download(app, file, &method, request.headers()).await
        }
        _ => match app
            .auth
            .caller(request.headers(), jiff::Timestamp::now().as_second())
        {
            Err(refusal) => Err((StatusCode::UNAUTHORIZED, refusal.text)),
            Ok(_) => match (&method, path.trim_matches('/')) {
                (&Method::POST, "delete_many") => delete_many(app, request).await,
                (&Method::POST, "") => upload(app, request).await,
                (&Method::DELETE, file) => delete(app, file).await,
                _ => Err((
                    StatusCode::METHOD_NOT_ALLOWED,
                    format!("{method} is not possible here"),
                )),
            },
        },
    };
    result.unwrap_or_else(|(status, why)| text(status, &why))
}

fn text(status: StatusCode, body: &str) -> Response {
    let mut response = Response::new(Body::from(body.to_owned()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

fn json_answer(body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    response
}

/// Why a file could not be read or deleted: mostly there is none.
fn not_found_or_failed(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    if is_nowhere(error) {
        (StatusCode::NOT_FOUND, "no such file".to_owned())
    } else {
        failed(what, path, error)
    }
}

/// No such file; nor can there be one where a part of its path is a file by now.
fn is_nowhere(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    if matches!(error.kind(), StorageFull | QuotaExceeded) {
        return (
            StatusCode::INSUFFICIENT_STORAGE,
            format!("could not {what}: the server's disk is full"),
        );
    }
    tracing::error!(path = %path.display(), %error, "could not {what}");
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("could not {what}"),
    )
}

// ---- uploads ----

/// Each part's field name is the path of a file (§2.8); the answer lists what was stored.
async fn upload(app: &App, request: Request) -> Result<Response, Failure> {
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
    while let Some(mut part) = parts
        .next_field()
        .await
        .map_err(|error| unreadable(error.body_text()))?
    {
        waiting.store(0, Ordering::Relaxed);
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
    let (root, to) = (app.files.clone(), target.to_owned());
    let placed = tokio::task::spawn_blocking(move || place(&new.0, &to, &root)).await;
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
fn place(from: &Path, to: &Path, root: &Path) -> std::io::Result<()> {
    match place_now(from, to, root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && from.exists() => {
            place_now(from, to, root)
        }
        placed => placed,
    }
}

/// The names of file and new folders survive a power loss too.
fn place_now(from: &Path, to: &Path, root: &Path) -> std::io::Result<()> {
    let folder = to.parent().unwrap_or(root);
    let mut changed = vec![folder];
    while let Some(last) = changed
        .last()
        .filter(|last| !last.exists() && **last != root)
    {
        changed.push(last.parent().unwrap_or(root));
    }
    fs::create_dir_all(folder)?;
    fs::rename(from, to)?;
    changed
        .into_iter()
        .try_for_each(|folder| fs::File::open(folder)?.sync_all())
}

// ---- downloads ----

async fn download(
    app: &App,
    path: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    let path = safe(&app.files, &decoded(path)?)?;
    let mut file = File::open(&path)
        .await
        .map_err(|error| not_found_or_failed("read the file", &path, &error))?;
    let about = file
        .metadata()
        .await
        .map_err(|error| not_found_or_failed("read the file", &path, &error))?;
    if !about.is_file() {
        return Err((StatusCode::NOT_FOUND, "no such file".to_owned()));
    }
    let size = about.len();
    let asked = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok());
    let (status, start, end) = match asked.map(|range| paths::range(range, size)) {
        None | Some(Range::All) => (StatusCode::OK, 0, size),
        Some(Range::Part(start, end)) => (StatusCode::PARTIAL_CONTENT, start, end),
        Some(Range::Outside) => {
            let answer = Response::builder()
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{size}"));
            return answer
                .body(Body::empty())
                .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()));
        }
    };
    let mut answer = Response::builder()
        .status(status)
        .header(header::CONTENT_LENGTH, end - start)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_TYPE, kind_of(&path))
        // What users upload must never act on this server's own pages.
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(
            header::CONTENT_SECURITY_POLICY,
            "sandbox; default-src 'none'; img-src 'self'; style-src 'unsafe-inline'",
        );
    if status == StatusCode::PARTIAL_CONTENT {
        answer = answer.header(
            header::CONTENT_RANGE,
            format!("bytes {start}-{}/{size}", end.saturating_sub(1)),
        );
    }
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        file.seek(SeekFrom::Start(start))
            .await
            .map_err(|error| not_found_or_failed("read the file", &path, &error))?;
        stream(file, end - start)
    };
    answer
        .body(body)
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

fn stream(file: File, length: u64) -> Body {
    Body::from_stream(futures::stream::try_unfold(
        (file, length),
        |(mut file, left)| async move {
            if left == 0 {
                return Ok::<_, std::io::Error>(None);
            }
            let mut chunk = vec![0; CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
            let count = file.read(&mut chunk).await?;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            chunk.truncate(count);
            Ok(Some((chunk, (file, left - count as u64))))
        },
    ))
}

// ---- deletion ----

async fn delete(app: &App, path: &str) -> Result<Response, Failure> {
    let path = safe(&app.files, &decoded(path)?)?;
    remove(&path)
        .await
        .map_err(|error| not_found_or_failed("delete the file", &path, &error))?;
    Ok(text(StatusCode::OK, "OK"))
}

/// A file, or a folder with all that is in it.
async fn remove(path: &Path) -> std::io::Result<()> {
    if tokio::fs::symlink_metadata(path).await?.is_dir() {
        tokio::fs::remove_dir_all(path).await
    } else {
        tokio::fs::remove_file(path).await
    }
}

/// `{"files": [...]}` → `{"deleted": {path: true}, "errors": {why: [path]}}`
async fn delete_many(app: &App, request: Request) -> Result<Response, Failure> {
    let body = axum::body::to_bytes(request.into_body(), LARGEST_LIST).await;
    let body = body.map_err(|_| {
        (
            StatusCode::PAYLOAD_TOO_LARGE,
            "the list is too long".to_owned(),
        )
    })?;
    let asked: Value = serde_json::from_slice(&body)
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("no JSON: {error}")))?;
    let mut deleted = serde_json::Map::new();
    let mut errors = serde_json::Map::new();
    for name in asked["files"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        let result = match decoded(name).and_then(|name| safe(&app.files, &name)) {
            Ok(path) => remove(&path)
                .await
                .map_err(|error| not_found_or_failed("delete the file", &path, &error)),
            Err(failure) => Err(failure),
        };
        match result {
            Ok(()) => {
                deleted.insert(name.to_owned(), true.into());
            }
            Err((_, why)) => {
                if let Value::Array(names) = errors.entry(why).or_insert_with(|| json!([])) {
                    names.push(name.into());
                }
            }
        }
    }
    Ok(json_answer(&json!({"deleted": deleted, "errors": errors})))
}
