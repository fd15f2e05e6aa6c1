//! Who asks: key pairs, tokens, and the `auth`, `login` and `users` services (`protocol.md` §1.4, §1.6, §2.1).
//!
//! Tokens are HS256 JSON web tokens; key pairs and the tokens that were logged out are kept in memory beside the
//! database, so that no request has to ask it.

use std::collections::{HashMap, HashSet};
use std::sync::RwLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use http::HeaderMap;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::call::Call;
use super::wire::{Answer, Doc, Refusal, Version, new_id};

/// The one company of this server; the id is the one that ClearML's own server starts with.
pub(crate) const COMPANY: &str = "d1bd92a3b039400cbafc60a7a5b1e52b";
pub(crate) const COMPANY_NAME: &str = "trainyard";

/// Lifetimes of tokens in seconds: usual, and at most (§1.4).
const LIFETIME: i64 = 30 * 24 * 3600;
const LONGEST: i64 = 365 * 24 * 3600;

/// The user on whose behalf a request acts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) user: String,
    pub(crate) name: String,
    pub(crate) role: String,
    /// Of the token, if one was sent.
    session: Option<String>,
    /// Of the key pair, if one was sent.
    access_key: Option<String>,
}

struct KeyPair {
    secret_hash: String,
    user: String,
}

/// What is needed to judge a request's credentials.
pub(crate) struct Auth {
    signing_key: String,
    users: RwLock<HashMap<String, (String, String)>>,
    pairs: RwLock<HashMap<String, KeyPair>>,
    revoked: RwLock<HashSet<String>>,
}

type HmacSha256 = Hmac<Sha256>;

impl Auth {
    /// Reads users, key pairs and the signing key.
    pub(crate) fn load(db: &Connection) -> Result<Self, Refusal> {
        let signing_key = db.query_row(
            "SELECT value FROM settings WHERE key = 'token_secret'",
            [],
            |row| row.get(0),
        )?;
        let mut users = HashMap::new();
        let mut statement = db.prepare("SELECT id, name, role FROM users")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            users.insert(row.get(0)?, (row.get(1)?, row.get(2)?));
        }
        let mut pairs = HashMap::new();
        let mut statement = db.prepare("SELECT access_key, secret_hash, user FROM credentials")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            pairs.insert(
                row.get(0)?,
                KeyPair {
                    secret_hash: row.get(1)?,
                    user: row.get(2)?,
                },
            );
        }
        let mut statement = db.prepare("SELECT session FROM revoked_sessions")?;
        let revoked = statement
            .query_map([], |row| row.get(0))?
            .collect::<Result<HashSet<String>, _>>()?;
        Ok(Self {
            signing_key,
            users: RwLock::new(users),
            pairs: RwLock::new(pairs),
            revoked: RwLock::new(revoked),
        })
    }

    /// The caller that the headers prove: Basic or Bearer (§1.4). The cookie is not read:
    /// together with writes by GET it would let any web page act in the user's name.
    pub(crate) fn caller(&self, headers: &HeaderMap, now: i64) -> Result<Caller, Refusal> {
        let caller = match header(headers, "authorization") {
            Some(value) => match value.split_once(' ') {
                Some(("Basic", pair)) => self.by_key_pair(pair.trim())?,
                Some(("Bearer", token)) => self.by_token(token.trim(), now)?,
                _ => return Err(unauthorized(10, "unsupported authorization scheme")),
            },
            None => return Err(unauthorized(20, "missing credentials")),
        };
        self.impersonated(caller, headers)
    }

    fn by_key_pair(&self, pair: &str) -> Result<Caller, Refusal> {
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
        let user = read(&self.pairs)
            .get(key)
            .filter(|known| known.secret_hash == hash(secret))
            .map(|known| known.user.clone())
            .ok_or_else(wrong)?;
        let caller = self.user(&user).ok_or_else(wrong)?;
        Ok(Caller {
            access_key: Some(key.to_owned()),
            ..caller
        })
    }

    fn by_token(&self, token: &str, now: i64) -> Result<Caller, Refusal> {
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
        Ok(Caller {
            session: Some(session),
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
        if !matches!(caller.role.as_str(), "admin" | "root" | "system") {
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
    fn token(&self, caller: &Caller, now: i64, lifetime: i64) -> Result<String, Refusal> {
        let claims = json!({
            "env": "<unknown>",
            "iat": now,
            "exp": now + lifetime,
            "identity": {
                "role": caller.role,
                "user": caller.user,
                "company": COMPANY,
                "company_name": COMPANY_NAME,
                "user_name": caller.name,
            },
            "session_id": new_id(),
            "auth_type": "Bearer",
            "api_version": Version::NEWEST.to_string(),
            "server_version": SERVER_VERSION,
            "server_build": env!("CARGO_PKG_VERSION"),
            "feature_set": "basic",
        });
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
    Ok((key, secret))
}

// ---- endpoints ----

/// `auth.login`
pub(crate) fn login(call: &Call) -> Answer {
    let lifetime = call.int("expiration_sec")?.unwrap_or(LIFETIME);
    if !(1..=LONGEST).contains(&lifetime) {
        return Err(Refusal::invalid(format_args!(
            "expiration_sec must be between 1 and {LONGEST}"
        )));
    }
    let caller = &call.request.caller;
    if let Some(key) = &caller.access_key {
        let from = call.request.worker.as_deref().unwrap_or(&call.request.ip);
        let sql =
            "UPDATE credentials SET last_used = ?2, last_used_from = ?3 WHERE access_key = ?1";
        call.db.execute(sql, params![key, call.now, from])?;
    }
    Ok(json!({"token": call.app.auth.token(caller, call.at.as_second(), lifetime)?}))
}

/// `auth.logout`, `login.logout`
pub(crate) fn logout(call: &Call) -> Answer {
    if let Some(session) = &call.request.caller.session {
        let until = call.at.as_second() + LONGEST;
        call.db.execute(
            "DELETE FROM revoked_sessions WHERE until < ?1",
            [call.at.as_second()],
        )?;
        call.db.execute(
            "INSERT OR REPLACE INTO revoked_sessions VALUES (?1, ?2)",
            params![session, until],
        )?;
        write(&call.app.auth.revoked).insert(session.clone());
    }
    Ok(json!({}))
}

/// `auth.validate_token`
pub(crate) fn validate_token(call: &Call) -> Answer {
    Ok(
        match call
            .app
            .auth
            .by_token(call.text("token")?, call.at.as_second())
        {
            Ok(caller) => {
                json!({"valid": true, "user": caller.user, "company": COMPANY, "msg": ""})
            }
            Err(refusal) => json!({"valid": false, "msg": refusal.text}),
        },
    )
}

/// `auth.get_token_for_user`
pub(crate) fn token_for_user(call: &Call) -> Answer {
    if !matches!(
        call.request.caller.role.as_str(),
        "admin" | "root" | "system"
    ) {
        return Err(Refusal::new(403, 20, "Forbidden (role not allowed)"));
    }
    let user = call.text("user")?;
    let target = call
        .app
        .auth
        .user(user)
        .ok_or_else(|| Refusal::bad(6, "Unknown user"))?;
    let lifetime = call
        .int("expiration_sec")?
        .unwrap_or(LIFETIME)
        .clamp(1, LONGEST);
    Ok(json!({"token": call.app.auth.token(&target, call.at.as_second(), lifetime)?}))
}

/// `auth.create_credentials`
pub(crate) fn create_credentials(call: &Call) -> Answer {
    let label = call.text_or_none("label")?.unwrap_or_default();
    let (access_key, secret) = add_pair(call.db, call.user(), label)?;
    let pair = KeyPair {
        secret_hash: hash(&secret),
        user: call.user().to_owned(),
    };
    write(&call.app.auth.pairs).insert(access_key.clone(), pair);
    Ok(json!({"credentials": {"access_key": access_key, "secret_key": secret, "label": label}}))
}

/// `auth.get_credentials`
pub(crate) fn get_credentials(call: &Call) -> Answer {
    let sql =
        "SELECT access_key, label, last_used, last_used_from FROM credentials WHERE user = ?1";
    let mut statement = call.db.prepare_cached(sql)?;
    let mut rows = statement.query([call.user()])?;
    let mut pairs = Vec::new();
    while let Some(row) = rows.next()? {
        let mut pair = Doc::new();
        for (column, name) in ["access_key", "label", "last_used", "last_used_from"]
            .into_iter()
            .enumerate()
        {
            if let Some(text) = row.get::<_, Option<String>>(column)? {
                pair.insert(name.into(), text.into());
            }
        }
        pairs.push(pair);
    }
    Ok(json!({"credentials": pairs}))
}

/// `auth.revoke_credentials`
pub(crate) fn revoke_credentials(call: &Call) -> Answer {
    let key = call.text("access_key")?;
    let sql = "DELETE FROM credentials WHERE access_key = ?1 AND user = ?2";
    let revoked = call.db.execute(sql, params![key, call.user()])?;
    if revoked > 0 {
        write(&call.app.auth.pairs).remove(key);
    }
    Ok(json!({"revoked": revoked}))
}

/// `auth.fixed_users_mode`
#[expect(clippy::unnecessary_wraps, reason = "an endpoint like the others")]
pub(crate) fn fixed_users_mode(_: &Call) -> Answer {
    Ok(json!({"enabled": false, "guest": {"enabled": false}, "server_errors": {}}))
}

/// `login.supported_modes`
#[expect(clippy::unnecessary_wraps, reason = "an endpoint like the others")]
pub(crate) fn supported_modes(call: &Call) -> Answer {
    let guest = json!({"enabled": false, "name": "", "username": "", "password": ""});
    Ok(json!({
        "basic": {"enabled": false, "guest": guest},
        "sso": {},
        "sso_providers": [],
        "server_errors": {"missed_es_upgrade": false, "es_connection_error": false},
        "authenticated": !call.user().is_empty(),
    }))
}

/// `users.get_current_user`
pub(crate) fn current_user(call: &Call) -> Answer {
    let caller = &call.request.caller;
    let sql = "SELECT created, preferences FROM users WHERE id = ?1";
    let row: Option<(String, String)> = call
        .db
        .query_row(sql, [call.user()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (created, preferences) = row.unwrap_or_else(|| (call.now.clone(), "{}".into()));
    Ok(json!({
        "user": {
            "id": caller.user,
            "name": caller.name,
            "company": {"id": COMPANY, "name": COMPANY_NAME},
            "role": caller.role,
            "created": created,
            "preferences": serde_json::from_str::<Value>(&preferences)?,
        },
        "getting_started": {"agentName": "trainyard", "configure": "", "install": "", "packageName": "clearml"},
        "settings": {"max_download_items": 1000},
    }))
}

/// `users.get_all`, `users.get_all_ex`
pub(crate) fn users(call: &Call) -> Answer {
    let wanted = call.texts("id")?;
    let mut users = Vec::new();
    for (id, (name, role)) in read(&call.app.auth.users).iter() {
        if wanted.is_empty() || wanted.contains(&id.as_str()) {
            users.push(json!({"id": id, "name": name, "role": role, "company": COMPANY}));
        }
    }
    Ok(json!({"users": users}))
}
