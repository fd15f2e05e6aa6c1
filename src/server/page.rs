//! The page for people: plain HTML, style sheets and ES modules out of `page/`, inside the program.
//!
//! ```text
//! /                                  ─┐
//! /projects/<project>/tasks/<task>/… ─┴▶ index.html ──▶ /page/*.js ──▶ the API, with a token got by keys
//! ```
//!
//! The files hold no data, so they need no credentials: whatever the page shows it asks the API for. Its policy allows
//! scripts and styles from this server alone and no markup made of text (trusted types), so that nothing a user wrote
//! can become code.

use std::sync::OnceLock;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use sha2::{Digest as _, Sha256};

use super::pack;

/// First part of the addresses of the page's files.
const FOLDER: &str = "/page/";

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data: blob: http: https:; media-src 'self' http: https:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

macro_rules! asset {
    ($name:literal) => {
        ($name, include_bytes!(concat!("page/", $name)))
    };
}

/// Name and content of each file.
#[rustfmt::skip]
const FILES: &[(&str, &[u8])] = &[
    asset!("actions.js"),
    asset!("ansi.js"),
    asset!("api.js"),
    asset!("axes.js"),
    asset!("base.css"),
    asset!("chart.js"),
    asset!("compare.js"),
    asset!("dom.js"),
    asset!("execution.js"),
    asset!("files.js"),
    asset!("format.js"),
    asset!("icon.svg"),
    asset!("index.html"),
    asset!("keys.js"),
    asset!("log.js"),
    asset!("main.js"),
    asset!("overview.js"),
    asset!("parameters.js"),
    asset!("plot.js"),
    asset!("plotly.js"),
    asset!("plots.js"),
    asset!("queues.js"),
    asset!("route.js"),
    asset!("samples.js"),
    asset!("scalars.js"),
    asset!("signin.js"),
    asset!("start.js"),
    asset!("task.js"),
    asset!("tasks.js"),
    asset!("theme.js"),
    asset!("ui.js"),
    asset!("views.css"),
    asset!("workers.js"),
];

/// The file that an address stands for: `/`, `/page/<file>`, and what the SDK prints for a task.
fn file(path: &str) -> Option<&'static (&'static str, &'static [u8])> {
    let name = match path.strip_prefix(FOLDER) {
        Some(name) => name,
        None if path == "/" || is_task(path) => "index.html",
        None => return None,
    };
    FILES.iter().find(|(known, _)| *known == name)
}

/// `/projects/<project>/{tasks,experiments}/<task>[/…]`
fn is_task(path: &str) -> bool {
    let Some(rest) = path.strip_prefix("/projects/") else {
        return false;
    };
    let mut parts = rest.split('/').skip(1);
    matches!(parts.next(), Some("tasks" | "experiments"))
        && parts.next().is_some_and(crate::task::is_object_id)
}

/// The answer, if the request is one for the page; `client` tells its address.
pub(super) fn answer(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    client: impl FnOnce() -> String,
) -> Option<Response> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    let Some((name, content)) = file(path) else {
        return path
            .starts_with(FOLDER)
            .then(|| response(StatusCode::NOT_FOUND, Body::empty()));
    };
    let tag = tag(name);
    let known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|have| have == tag);
    let mut response = if known {
        response(StatusCode::NOT_MODIFIED, Body::empty())
    } else if *method == Method::HEAD {
        response(StatusCode::OK, Body::empty())
    } else if pack::wanted(headers, &client(), content.len())
        && let Some(packed) = packed(name)
    {
        let mut response = response(StatusCode::OK, Body::from(packed));
        let set = response.headers_mut();
        set.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        response(StatusCode::OK, Body::from(*content))
    };
    let set = response.headers_mut();
    set.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind(name)));
    set.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if let Ok(tag) = HeaderValue::from_str(tag) {
        set.insert(header::ETAG, tag);
    }
    Some(response)
}

fn response(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Another program at the same address brings other files.
        (header::CACHE_CONTROL, "no-cache"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

fn kind(name: &str) -> &'static str {
    match name.rsplit_once('.') {
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "text/html; charset=utf-8",
    }
}

/// A file's path, and its bytes by gzip where that makes it smaller.
type Packed = (&'static str, Option<Vec<u8>>);

/// A file as gzip. All of them are packed once, when the first is asked for.
fn packed(name: &str) -> Option<&'static [u8]> {
    static PACKED: OnceLock<Vec<Packed>> = OnceLock::new();
    let all = PACKED.get_or_init(|| {
        FILES
            .iter()
            .map(|(name, content)| (*name, pack::gzip(content)))
            .collect()
    });
    all.iter()
        .find(|(known, _)| *known == name)
        .and_then(|(_, packed)| packed.as_deref())
}

/// What tells one content of a file from another. It is weak: the same whether the file is packed or not, here or by a
/// proxy.
fn tag(name: &str) -> &'static str {
    static TAGS: OnceLock<Vec<(&'static str, String)>> = OnceLock::new();
    let tags = TAGS.get_or_init(|| {
        FILES
            .iter()
            .map(|(name, content)| {
                let digest = Sha256::digest(content);
                let short = u64::from_be_bytes(std::array::from_fn(|at| digest[at]));
                (*name, format!("W/\"{short:016x}\""))
            })
            .collect()
    });
    tags.iter()
        .find(|(known, _)| *known == name)
        .map_or("", |(_, tag)| tag)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn get(path: &str) -> Option<Response> {
        get_with(path, &HeaderMap::new(), "127.0.0.1")
    }

    fn get_with(path: &str, headers: &HeaderMap, client: &str) -> Option<Response> {
        answer(&Method::GET, path, headers, || client.to_owned())
    }

    #[test]
    fn the_address_that_the_sdk_prints_leads_to_the_page() {
        let id = "0123456789abcdef0123456789abcdef";
        for path in [
            "/".to_owned(),
            format!("/projects/p/tasks/{id}/output/log"),
            format!("/projects/*/experiments/{id}"),
        ] {
            let response = get(&path).unwrap();
            assert_eq!(
                response.headers()[header::CONTENT_TYPE],
                "text/html; charset=utf-8"
            );
        }
        assert!(get("/projects/p/tasks/x").is_none());
        assert!(get("/tasks").is_none());
        assert_eq!(
            get("/page/../page.rs").unwrap().status(),
            StatusCode::NOT_FOUND
        );
        let posted = answer(&Method::POST, "/", &HeaderMap::new(), String::new);
        assert!(posted.is_none());
    }

    #[test]
    fn a_file_that_has_not_changed_is_not_sent_again() {
        let first = get("/page/main.js").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        let again = get_with("/page/main.js", &headers, "10.0.0.1").unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        let other = get_with("/page/dom.js", &headers, "10.0.0.1").unwrap();
        assert_eq!(other.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn files_go_over_a_network_packed() {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("gzip, br"),
        );
        for (name, content) in FILES {
            let path = format!("{FOLDER}{name}");
            for (client, far) in [("127.0.0.1", false), ("10.0.0.1", true)] {
                let response = get_with(&path, &headers, client).unwrap();
                let is_packed = response.headers().contains_key(header::CONTENT_ENCODING);
                assert_eq!(is_packed, far && content.len() > 500, "{name} to {client}");
                assert_eq!(response.headers()[header::VARY], "Accept-Encoding");
                let sent = axum::body::to_bytes(response.into_body(), usize::MAX).await;
                let sent = sent.unwrap();
                let mut shown = Vec::new();
                if is_packed {
                    assert!(sent.len() < content.len(), "{name}");
                    flate2::read::GzDecoder::new(&*sent)
                        .read_to_end(&mut shown)
                        .unwrap();
                } else {
                    shown.extend_from_slice(&sent);
                }
                assert_eq!(shown, *content, "{name} to {client}");
            }
        }
    }

    /// Everything that the files name must be in the program, and everything in the folder must be named.
    #[test]
    fn every_file_is_embedded_and_every_import_leads_to_one() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/server/page");
        let mut there: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        there.sort();
        let mut named: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        named.sort_unstable();
        assert_eq!(there, named);
        for (name, content) in FILES
            .iter()
            .filter(|(name, _)| kind(name).contains("javascript"))
        {
            let text = std::str::from_utf8(content).unwrap();
            for import in text.split(" from './").skip(1) {
                let target = import.split('\'').next().unwrap();
                assert!(named.contains(&target), "{name} imports {target}");
            }
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
            ] {
                assert!(
                    !text.replace("`innerHTML`", "").contains(forbidden),
                    "{name} has {forbidden}"
                );
            }
        }
        let index = std::str::from_utf8(file("/").unwrap().1).unwrap();
        for part in index.split("\"/page/").skip(1) {
            let target = part.split('"').next().unwrap();
            assert!(named.contains(&target), "index.html names {target}");
        }
    }
}
