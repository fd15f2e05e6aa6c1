//! Asking a registry for a manifest.

mod command;
mod platform;
mod session;

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Method, Response};

use self::platform::{elsewhere, of_config, of_index};
use super::keyring::Key;
use super::{Keyring, Reference};

pub use command::Command;
pub use platform::Platform;

/// Limit of one request.
const REQUEST: Duration = Duration::from_secs(4);
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
        let hint = if text.contains("UnknownIssuer") {
            " (hint: --registry-ca of the controller names a file with certificates to trust)"
        } else {
            ""
        };
        Self::Unknown(format!("{}{hint}", printable(&text)))
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
        with_each_key(image, keys, |key| self.look_with(image, key, platforms)).await
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

/// Asks with each key in turn, as the kubelet tries them, and at last anonymously, until an answer settles it; the first
/// refusal is told if none does.
async fn with_each_key<'k, T, F>(
    image: &Reference,
    keys: &'k Keyring,
    ask: impl Fn(Option<&'k Key>) -> F,
) -> Finding<T>
where
    F: Future<Output = Result<T, Fault>>,
{
    let candidates = keys.of(image).into_iter();
    let tries: Vec<Option<&Key>> = candidates.map(Some).chain([None]).collect();
    let mut refused = None;
    for key in tries {
        match ask(key).await {
            Ok(found) => return Finding::There(found),
            Err(Fault::Unknown(why)) => return Finding::Unknown(format!("{}: {why}", image.host)),
            Err(Fault::Refused(why)) => {
                refused.get_or_insert(why);
            }
        }
    }
    Finding::Refused(refused.unwrap_or_default())
}

fn printable(text: &str) -> String {
    text.chars()
        .take(WORDS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests;
