//! ClearML over HTTP: one call, one envelope, one error type (`protocol.md` §1).
//!
//! ```text
//! queues, tasks, events, workers ──▶ Client::call ──▶ POST {api}/{service}.{action} ──▶ envelope ──▶ typed data
//!                                        │ 401: log in again, rebuild the header, repeat once
//! ```
//!
//! The server's answers are untrusted: typed, bounded in size and time. The client itself repeats nothing but the 401
//! case, because a repeated `remove_task` or pop is not harmless; who may repeat says so by [`retry`].

mod answer;
mod auth;
mod backoff;
mod documents;
mod error;
mod events;
mod projects;
mod queues;
mod tasks;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use answer::{is_transient, read, transient};
pub use auth::Credentials;
use auth::Token;
pub use backoff::{Backoff, retry};
pub use documents::{Body, Facts, Found, Unreadable};
pub use error::{Error, SetupError};
use error::{chain, printable};
pub use events::{Added, Event, LogLine};
pub use queues::{Entry, QueueEntries, QueueInfo};
pub use workers::StatusReport;

use crate::telemetry::metrics::Metrics;

/// From what a [`Client`] is made.
#[derive(Debug, Clone)]
pub struct Settings {
    pub api_url: String,
    pub credentials: Credentials,
    /// PEM certificates that are trusted beside the machine's own.
    pub ca: Option<Vec<u8>>,
    pub proxy: Option<SecretString>,
    /// Sent as `X-ClearML-Worker` (§1.5): who is asking.
    pub worker: String,
    /// Limit of one request, from connection to last byte.
    pub timeout: Duration,
    /// Where requests are counted.
    pub metrics: Option<Metrics>,
}

impl Settings {
    /// Settings with nothing out of the ordinary.
    pub fn new(
        api_url: impl Into<String>,
        credentials: Credentials,
        worker: impl Into<String>,
    ) -> Self {
        Self {
            api_url: api_url.into(),
            credentials,
            ca: None,
            proxy: None,
            worker: worker.into(),
            timeout: Duration::from_secs(10),
            metrics: None,
        }
    }
}

/// One server, one identity. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    http: reqwest::Client,
    base: String,
    /// Scheme, host and port, for messages: the address itself may carry a password.
    origin: String,
    credentials: Credentials,
    token: Mutex<Option<Token>>,
    metrics: Option<Metrics>,
}

#[derive(Deserialize)]
struct Login {
    token: String,
}

/// Answer of calls of which only success matters.
#[derive(Deserialize)]
struct Nothing {}

impl Client {
    /// Makes the client; nothing is sent before the first call.
    pub fn new(settings: Settings) -> Result<Self, SetupError> {
        let Settings {
            api_url,
            credentials,
            ca,
            proxy,
            worker,
            timeout,
            metrics,
        } = settings;
        let url = Url::parse(&api_url).map_err(|_| SetupError::BadUrl(printable(&api_url, 200)))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(SetupError::BadUrl(printable(&api_url, 200)));
        }
        let worker = HeaderValue::from_str(&worker)
            .map_err(|_| SetupError::BadHeader("the worker's name"))?;
        let headers = HeaderMap::from_iter([
            (HeaderName::from_static("x-clearml-worker"), worker.clone()),
            (HeaderName::from_static("x-trains-worker"), worker),
        ]);
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("trainyard/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            // A redirect would turn POST into GET; the address in the settings is to be mended instead.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(timeout.min(Duration::from_secs(5)))
            .timeout(timeout);
        let proxied = proxy.is_some();
        if let Some(proxy) = proxy {
            builder = builder.proxy(
                reqwest::Proxy::all(proxy.expose_secret()).map_err(|_| SetupError::BadProxy)?,
            );
        }
        builder = match ca {
            Some(pem) => {
                let certificates =
                    reqwest::Certificate::from_pem_bundle(&pem).map_err(|_| SetupError::BadCa)?;
                if certificates.is_empty() {
                    return Err(SetupError::BadCa);
                }
                builder.tls_certs_merge(certificates)
            }
            // Without TLS no certificate store is needed; an image may have none, and reading one costs memory.
            None if url.scheme() == "http" && !proxied => builder.tls_certs_only([]),
            None => builder,
        };
        let http = builder
            .build()
            .map_err(|error| SetupError::Build(chain(error)))?;
        let token = Mutex::new(credentials.given_token());
        let origin = url.origin().ascii_serialization();
        let base = url.as_str().trim_end_matches('/').to_owned();
        Ok(Self {
            inner: Arc::new(Inner {
                http,
                base,
                origin,
                credentials,
                token,
                metrics,
            }),
        })
    }

    /// A valid token of this login, for another process that acts for the same user.
    pub async fn token(&self) -> Result<SecretString, Error> {
        Ok(self.valid_token(None).await?.value)
    }

    /// The server's API version as its token says (§1.7); logs in if need be.
    pub async fn api_version(&self) -> Result<Option<(u32, u32)>, Error> {
        Ok(self.valid_token(None).await?.api_version)
    }

    /// `debug.ping`: whether a ClearML server answers at this address; needs no credentials.
    pub async fn reachable(&self) -> Result<(), Error> {
        let request = self.request("debug.ping", "application/json", "{}".to_owned());
        let _: IgnoredAny = self.send("debug.ping", request).await?;
        Ok(())
    }

    /// The address of a file server below the API's own (`GET /files` answers `OK`, §2.8), as small servers have it.
    pub async fn files_below_api(&self) -> Result<Option<String>, Error> {
        const ACTION: &str = "files";
        let url = format!("{}/files", self.inner.base);
        let response =
            self.inner.http.get(&url).send().await.map_err(|error| {
                transient(ACTION, chain(error), None, false).at(&self.inner.origin)
            })?;
        let status = response.status();
        if is_transient(status) {
            return Err(
                transient(ACTION, format!("HTTP {}", status.as_u16()), None, false)
                    .at(&self.inner.origin),
            );
        }
        let answers = status.is_success() && read(ACTION, response).await?.starts_with(b"OK");
        Ok(answers.then_some(url))
    }

    /// One call with a JSON body.
    async fn call<T: DeserializeOwned>(
        &self,
        action: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let body = serde_json::to_string(body).map_err(|error| Error::Protocol {
            action: action.to_owned(),
            cause: error.to_string(),
        })?;
        self.authorized(action, "application/json", body).await
    }

    /// One call of any body; after a 401 once more with a new login.
    async fn authorized<T: DeserializeOwned>(
        &self,
        action: &str,
        content_type: &'static str,
        body: String,
    ) -> Result<T, Error> {
        let token = self.valid_token(None).await?;
        let request = self
            .request(action, content_type, body.clone())
            .header(AUTHORIZATION, token.header()?);
        match self.send(action, request).await {
            Err(error) if error.is_unauthorized() => {
                let token = self.valid_token(Some(&token)).await?;
                let request = self
                    .request(action, content_type, body)
                    .header(AUTHORIZATION, token.header()?);
                self.send(action, request).await
            }
            answer => answer,
        }
    }

    fn request(
        &self,
        action: &str,
        content_type: &'static str,
        body: String,
    ) -> reqwest::RequestBuilder {
        let url = format!("{}/{action}", self.inner.base);
        self.inner
            .http
            .request(Method::POST, url)
            .header(CONTENT_TYPE, content_type)
            .body(body)
    }

    /// The current token, or a new one: at the first call, near its end, or when the server `rejected` it. Callers that
    /// come at once wait for one login.
    async fn valid_token(&self, rejected: Option<&Token>) -> Result<Token, Error> {
        let mut slot = self.inner.token.lock().await;
        if let Some(token) = slot.as_ref() {
            let refused = rejected
                .is_some_and(|old| old.value.expose_secret() == token.value.expose_secret());
            if !refused && token.is_fresh(Timestamp::now()) {
                return Ok(token.clone());
            }
        }
        let header = self.inner.credentials.login_header(slot.as_ref())?;
        let request = self
            .request("auth.login", "application/json", "{}".to_owned())
            .header(AUTHORIZATION, header);
        let login: Login = self.send("auth.login", request).await?;
        let token = Token::new(SecretString::from(login.token));
        *slot = Some(token.clone());
        Ok(token)
    }

    /// Sends one request, reads its envelope and counts it.
    async fn send<T: DeserializeOwned>(
        &self,
        action: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        let answer = self
            .exchange(action, request)
            .await
            .map_err(|error| error.at(&self.inner.origin));
        if let Some(metrics) = &self.inner.metrics {
            let outcome = match &answer {
                Ok(_) => "ok",
                Err(Error::Transient { .. }) => "transient",
                Err(Error::Refused { .. }) => "refused",
                Err(Error::Protocol { .. }) => "protocol",
            };
            metrics.request(action, outcome, begun.elapsed());
        }
        answer
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        action: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<T, Error> {
        let response = request.send().await.map_err(|error| {
            let maybe_done = !error.is_connect();
            transient(action, chain(error), None, maybe_done)
        })?;
        answer::understood(action, response).await
    }
}

#[cfg(test)]
mod tests;
