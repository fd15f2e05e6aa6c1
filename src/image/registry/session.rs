//! Requests about one image: a challenge is answered once, by a token or by user and password.

use reqwest::header::{ACCEPT, CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{Fault, INDEXES, MANIFESTS, Registry};
use crate::image::Reference;
use crate::image::challenge::{self, Challenge};
use crate::image::keyring::Key;

/// Answers are not read beyond this: manifests and configurations of real images have some hundred KiB at most.
const LARGEST: usize = 2 << 20;
/// Nor are they taken apart with more values than these: each takes some hundred bytes of memory and two of the answer.
const MOST_VALUES: usize = 10_000;

/// Requests about one image with one key.
pub(super) struct Session<'a> {
    registry: &'a Registry,
    image: &'a Reference,
    key: Option<&'a Key>,
    authorization: Option<Authorization>,
}

enum Authorization {
    Basic,
    Bearer(SecretString),
}

impl Registry {
    /// Requests about an image with this key, or without any.
    pub(super) fn session<'a>(&'a self, image: &'a Reference, key: Option<&'a Key>) -> Session<'a> {
        Session {
            registry: self,
            image,
            key,
            authorization: None,
        }
    }
}

impl Session<'_> {
    /// A request; a challenge is answered once.
    pub(super) async fn send(&mut self, method: Method, url: &str) -> Result<Response, Fault> {
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

    pub(super) async fn json(&mut self, url: &str) -> Result<Value, Fault> {
        let answer = self.send(Method::GET, url).await?;
        body(answer).await
    }
}

/// The body as JSON, within bounds.
async fn body(mut answer: Response) -> Result<Value, Fault> {
    let too_large = || Fault::Unknown("the registry's answer is too large".into());
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if bytes.len() + chunk.len() > LARGEST {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    if values(&bytes) > MOST_VALUES {
        return Err(too_large());
    }
    serde_json::from_slice(&bytes)
        .map_err(|_| Fault::Unknown("the registry's answer is no JSON".into()))
}

/// About how many values a JSON text has: what begins one outside of texts.
fn values(json: &[u8]) -> usize {
    let (mut count, mut quoted, mut escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' | b'[' | b'{' if !quoted => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_never_sent_to_a_token_service_in_the_clear() {
        let registry = Registry::new(None, Vec::new()).unwrap();
        let image = Reference::parse("registry.example/x").unwrap();
        let key = Key {
            user: "u".into(),
            password: SecretString::from("p"),
            identity_token: false,
        };
        let session = Session {
            registry: &registry,
            image: &image,
            key: Some(&key),
            authorization: None,
        };
        let refused = session
            .token("http://registry.example/token", None, None)
            .await;
        assert!(matches!(refused, Err(Fault::Unknown(why)) if why.contains("no https address")));
    }
}
