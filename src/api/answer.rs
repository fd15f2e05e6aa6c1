//! What the server answers: an envelope, bounded in size, or an error (`protocol.md` §1).

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::Error;
use super::error::{chain, printable};

/// No answer is read beyond this many bytes (decoded).
const MAX_ANSWER: usize = 64 << 20;
/// Text of an answer that is kept for a message.
const MAX_TEXT: usize = 300;

#[derive(Deserialize)]
struct Envelope<T> {
    meta: Meta,
    data: Option<T>,
}

#[derive(Deserialize, Default)]
struct Meta {
    #[serde(default, rename = "result_code")]
    code: u16,
    #[serde(default, rename = "result_subcode")]
    subcode: Option<u32>,
    #[serde(default, rename = "result_msg")]
    msg: Option<String>,
}

/// What a response says: its data, or the error that it is.
pub async fn understood<T: DeserializeOwned>(action: &str, response: Response) -> Result<T, Error> {
    let status = response.status();
    let retry_after = retry_after(response.headers());
    if status.is_redirection() {
        let target = response
            .headers()
            .get("location")
            .and_then(|value| value.to_str().ok())
            .unwrap_or("elsewhere");
        return Err(protocol(
            action,
            format!(
                "redirected to {}; give that address",
                printable(target, 200)
            ),
        ));
    }
    let body = read(action, response).await?;
    if status.is_success() {
        return opened(action, &body);
    }
    let meta = serde_json::from_slice::<Envelope<IgnoredAny>>(&body).map(|envelope| envelope.meta);
    let enveloped = meta.is_ok();
    let meta = meta.unwrap_or_default();
    let msg = match meta.msg {
        Some(msg) => printable(&msg, MAX_TEXT),
        None => printable(&String::from_utf8_lossy(&body), MAX_TEXT),
    };
    let code = status.as_u16();
    if is_transient(status) {
        // Whoever limits the rate has not processed the request.
        let maybe_done = status != StatusCode::TOO_MANY_REQUESTS;
        return Err(transient(
            action,
            format!("HTTP {code} {msg}"),
            retry_after,
            maybe_done,
        ));
    }
    if !enveloped && status != StatusCode::UNAUTHORIZED {
        return Err(protocol(
            action,
            format!("HTTP {code} without a ClearML envelope: {msg}"),
        ));
    }
    Err(Error::Refused {
        action: action.to_owned(),
        http: code,
        subcode: meta.subcode.unwrap_or_default(),
        msg,
    })
}

/// The data of a successful answer.
fn opened<T: DeserializeOwned>(action: &str, body: &[u8]) -> Result<T, Error> {
    let envelope: Envelope<T> =
        serde_json::from_slice(body).map_err(|error| protocol(action, error))?;
    if envelope.meta.code != 200 {
        return Err(protocol(
            action,
            format!("HTTP 200 with result code {}", envelope.meta.code),
        ));
    }
    envelope
        .data
        .ok_or_else(|| protocol(action, "no data in the answer"))
}

/// Reads a body up to [`MAX_ANSWER`].
pub async fn read(action: &str, mut response: Response) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > MAX_ANSWER => {
                return Err(protocol(action, format!("larger than {MAX_ANSWER} bytes")));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => return Err(transient(action, chain(error), None, true)),
        }
    }
}

pub fn is_transient(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
}

pub fn transient(
    action: &str,
    cause: String,
    retry_after: Option<Duration>,
    maybe_done: bool,
) -> Error {
    Error::Transient {
        action: action.to_owned(),
        cause,
        retry_after,
        maybe_done,
    }
}

pub fn protocol(action: &str, cause: impl std::fmt::Display) -> Error {
    Error::Protocol {
        action: action.to_owned(),
        cause: printable(&cause.to_string(), MAX_TEXT),
    }
}

/// `Retry-After` in seconds; a date or nonsense is ignored, an hour is the most.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds.min(3600)))
}
