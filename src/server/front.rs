//! From an HTTP request to an answer: page, file or API call; who asks, what is asked, how much may be sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::Value;

use super::auth::Caller;
use super::call::Call;
use super::routes::{Access, Route};
use super::wire::{Answer, Content, Endpoint, Refusal, Target, Version};
use super::{App, auth, call, files, page, routes, wire};

/// The largest API request; clients keep to 15 MiB (§1.9).
const LARGEST_BODY: usize = 32 << 20;
/// Bodies in memory at once, in KiB, all requests together.
pub(super) const BODIES_KIB: u32 = 256 << 10;
/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_mins(2);

/// Any request.
pub(super) async fn entry(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
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
        return files::answer(&app, request).await;
    }
    if let Some(page) = page::page(path) {
        return show(&app, request.headers(), page).await;
    }
    api(&app, peer, request).await
}

/// A page for a browser, which is asked for a key pair as user name and password.
async fn show(app: &Arc<App>, headers: &HeaderMap, page: page::Page) -> Response {
    let now = jiff::Timestamp::now().as_second();
    let Ok(caller) = app.auth.caller(headers, now) else {
        let text = "Sign in with an access key as user name and its secret as password.";
        let mut response = respond(401, "text/plain; charset=utf-8", text.into());
        let challenge =
            HeaderValue::from_static("Basic realm=\"trainyard: access key and secret\"");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
        return response;
    };
    let shared = Arc::clone(app);
    let html = app.store.read(move |db| {
        let request = call::Request {
            caller,
            ..call::Request::own()
        };
        page::html(&Call::new(db, &shared, &request), &page)
    });
    let mut response = match html.await {
        Ok(html) => respond(
            200,
            "text/html; charset=utf-8",
            html.as_str().unwrap_or_default().into(),
        ),
        Err(refusal) => {
            let status = if refusal.code == 400 {
                404
            } else {
                refusal.code
            };
            respond(
                status,
                "text/plain; charset=utf-8",
                refusal.text.into_bytes(),
            )
        }
    };
    let policy = HeaderValue::from_static(
        "default-src 'none'; style-src 'unsafe-inline'; img-src *; frame-ancestors 'none'",
    );
    response
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

/// One API call, with its envelope.
async fn api(app: &Arc<App>, peer: SocketAddr, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let transaction = auth::header_of_either(request.headers(), "trx").map(str::to_owned);
    let (name, version, route) = match wire::target(&path) {
        Target::Malformed => (
            String::new(),
            None,
            Err(Refusal::bad(0, format!("Invalid request path {path}"))),
        ),
        Target::Call { name, version } => {
            let asked = version.unwrap_or(Version::NEWEST);
            let unknown = || {
                let text = format!("Unable to find endpoint for name {name} and version {asked}");
                Refusal::new(404, 0, text)
            };
            let route = routes::find(&name, asked).ok_or_else(unknown);
            (name, version, route)
        }
    };
    let requested = version.unwrap_or(Version::NEWEST);
    let actual = route.as_ref().ok().map(|route| route.since);
    let answer = match route {
        Ok(route) => granted(app, peer, request, requested, route).await,
        Err(refusal) => Err(refusal),
    };
    if let Err(refusal) = &answer
        && refusal.code >= 500
    {
        tracing::error!(endpoint = name, error = refusal.text, "request failed");
    }
    if let (Ok(Value::String(text)), "events.download_task_log") = (&answer, name.as_str()) {
        return respond(200, "text/plain; charset=utf-8", text.clone().into_bytes());
    }
    let endpoint = Endpoint {
        name: &name,
        requested,
        actual,
        transaction: transaction.as_deref(),
    };
    let (status, body) = wire::envelope(&endpoint, answer);
    respond(status, "application/json", body)
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
    peer: SocketAddr,
    request: Request,
    version: Version,
    route: &'static Route,
) -> Answer {
    let headers = request.headers();
    if from_another_site(headers) {
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
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Refusal::new(
            415,
            0,
            "Unsupported Media Type (Content-Encoding is not accepted)",
        ));
    }
    let worker = auth::header_of_either(headers, "worker").map(str::to_owned);
    let ip = client_ip(headers, peer);
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let query = request.uri().query().map(str::to_owned);
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let kib = u32::try_from(length.unwrap_or(LARGEST_BODY).min(LARGEST_BODY) / 1024 + 1)
        .unwrap_or(u32::MAX);
    let Ok(_room) = app.bodies.acquire_many(kib).await else {
        return Err(Refusal::internal("The server is shutting down"));
    };
    let body = tokio::time::timeout(
        BODY_TIME,
        axum::body::to_bytes(request.into_body(), LARGEST_BODY),
    )
    .await;
    let body = match body {
        Ok(Ok(body)) => body,
        Ok(Err(_)) if length.is_none_or(|length| length > LARGEST_BODY) => {
            return Err(Refusal::new(
                413,
                0,
                format!("The request is larger than {LARGEST_BODY} bytes"),
            ));
        }
        Ok(Err(error)) => return Err(Refusal::bad(0, format!("The request broke off: {error}"))),
        Err(_) => return Err(Refusal::new(408, 0, "The request took too long to arrive")),
    };
    let Content { members, lines } = wire::content(&body, &kind, query.as_deref())?;
    let request = call::Request {
        body: members,
        lines,
        version,
        caller,
        worker,
        ip,
    };
    let shared = Arc::clone(app);
    let work = move |db: &rusqlite::Connection| (route.run)(&Call::new(db, &shared, &request));
    match route.access {
        Access::Read => app.store.read(work).await,
        Access::Write => app.store.write(work).await,
    }
}

/// A browser sends its stored password along wherever a page points it; only our own pages may do that.
fn from_another_site(headers: &HeaderMap) -> bool {
    headers
        .get("sec-fetch-site")
        .is_some_and(|site| site != "same-origin" && site != "none")
}

/// §1.5: what a proxy says, else the socket.
fn client_ip(headers: &HeaderMap, peer: SocketAddr) -> String {
    let named = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let forwarded = named("x-forwarded-for")
        .and_then(|list| list.split(',').next())
        .or_else(|| named("x-real-ip"));
    forwarded.map_or_else(|| peer.ip().to_string(), |ip| ip.trim().to_owned())
}
