//! Login: keys or a given token in, a valid `Authorization` header out (`protocol.md` §1.4).
//!
//! The token is made when first needed, renewed before it expires and dropped when the server answers 401; the
//! request is then repeated with a header built anew.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::error::Error;

/// A token is renewed when fewer seconds than this remain (the SDK's threshold is 360, §1.4).
const RENEW_BEFORE_S: i64 = 600;

/// How to prove who we are.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// Key and secret; `token` is a login made earlier by the same keys, used as long as it is valid.
    Keys {
        access_key: SecretString,
        secret_key: SecretString,
        token: Option<SecretString>,
    },
    /// A token alone; it is renewed by itself (§1.4, token-only mode).
    Token(SecretString),
}

impl Credentials {
    /// Key and secret without an earlier login.
    pub fn keys(access_key: impl Into<String>, secret_key: impl Into<String>) -> Self {
        Self::Keys {
            access_key: SecretString::from(access_key.into()),
            secret_key: SecretString::from(secret_key.into()),
            token: None,
        }
    }

    /// The token that is there before the first login.
    pub(super) fn given_token(&self) -> Option<Token> {
        match self {
            Self::Keys { token, .. } => token.clone().map(Token::new),
            Self::Token(token) => Some(Token::new(token.clone())),
        }
    }

    /// The header of the login request. `current` is the token to renew in token-only mode.
    pub(super) fn login_header(&self, current: Option<&Token>) -> Result<HeaderValue, Error> {
        let text = match self {
            Self::Keys {
                access_key,
                secret_key,
                ..
            } => {
                let pair = format!(
                    "{}:{}",
                    access_key.expose_secret(),
                    secret_key.expose_secret()
                );
                format!("Basic {}", STANDARD.encode(pair))
            }
            Self::Token(given) => {
                format!(
                    "Bearer {}",
                    current.map_or(given, |token| &token.value).expose_secret()
                )
            }
        };
        sensitive(&text)
    }
}

/// A login token and what its payload says.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub value: SecretString,
    expires: Option<i64>,
    pub api_version: Option<(u32, u32)>,
}

#[derive(Deserialize)]
struct Claims {
    exp: Option<f64>,
    api_version: Option<String>,
}

impl Token {
    /// Reads the payload without checking the signature, as every client does; an unreadable one never expires.
    pub fn new(value: SecretString) -> Self {
        let claims: Option<Claims> = value
            .expose_secret()
            .split('.')
            .nth(1)
            .and_then(|part| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok())
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        #[expect(
            clippy::cast_possible_truncation,
            reason = "seconds since the epoch; a float cast saturates"
        )]
        let expires = claims
            .as_ref()
            .and_then(|claims| claims.exp)
            .map(|exp| exp as i64);
        let api_version = claims.and_then(|claims| parse_version(&claims.api_version?));
        Self {
            value,
            expires,
            api_version,
        }
    }

    pub fn is_fresh(&self, now: Timestamp) -> bool {
        self.expires
            .is_none_or(|expires| expires.saturating_sub(now.as_second()) > RENEW_BEFORE_S)
    }

    pub fn header(&self) -> Result<HeaderValue, Error> {
        sensitive(&format!("Bearer {}", self.value.expose_secret()))
    }
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// A header value that never shows in debug output.
fn sensitive(text: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(text).map_err(|_| Error::Refused {
        action: "auth.login".to_owned(),
        http: 401,
        subcode: 22,
        msg: "the credentials hold characters that no HTTP header may carry".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(payload: &str) -> Token {
        Token::new(SecretString::from(format!(
            "e30.{}.x",
            URL_SAFE_NO_PAD.encode(payload)
        )))
    }

    #[test]
    fn a_token_is_renewed_before_it_expires() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        assert!(jwt(r#"{"exp": 1000700}"#).is_fresh(now));
        assert!(!jwt(r#"{"exp": 1000500}"#).is_fresh(now));
        assert!(jwt("{}").is_fresh(now));
        assert!(Token::new(SecretString::from("garbage")).is_fresh(now));
    }

    #[test]
    fn the_servers_version_is_read_from_the_token() {
        assert_eq!(jwt(r#"{"api_version": "2.34"}"#).api_version, Some((2, 34)));
        assert_eq!(jwt(r#"{"api_version": "x"}"#).api_version, None);
    }

    #[test]
    fn debug_output_shows_neither_key_nor_token() {
        let keys = Credentials::keys("ACCESS", "SECRET");
        assert!(!format!("{keys:?}").contains("SECRET"));
        assert!(!format!("{:?}", keys.login_header(None).unwrap()).contains("Basic"));
    }
}
