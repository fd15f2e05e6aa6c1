//! The file service, under `/files` and on request at the root of a port of its own: uploads, downloads, deletion
//! (`protocol.md` §2.8).
//!
//! Contents stream through; an upload is answered once it is on the disk under its final name, a deletion once the name
//! is gone from there: a power loss takes neither back. Reading needs no credentials, as on a stock file server: a link
//! works in a browser, and its path holds the task's id, which nobody guesses. Writing and deleting need them, and a role
//! that may change things. What a refused client still sends is taken in before it is answered, within bounds: it reads
//! the answer only after that.

pub(crate) mod doomed;
mod folders;
mod paths;
mod upload;

use std::collections::BTreeSet;
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::response::Response;
use futures::StreamExt as _;
use futures::stream::Fuse;
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::{App, disk, front};
pub(crate) use folders::Folders;
use paths::{Range, decoded, kind_of, safe};

/// First part of every file's address.
pub(crate) const PREFIX: &str = "/files";

/// How much of a file is in memory.
const CHUNK: usize = 128 << 10;

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
    let (about, body) = request.into_parts();
    let body = Incoming::of(body);
    let request = Request::from_parts(about, body.rest());
    match answer_or_why(app, prefix, request).await {
        Ok(response) => response,
        Err((status, why)) => {
            front::drain(body.rest()).await;
            text(status, &why)
        }
    }
}

async fn answer_or_why(
    app: &Arc<App>,
    prefix: &str,
    request: Request,
) -> Result<Response, Failure> {
    let path = request
        .uri()
        .path()
        .strip_prefix(prefix)
        .unwrap_or_default()
        .to_owned();
    let method = request.method().clone();
    let path = path.trim_matches('/');
    match (&method, path) {
        (&Method::GET | &Method::HEAD, "") => return Ok(text(StatusCode::OK, "OK")),
        (&Method::GET | &Method::HEAD, file) => {
            return download(app, file, &method, request.headers()).await;
        }
        _ => {}
    }
    let caller = app
        .auth
        .caller(request.headers(), jiff::Timestamp::now().as_second())
        .map_err(|refusal| (StatusCode::UNAUTHORIZED, refusal.text))?;
    if caller.only_reads() || front::is_from_another_site(request.headers()) {
        let text = "Forbidden (a guest, or a request from another site)";
        return Err((StatusCode::FORBIDDEN, text.to_owned()));
    }
    match (&method, path) {
        (&Method::POST, "delete_many") => delete_many(app, request).await,
        (&Method::POST, "") => upload::upload(app, request).await,
        (&Method::DELETE, file) => delete(app, file).await,
        _ => Err((
            StatusCode::METHOD_NOT_ALLOWED,
            format!("{method} is not possible here"),
        )),
    }
}

/// A request's body. Who reads it may stop halfway; what is left can still be read.
struct Incoming(Arc<Mutex<Fuse<BodyDataStream>>>);

impl Incoming {
    fn of(body: Body) -> Self {
        Self(Arc::new(Mutex::new(body.into_data_stream().fuse())))
    }

    /// What nobody has read so far.
    fn rest(&self) -> Body {
        let body = Arc::clone(&self.0);
        Body::from_stream(futures::stream::poll_fn(move |context| {
            let mut body = body.lock().unwrap_or_else(PoisonError::into_inner);
            body.poll_next_unpin(context)
        }))
    }
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
    let folder = disk::folder_of(&path).to_owned();
    settle(BTreeSet::from([folder]))
        .await
        .map_err(|error| failed("delete the file", &path, &error))?;
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

/// Makes it last that something was taken out of these folders; of one that is gone itself nothing is left.
async fn settle(folders: BTreeSet<PathBuf>) -> std::io::Result<()> {
    let sync = move || {
        folders
            .iter()
            .try_for_each(|folder| match disk::sync(folder) {
                Err(error) if is_nowhere(&error) => Ok(()),
                synced => synced,
            })
    };
    let synced = tokio::task::spawn_blocking(sync).await;
    synced.map_err(std::io::Error::other).flatten()
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
    let mut changed = BTreeSet::new();
    for name in asked["files"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        let result = match decoded(name).and_then(|name| safe(&app.files, &name)) {
            Ok(path) => match remove(&path).await {
                Ok(()) => {
                    changed.insert(disk::folder_of(&path).to_owned());
                    Ok(())
                }
                Err(error) => Err(not_found_or_failed("delete the file", &path, &error)),
            },
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
    settle(changed)
        .await
        .map_err(|error| failed("delete files", &app.files, &error))?;
    Ok(json_answer(&json!({"deleted": deleted, "errors": errors})))
}
