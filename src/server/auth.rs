//! Who asks: key pairs and tokens (`protocol.md` §1.4, §1.6).
//!
//! Tokens are HS256 JSON web tokens; key pairs and the tokens that were logged out are kept in memory beside the
//! database, so that no request has to ask it.

use std::collections::{HashMap, HashSet};
use std::sync::RwLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use http::HeaderMap;
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::wire::{Doc, Refusal, Version, new_id};

/// The one company of this server; the id is the one that ClearML's own server starts with.
pub(crate) const COMPANY: &str = "d1bd92a3b039400cbafc60a7a5b1e52b";
pub(crate) const COMPANY_NAME: &str = "trainyard";

/// Lifetimes of tokens in seconds: usual, and at most (§1.4).
pub(super) const LIFETIME: i64 = 30 * 24 * 3600;
pub(super) const LONGEST: i64 = 365 * 24 * 3600;

/// The user on whose behalf a request acts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) user: String,
    pub(crate) name: String,
    pub(crate) role: String,
    /// Of the token, if one was sent.
    pub(super) session: Option<String>,
    /// Of the key pair, if one was sent.
    pub(super) access_key: Option<String>,
    /// When the credentials end; no token lives longer.
    pub(super) until: Option<i64>,
}

impl Caller {
    /// Guests look, but change nothing.
    pub(super) fn only_reads(&self) -> bool {
        self.role == "guest"
    }

    /// Whether the role may act for others and see the server's own settings (§1.6, §2.1).
    pub(super) fn administers(&self) -> bool {
        matches!(self.role.as_str(), "admin" | "root" | "system")
    }
}

struct KeyPair {
    secret_hash: String,
    user: String,
    /// Second from which on the pair counts no more.
    until: Option<i64>,
}

/// Name of the cookie with the token (§1.4).
pub(super) const COOKIE: &str = "clearml_token_basic";

/// What is needed to judge a request's credentials.
pub(crate) struct Auth {
    signing_key: String,
    /// The version that tokens claim (§1.7).
    newest: Version,
    users: RwLock<HashMap<String, (String, String)>>,
    pairs: RwLock<HashMap<String, KeyPair>>,
    revoked: RwLock<HashSet<String>>,
}

type HmacSha256 = Hmac<Sha256>;

impl Auth {
    /// Reads users, key pairs and the signing key.
    pub(crate) fn load(db: &Connection, newest: Version) -> Result<Self, Refusal> {
        let signing_key = db.query_row(
            "SELECT value FROM settings WHERE key = 'token_secret'",
            [],
            |row| row.get(0),
        )?;
        let auth = Self {
            signing_key,
            newest,
            users: RwLock::default(),
            pairs: RwLock::default(),
            revoked: RwLock::default(),
        };
        auth.reload(db)?;
        Ok(auth)
    }

    /// Reads users and key pairs again: another process may have changed them.
    pub(super) fn reload(&self, db: &Connection) -> Result<(), Refusal> {
        let mut users = HashMap::new();
        let mut statement = db.prepare("SELECT id, name, role FROM users")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            users.insert(row.get(0)?, (row.get(1)?, row.get(2)?));
        }
        let mut pairs = HashMap::new();
        let mut statement =
            db.prepare("SELECT access_key, secret_hash, user, until FROM credentials")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let pair = KeyPair {
                secret_hash: row.get(1)?,
                user: row.get(2)?,
                until: row.get(3)?,
            };
            pairs.insert(row.get(0)?, pair);
        }
        let mut statement = db.prepare("SELECT session FROM revoked_sessions")?;
        let revoked = statement
            .query_map([], |row| row.get(0))?
            .collect::<Result<HashSet<String>, _>>()?;
        *write(&self.users) = users;
        *write(&self.pairs) = pairs;
        *write(&self.revoked) = revoked;
        Ok(())
    }

    /// The caller that the headers prove: Basic, Bearer, or without either the cookie, which browsers send from our
    /// own pages alone (§1.4).
    pub(crate) fn caller(&self, headers: &HeaderMap, now: i64) -> Result<Caller, Refusal> {
        let caller = match header(headers, "authorization") {
            Some(value) => match value.split_once(' ') {
                Some(("Basic", pair)) => self.by_key_pair(pair.trim(), now)?,
                Some(("Bearer", token)) => self.by_token(token.trim(), now)?,
                _ => return Err(unauthorized(10, "unsupported authorization scheme")),
            },
            None => match cookie(headers) {
                Some(token) => self.by_token(token, now)?,
                None => return Err(unauthorized(20, "missing credentials")),
            },
        };
        self.impersonated(caller, headers)
    }

    fn by_key_pair(&self, pair: &str, now: i64) -> Result<Caller, Refusal> {
        let wrong = || {
            unauthorized(
                22,
                "invalid credentials) (failed to locate provided credentials",
            )
        };
        let pair = STANDARD
            .decode(pair)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(wrong)?;
        let (key, secret) = pair.split_once(':').ok_or_else(wrong)?;
        let (user, until) = read(&self.pairs)
            .get(key)
            .filter(|known| known.secret_hash == hash(secret))
            .filter(|known| known.until.is_none_or(|until| now < until))
            .map(|known| (known.user.clone(), known.until))
            .ok_or_else(wrong)?;
        let caller = self.user(&user).ok_or_else(wrong)?;
        Ok(Caller {
            access_key: Some(key.to_owned()),
            until,
            ..caller
        })
    }

    /// The caller that a token names.
    pub(super) fn by_token(&self, token: &str, now: i64) -> Result<Caller, Refusal> {
        let bad = || unauthorized(30, "invalid token");
        let claims = self.verified(token).ok_or_else(bad)?;
        if claims
            .get("exp")
            .and_then(Value::as_i64)
            .is_none_or(|until| until < now)
        {
            return Err(unauthorized(30, "token expired"));
        }
        let session = super::doc::text(&claims, "session_id").to_owned();
        if read(&self.revoked).contains(&session) {
            return Err(unauthorized(30, "token revoked"));
        }
        let caller = self
            .user(super::doc::text(&claims, "identity.user"))
            .ok_or_else(bad)?;
        let until = claims.get("keys_until").and_then(Value::as_i64);
        Ok(Caller {
            session: Some(session),
            until,
            ..caller
        })
    }

    /// `X-ClearML-Impersonate-As` and `X-ClearML-Act-As` (§1.6).
    fn impersonated(&self, caller: Caller, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let named = |name| header_of_either(headers, name);
        let (whole, identity) = (named("impersonate-as"), named("act-as"));
        let target = match (whole, identity) {
            (None, None) => return Ok(caller),
            (Some(_), Some(_)) => {
                return Err(Refusal::bad(
                    5,
                    "Impersonate-As and Act-As exclude each other",
                ));
            }
            (Some(target), None) | (None, Some(target)) => target,
        };
        if !caller.administers() {
            return Err(Refusal::bad(
                6,
                "Impersonation error (role may not impersonate)",
            ));
        }
        let other = self
            .user(target)
            .ok_or_else(|| Refusal::bad(6, "Impersonation error (unknown user)"))?;
        let role = if whole.is_some() {
            other.role.clone()
        } else {
            caller.role
        };
        Ok(Caller { role, ..other })
    }

    pub(crate) fn user(&self, id: &str) -> Option<Caller> {
        let users = read(&self.users);
        let (name, role) = users.get(id)?;
        Some(Caller {
            user: id.to_owned(),
            name: name.clone(),
            role: role.clone(),
            ..Caller::default()
        })
    }

    /// All users: id, name, role.
    pub(super) fn all_users(&self) -> Vec<(String, String, String)> {
        let users = read(&self.users);
        users
            .iter()
            .map(|(id, (name, role))| (id.clone(), name.clone(), role.clone()))
            .collect()
    }

    /// From now on this user is known, with this role.
    pub(super) fn admit(&self, id: &str, name: &str, role: &str) {
        write(&self.users).insert(id.to_owned(), (name.to_owned(), role.to_owned()));
    }

    /// From now on the tokens of this session are refused.
    pub(super) fn revoke(&self, session: String) {
        write(&self.revoked).insert(session);
    }

    /// From now on the key pair is accepted.
    pub(super) fn accept(&self, access_key: String, secret: &str, user: &str) {
        let pair = KeyPair {
            secret_hash: hash(secret),
            user: user.to_owned(),
            until: None,
        };
        write(&self.pairs).insert(access_key, pair);
    }

    /// From now on the key pair is refused.
    pub(super) fn forget(&self, access_key: &str) {
        write(&self.pairs).remove(access_key);
    }

    fn verified(&self, token: &str) -> Option<Doc> {
        let (signed, signature) = token.rsplit_once('.')?;
        let mut mac = self.mac()?;
        mac.update(signed.as_bytes());
        mac.verify_slice(&URL_SAFE_NO_PAD.decode(signature).ok()?)
            .ok()?;
        let (_, claims) = signed.split_once('.')?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }

    fn mac(&self) -> Option<HmacSha256> {
        HmacSha256::new_from_slice(self.signing_key.as_bytes()).ok()
    }

    /// A new token for a user (§1.4).
    pub(super) fn token(
        &self,
        caller: &Caller,
        now: i64,
        lifetime: i64,
    ) -> Result<String, Refusal> {
        let end = now + lifetime;
        let end = caller.until.map_or(end, |until| end.min(until));
        let mut claims = json!({
            "env": "<unknown>",
            "iat": now,
            "exp": end,
            "identity": {
                "role": caller.role,
                "user": caller.user,
                "company": COMPANY,
                "company_name": COMPANY_NAME,
                "user_name": caller.name,
            },
            "session_id": new_id(),
            "auth_type": "Bearer",
            "api_version": self.newest.to_string(),
            "server_version": SERVER_VERSION,
            "server_build": env!("CARGO_PKG_VERSION"),
            "feature_set": "basic",
        });
        if let Some(until) = caller.until {
            claims["keys_until"] = until.into();
        }
        let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let mut mac = self
            .mac()
            .ok_or_else(|| Refusal::internal("The token could not be signed"))?;
        mac.update(signed.as_bytes());
        Ok(format!(
            "{signed}.{}",
            URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
        ))
    }
}

/// The release of ClearML's server whose behaviour this one has.
pub(crate) const SERVER_VERSION: &str = "2.3.0";

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn unauthorized(subcode: u16, why: &str) -> Refusal {
    Refusal::new(401, subcode, format!("Unauthorized ({why})"))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The token of the log-in cookie.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(http::header::COOKIE);
    values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, token)| *name == COOKIE && !token.is_empty())
        .map(|(_, token)| token)
}

/// A header by its new or its old name (§1.5).
pub(crate) fn header_of_either<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    header(headers, &format!("x-clearml-{name}"))
        .or_else(|| header(headers, &format!("x-trains-{name}")))
}

/// Secrets are random and long, so one plain hash is enough to keep them out of the database.
pub(super) fn hash(secret: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in Sha256::digest(secret.as_bytes()) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A random word of letters and digits, for keys and secrets.
pub(super) fn random_word(length: usize) -> String {
    use rand::Rng as _;
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    let mut source = rand::rng();
    (0..length)
        .map(|_| char::from(LETTERS[source.random_range(0..LETTERS.len())]))
        .collect()
}

/// Adds a key pair for a user; the secret is returned here and never again.
pub(super) fn add_pair(
    db: &Connection,
    user: &str,
    label: &str,
) -> Result<(String, String), Refusal> {
    let (key, secret) = (random_word(20), random_word(48));
    db.execute(
        "INSERT INTO credentials (access_key, secret_hash, user, label) VALUES (?1, ?2, ?3, ?4)",
        params![key, hash(&secret), user, label],
    )?;
    note_change(db)?;
    Ok((key, secret))
}

/// Tells a server that runs on this database that users or keys have changed.
pub(super) fn note_change(db: &Connection) -> Result<(), Refusal> {
    db.execute(
        "INSERT OR REPLACE INTO settings VALUES ('accounts_changed', ?1)",
        [new_id()],
    )?;
    Ok(())
}
