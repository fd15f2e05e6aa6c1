//! Asking a registry for a manifest.

mod command;

use std::fmt;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::challenge::{self, Challenge};
use super::keyring::Key;
use super::{Keyring, Reference};

pub use command::Command;

/// Limit of one request.
const REQUEST: Duration = Duration::from_secs(4);
/// Answers are not read beyond this: manifests and configurations have at most 4 MiB by convention.
const LARGEST: usize = 4 << 20;
/// A registry's own words in a message.
const WORDS: usize = 200;

/// Media types of manifests of one image, and of lists of them.
const MANIFESTS: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// What was found out about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding<T = ()> {
    /// It is there; with what was asked of it.
    There(T),
    /// It cannot be run, for this reason.
    Refused(String),
    /// The registry gave no verdict, for this reason.
    Unknown(String),
}

/// What nodes run, as images name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

/// Settings from which no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("the CA bundle for registries holds no readable PEM certificate")]
    BadCa,
    #[error("could not set up the HTTP client for registries: {0}")]
    Build(String),
}

/// A client for registries. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    http: Client,
    /// Hosts that are spoken to without TLS, beside those of this machine.
    plain: Vec<String>,
}

/// Why there is no answer that counts.
enum Fault {
    Refused(String),
    Unknown(String),
}

impl From<reqwest::Error> for Fault {
    fn from(error: reqwest::Error) -> Self {
        // Without the address: it may hold a token's scope and, once redirected, a signature.
        let error = error.without_url();
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        Self::Unknown(printable(&text))
    }
}

impl Registry {
    /// A client that trusts `ca` (PEM) beside the machine's certificates and speaks plain HTTP to `plain` hosts.
    pub fn new(ca: Option<&[u8]>, plain: Vec<String>) -> Result<Self, SetupError> {
        let mut builder = Client::builder()
            .user_agent(concat!("trainyard/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::limited(3))
            .connect_timeout(REQUEST)
            .timeout(REQUEST);
        if let Some(pem) = ca {
            let certificates =
                reqwest::Certificate::from_pem_bundle(pem).map_err(|_| SetupError::BadCa)?;
            if certificates.is_empty() {
                return Err(SetupError::BadCa);
            }
            builder = builder.tls_certs_merge(certificates);
        }
        let http = builder
            .build()
            .map_err(|error| SetupError::Build(error.without_url().to_string()))?;
        Ok(Self { http, plain })
    }

    /// Whether the image is there for one of `platforms` (`None`: not known, any will do).
    pub async fn look(
        &self,
        image: &Reference,
        keys: &Keyring,
        platforms: Option<&[Platform]>,
    ) -> Finding {
        let mut refused = None;
        for key in tries(image, keys) {
            let found = self.look_with(image, key, platforms).await;
            if let Some(finding) = settled(image, found, &mut refused) {
                return finding;
            }
        }
        Finding::Refused(refused.unwrap_or_default())
    }

    async fn look_with(
        &self,
        image: &Reference,
        key: Option<&Key>,
        platforms: Option<&[Platform]>,
    ) -> Result<(), Fault> {
        let base = self.base(image);
        let manifest = format!("{base}/manifests/{}", image.manifest());
        let mut session = self.session(image, key);
        // A HEAD costs nothing where pulls are counted; only a platform needs the body.
        let answer = session.send(Method::HEAD, &manifest).await?;
        let kind = media_type(&answer);
        let Some(platforms) = platforms else {
            return Ok(());
        };
        let document = session.json(&manifest).await?;
        let offered = if INDEXES.contains(&kind.as_str()) || document["manifests"].is_array() {
            of_index(&document)
        } else {
            let config = document["config"]["digest"].as_str().unwrap_or_default();
            if config.is_empty() {
                return Ok(());
            }
            of_config(&session.json(&format!("{base}/blobs/{config}")).await?)
        };
        if offered.is_empty() || offered.iter().any(|platform| platforms.contains(platform)) {
            return Ok(());
        }
        Err(elsewhere(image, &offered, platforms))
    }

    /// Where the image's repository is.
    fn base(&self, image: &Reference) -> String {
        format!(
            "{}://{}/v2/{}",
            self.scheme(&image.host),
            image.address(),
            image.repository
        )
    }

    fn session<'a>(&'a self, image: &'a Reference, key: Option<&'a Key>) -> Session<'a> {
        Session {
            registry: self,
            image,
            key,
            authorization: None,
        }
    }

    fn scheme(&self, host: &str) -> &'static str {
        let name = host
            .rsplit_once(':')
            .filter(|(_, port)| !port.contains(']'))
            .map_or(host, |(name, _)| name);
        let bare = name.trim_matches(['[', ']']);
        let own = bare == "localhost"
            || bare
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        if own
            || self
                .plain
                .iter()
                .any(|plain| plain == host || plain == name)
        {
            "http"
        } else {
            "https"
        }
    }
}

/// Requests about one image with one key.
struct Session<'a> {
    registry: &'a Registry,
    image: &'a Reference,
    key: Option<&'a Key>,
    authorization: Option<Authorization>,
}

enum Authorization {
    Basic,
    Bearer(SecretString),
}

impl Session<'_> {
    /// A request; a challenge is answered once.
    async fn send(&mut self, method: Method, url: &str) -> Result<Response, Fault> {
        let answer = self.request(method.clone(), url).send().await?;
        if answer.status() != StatusCode::UNAUTHORIZED || self.authorization.is_some() {
            return self.verdict(answer);
        }
        let wanted = answer
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .find_map(|header| challenge::parse(header.to_str().ok()?));
        self.authorization = Some(match wanted {
            None => return self.verdict(answer),
            Some(Challenge::Basic) if self.key.is_none() => return self.verdict(answer),
            Some(Challenge::Basic) => Authorization::Basic,
            Some(Challenge::Bearer {
                realm,
                service,
                scope,
            }) => Authorization::Bearer(
                self.token(&realm, service.as_deref(), scope.as_deref())
                    .await?,
            ),
        });
        let answer = self.request(method, url).send().await?;
        self.verdict(answer)
    }

    fn request(&self, method: Method, url: &str) -> RequestBuilder {
        let accepted = [MANIFESTS, INDEXES].concat().join(", ");
        let request = self
            .registry
            .http
            .request(method, url)
            .header(ACCEPT, accepted);
        match (&self.authorization, self.key) {
            (Some(Authorization::Bearer(token)), _) => request.bearer_auth(token.expose_secret()),
            (Some(Authorization::Basic), Some(key)) => {
                request.basic_auth(&key.user, Some(key.password.expose_secret()))
            }
            _ => request,
        }
    }

    /// A token for pulling this image.
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
    ) -> Result<SecretString, Fault> {
        let own_words = |why: &str| Fault::Unknown(format!("its token service {why}"));
        let realm: Url = realm
            .parse()
            .map_err(|_| own_words("has no readable address"))?;
        let plain = self.registry.scheme(&self.image.host) == "http";
        // A password never leaves a registry with TLS in the clear.
        if !(realm.scheme() == "https" || (plain && realm.scheme() == "http")) {
            return Err(own_words("has no https address"));
        }
        let scope = scope.map_or_else(
            || format!("repository:{}:pull", self.image.repository),
            str::to_owned,
        );
        let service = service.unwrap_or_default();
        let request = match self.key {
            Some(key) if key.identity_token => {
                let form = url::form_urlencoded::Serializer::new(String::new())
                    .extend_pairs([
                        ("grant_type", "refresh_token"),
                        ("refresh_token", key.password.expose_secret()),
                        ("service", service),
                        ("scope", &scope),
                        ("client_id", "trainyard"),
                    ])
                    .finish();
                self.registry
                    .http
                    .post(realm)
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form)
            }
            key => {
                let request = self
                    .registry
                    .http
                    .get(realm)
                    .query(&[("service", service), ("scope", scope.as_str())]);
                match key {
                    Some(key) => request.basic_auth(&key.user, Some(key.password.expose_secret())),
                    None => request,
                }
            }
        };
        let answer = request.send().await?;
        match answer.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(Fault::Refused(self.forbidden()))
            }
            status if status.is_success() => {
                let body = body(answer).await?;
                let token = ["token", "access_token"]
                    .iter()
                    .find_map(|name| body[name].as_str());
                token
                    .filter(|token| !token.is_empty())
                    .map(SecretString::from)
                    .ok_or_else(|| own_words("gave no token"))
            }
            status => Err(own_words(&format!("answered {status}"))),
        }
    }

    /// What the status of an answer says.
    fn verdict(&self, answer: Response) -> Result<Response, Fault> {
        let status = answer.status();
        match status {
            StatusCode::NOT_FOUND => Err(Fault::Refused(format!(
                "image {} does not exist in its registry",
                self.image
            ))),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(Fault::Refused(self.forbidden()))
            }
            status if status.is_success() => Ok(answer),
            StatusCode::TOO_MANY_REQUESTS => Err(Fault::Unknown(
                "the registry limits requests (429)".to_owned(),
            )),
            status => Err(Fault::Unknown(format!("the registry answered {status}"))),
        }
    }

    fn forbidden(&self) -> String {
        let image = self.image;
        match self.key {
            None => format!(
                "image {image} does not exist or needs credentials, and no pull secret of the pod has any for {}",
                image.host
            ),
            Some(_) => {
                format!("the registry refuses image {image} to the credentials of the pull secrets")
            }
        }
    }

    async fn json(&mut self, url: &str) -> Result<Value, Fault> {
        let answer = self.send(Method::GET, url).await?;
        body(answer).await
    }
}

/// The body as JSON, within bounds.
async fn body(mut answer: Response) -> Result<Value, Fault> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if bytes.len() + chunk.len() > LARGEST {
            return Err(Fault::Unknown("the registry's answer is too large".into()));
        }
        bytes.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&bytes)
        .map_err(|_| Fault::Unknown("the registry's answer is no JSON".into()))
}

fn media_type(answer: &Response) -> String {
    let value = answer
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let value = value.unwrap_or_default();
    value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Each key in turn, as the kubelet tries them; without any, anonymously.
fn tries<'k>(image: &Reference, keys: &'k Keyring) -> Vec<Option<&'k Key>> {
    let candidates = keys.of(image).into_iter();
    candidates.map(Some).chain([None]).collect()
}

/// What the answer to one key comes to; nothing where the next one is tried, and the first refusal is kept.
fn settled<T>(
    image: &Reference,
    answer: Result<T, Fault>,
    refused: &mut Option<String>,
) -> Option<Finding<T>> {
    match answer {
        Ok(found) => Some(Finding::There(found)),
        Err(Fault::Unknown(why)) => Some(Finding::Unknown(format!("{}: {why}", image.host))),
        Err(Fault::Refused(why)) => {
            refused.get_or_insert(why);
            None
        }
    }
}

/// The image is for other platforms than the nodes'.
fn elsewhere(image: &Reference, offered: &[Platform], nodes: &[Platform]) -> Fault {
    let list = |platforms: &[Platform]| {
        let mut names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
        names.sort();
        names.dedup();
        names.join(", ")
    };
    Fault::Refused(format!(
        "image {image} is for {}, and the nodes of this cluster are {}",
        list(offered),
        list(nodes)
    ))
}

/// The platforms of an index; attestations carry `unknown`.
fn of_index(index: &Value) -> Vec<Platform> {
    let manifests = index["manifests"].as_array().into_iter().flatten();
    manifests
        .filter_map(|manifest| platform(&manifest["platform"]))
        .collect()
}

fn of_config(config: &Value) -> Vec<Platform> {
    platform(config).into_iter().collect()
}

fn platform(value: &Value) -> Option<Platform> {
    let text = |name: &str| {
        value[name]
            .as_str()
            .filter(|text| !["", "unknown"].contains(text))
    };
    Some(Platform {
        os: text("os")?.to_owned(),
        architecture: text("architecture")?.to_owned(),
    })
}

fn printable(text: &str) -> String {
    text.chars()
        .take(WORDS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests;
