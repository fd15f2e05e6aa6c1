//! From an HTTP request to an answer: page, file or API call; who asks, what is asked, how much may be sent.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::Value;

use super::auth::Caller;
use super::call::Call;
use super::listener::Peer;
use super::routes::{Access, Form, Route};
use super::wire::{Answer, Content, Data, Endpoint, Refusal, Target, Version};
use super::{App, auth, call, files, pack, page, routes, wire};

/// The largest API request; clients keep to 15 MiB (§1.9).
const LARGEST_BODY: usize = 32 << 20;
/// Bodies in memory at once, in KiB, all requests together.
pub(super) const BODIES_KIB: u32 = 256 << 10;
/// From this size on an answer is worth some care.
const LARGE: usize = 64 << 10;
/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_mins(2);
/// The same for one that is refused anyway.
const DRAIN_TIME: Duration = Duration::from_secs(20);

/// Any request.
pub(super) async fn entry(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response {
    let path = request.uri().path();
    if request.method() == Method::OPTIONS {
        return Response::new(Body::empty());
    }
    if path == files::PREFIX
        || path
            .strip_prefix(files::PREFIX)
            .is_some_and(|rest| rest.starts_with('/'))
    {
        return files::answer(&app, files::PREFIX, request).await;
    }
    let headers = request.headers();
    let client = || client_ip(headers, peer);
    if let Some(page) = page::answer(request.method(), path, headers, client) {
        return page;
    }
    api(&app, peer, request).await
}

/// One API call, with its envelope.
async fn api(app: &Arc<App>, peer: Peer, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let headers = request.headers();
    let transaction = auth::header_of_either(headers, "trx").map(str::to_owned);
    let (client, accepted) = (client_ip(headers, peer), headers.clone());
    let (name, version, route) = match wire::target(&path) {
        Target::Malformed => (
            String::new(),
            None,
            Err(Refusal::bad(0, format!("Invalid request path {path}"))),
        ),
        Target::Call { name, version } => {
            let asked = version.unwrap_or(app.newest);
            let unknown = || {
                let text = format!("Unable to find endpoint for name {name} and version {asked}");
                Refusal::new(404, 0, text)
            };
            let route = routes::find(&name, asked, app.newest).ok_or_else(unknown);
            (name, version, route)
        }
    };
    let requested = version.unwrap_or(app.newest);
    let actual = route.as_ref().ok().map(|route| route.since);
    let form = route.as_ref().map_or(Form::Tree, |route| route.form);
    let answer = match route {
        Ok(route) => granted(app, &client, request, requested.min(app.newest), route).await,
        Err(refusal) => {
            drain(request.into_body()).await;
            Err(refusal)
        }
    };
    if let Err(refusal) = &answer
        && refusal.code >= 500
    {
        tracing::error!(endpoint = name, error = refusal.text, "request failed");
    }
    let answer = match (answer, form) {
        (Ok(Value::String(text)), Form::Text) => {
            let kind = "text/plain; charset=utf-8";
            return packed(&accepted, &client, 200, kind, text.into_bytes()).await;
        }
        (Ok(Value::String(text)), Form::Json) => Ok(Data::Written(text)),
        (answer, _) => answer.map(Data::Tree),
    };
    let cookie = cookie(&name, &answer, app.secure);
    let endpoint = Endpoint {
        name: &name,
        requested,
        actual,
        transaction: transaction.as_deref(),
    };
    let (status, body) = wire::envelope(&endpoint, answer);
    let mut response = if body.len() > LARGE && !pack::wanted(&accepted, &client, body.len()) {
        in_parts(status, body)
    } else {
        packed(
            &accepted,
            &client,
            status,
            "application/json",
            body.joined(),
        )
        .await
    };
    if let Some(cookie) = cookie {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// The cookie that a log-in leaves and a log-out takes (§1.4). Stricter than the real server's `Lax`: together with
/// writes by GET, a link on any page could otherwise act in the user's name.
fn cookie(endpoint: &str, answer: &Result<Data, Refusal>, secure: bool) -> Option<HeaderValue> {
    let Ok(Data::Tree(data)) = answer else {
        return None;
    };
    let secure = if secure { "; Secure" } else { "" };
    let (token, age) = match endpoint {
        "auth.login" => (data["token"].as_str()?, "99999999999"),
        "auth.logout" | "login.logout" => ("", "0"),
        _ => return None,
    };
    let text = format!(
        "{}={token}; HttpOnly; Path=/; SameSite=Strict; Max-Age={age}{secure}",
        auth::COOKIE
    );
    HeaderValue::from_str(&text).ok()
}

/// The response, compressed if the client wants that.
async fn packed(
    headers: &HeaderMap,
    client: &str,
    status: u16,
    kind: &'static str,
    body: Vec<u8>,
) -> Response {
    if !pack::wanted(headers, client, body.len()) {
        return respond(status, kind, body);
    }
    let body = Arc::new(body);
    let shared = Arc::clone(&body);
    // Large answers take long enough to hold other requests up.
    let compressed = if body.len() < LARGE {
        pack::gzip(&body)
    } else {
        tokio::task::spawn_blocking(move || pack::gzip(&shared))
            .await
            .unwrap_or_default()
    };
    let Some(compressed) = compressed else {
        return respond(status, kind, body.to_vec());
    };
    let mut response = respond(status, kind, compressed);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

/// A large answer, as it lies in memory.
fn in_parts(status: u16, body: wire::Enveloped) -> Response {
    let length = body.len();
    let parts = body.parts().map(Ok::<_, std::convert::Infallible>);
    let mut response = respond(status, "application/json", Vec::new());
    *response.body_mut() = Body::from_stream(futures::stream::iter(parts));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length.into());
    response
}

fn respond(status: u16, kind: &'static str, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Who asks, then what is asked, then the answer from the database.
async fn granted(
    app: &Arc<App>,
    client: &str,
    request: Request,
    version: Version,
    route: &'static Route,
) -> Answer {
    let (about, body) = request.into_parts();
    let caller = match permitted(app, &about.headers, route) {
        Ok(caller) => caller,
        Err(refusal) => {
            drain(body).await;
            return Err(refusal);
        }
    };
    let headers = &about.headers;
    let worker = auth::header_of_either(headers, "worker").map(str::to_owned);
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > LARGEST_BODY) {
        drain(body).await;
        return Err(too_large());
    }
    let kib = u32::try_from(length.unwrap_or(LARGEST_BODY) / 1024 + 1).unwrap_or(u32::MAX);
    let Ok(_room) = app.bodies.acquire_many(kib).await else {
        return Err(Refusal::internal("The server is shutting down"));
    };
    let body = tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, LARGEST_BODY)).await;
    let body = match body {
        Ok(Ok(body)) => body,
        Ok(Err(_)) if length.is_none() => return Err(too_large()),
        Ok(Err(error)) => return Err(Refusal::bad(0, format!("The request broke off: {error}"))),
        Err(_) => return Err(Refusal::new(408, 0, "The request took too long to arrive")),
    };
    let Content { members, lines } = wire::content(&body, kind, about.uri.query())?;
    drop(body);
    let request = call::Request {
        body: members,
        lines,
        version,
        caller,
        worker,
        ip: client.to_owned(),
    };
    let shared = Arc::clone(app);
    let work = move |db: &rusqlite::Connection| (route.run)(&Call::new(db, &shared, &request));
    match route.access {
        Access::Read => app.store.read(work).await,
        Access::Write => app.store.write(work).await,
    }
}

/// Who asks, if they may; judged by the headers alone.
fn permitted(app: &App, headers: &HeaderMap, route: &Route) -> Result<Caller, Refusal> {
    if is_from_another_site(headers) {
        return Err(Refusal::new(
            403,
            20,
            "Forbidden (request from another site)",
        ));
    }
    let caller = match app.auth.caller(headers, jiff::Timestamp::now().as_second()) {
        Ok(caller) => caller,
        Err(_) if route.open => Caller::default(),
        Err(refusal) => return Err(refusal),
    };
    if route.access == Access::Write && !route.open && caller.only_reads() && !route.own {
        return Err(Refusal::of_role());
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Refusal::new(
            415,
            0,
            "Unsupported Media Type (Content-Encoding is not accepted)",
        ));
    }
    Ok(caller)
}

fn too_large() -> Refusal {
    Refusal::new(
        413,
        0,
        format!("The request is larger than {LARGEST_BODY} bytes"),
    )
}

/// Takes in what a refused client is still sending: it reads the answer only after that.
pub(super) async fn drain(body: Body) {
    let mut chunks = body.into_data_stream();
    let mut left = 2 * LARGEST_BODY;
    let all = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            match left.checked_sub(chunk.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIME, all).await;
}

/// A browser sends its stored password along wherever a page points it; only our own pages may do that.
pub(super) fn is_from_another_site(headers: &HeaderMap) -> bool {
    headers
        .get("sec-fetch-site")
        .is_some_and(|site| site != "same-origin" && site != "none")
}

/// §1.5: what a proxy says, else the socket.
fn client_ip(headers: &HeaderMap, peer: Peer) -> String {
    let named = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let forwarded = named("x-forwarded-for")
        .and_then(|list| list.split(',').next())
        .or_else(|| named("x-real-ip"));
    forwarded.map_or_else(|| peer.0.ip().to_string(), |ip| ip.trim().to_owned())
}
