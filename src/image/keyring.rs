//! Credentials of pull secrets, and which of them are for an image.
//!
//! Source: `kubernetes.io/dockerconfigjson` and `dockercfg` Secrets; matched as the kubelet does: host parts may hold
//! `*`, a path narrows the entry down, and the longest path goes first.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use serde_json::Value;

use super::Reference;

/// Keys and what they open, in the order in which they are tried.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    host: String,
    path: String,
    key: Key,
}

/// User and password, or a token that stands for both.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) user: String,
    pub(super) password: SecretString,
    /// An OAuth2 refresh token in place of a password.
    pub(super) identity_token: bool,
}

impl Keyring {
    /// Adds the content of `.dockerconfigjson`; what cannot be read opens nothing.
    pub fn add_config(&mut self, json: &[u8]) {
        if let Ok(config) = serde_json::from_slice::<Value>(json) {
            self.add(&config["auths"]);
        }
    }

    /// Adds the content of the older `.dockercfg`.
    pub fn add_old_config(&mut self, json: &[u8]) {
        if let Ok(auths) = serde_json::from_slice::<Value>(json) {
            self.add(&auths);
        }
    }

    fn add(&mut self, auths: &Value) {
        for (name, entry) in auths.as_object().into_iter().flatten() {
            let bare = name
                .trim_start_matches("https://")
                .trim_start_matches("http://");
            let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
            let path = path.trim_matches('/');
            // The address of Docker Hub's old API, as `docker login` writes it.
            let path = if ["v1", "v2"].contains(&path) {
                ""
            } else {
                path
            };
            if let Some(key) = key(entry) {
                self.entries.push(Entry {
                    host: host.to_owned(),
                    path: path.to_owned(),
                    key,
                });
            }
        }
        // Stable: of equally long paths the first that was added goes first.
        self.entries
            .sort_by_key(|entry| std::cmp::Reverse(entry.path.len()));
    }

    /// The keys for an image.
    pub(super) fn of(&self, image: &Reference) -> Vec<&Key> {
        let opens = |entry: &&Entry| {
            let path = &entry.path;
            let below = image.repository == *path
                || image
                    .repository
                    .strip_prefix(path.as_str())
                    .is_some_and(|rest| rest.starts_with('/'));
            host_matches(&entry.host, &image.host) && (path.is_empty() || below)
        };
        self.entries
            .iter()
            .filter(opens)
            .map(|entry| &entry.key)
            .collect()
    }
}

fn key(entry: &Value) -> Option<Key> {
    let text = |name: &str| entry[name].as_str().filter(|text| !text.is_empty());
    let secret = |user: &str, password: &str, identity_token| Key {
        user: user.to_owned(),
        password: SecretString::from(password),
        identity_token,
    };
    if let Some(token) = text("identitytoken") {
        return Some(secret("", token, true));
    }
    if let (Some(user), Some(password)) = (text("username"), text("password")) {
        return Some(secret(user, password, false));
    }
    let decoded = String::from_utf8(STANDARD.decode(text("auth")?.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some(secret(user, password.trim_end_matches('\0'), false))
}

/// Whether an entry's host means this one: as many parts, each the same but for `*`, and the same port.
fn host_matches(entry: &str, host: &str) -> bool {
    let entry = if ["index.docker.io", "registry-1.docker.io"].contains(&entry) {
        "docker.io"
    } else {
        entry
    };
    let split = |text: &str| match text.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => {
            (name.to_owned(), Some(port.to_owned()))
        }
        _ => (text.to_owned(), None),
    };
    let ((entry, entry_port), (host, port)) = (split(entry), split(host));
    let (parts, wanted): (Vec<&str>, Vec<&str>) =
        (host.split('.').collect(), entry.split('.').collect());
    entry_port == port
        && parts.len() == wanted.len()
        && wanted
            .iter()
            .zip(&parts)
            .all(|(pattern, part)| part_matches(pattern, part))
}

fn part_matches(pattern: &str, part: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern.eq_ignore_ascii_case(part),
        Some((start, end)) => {
            part.len() >= start.len() + end.len() && part.starts_with(start) && part.ends_with(end)
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;
    use serde_json::json;

    use super::*;

    fn users(ring: &Keyring, image: &str) -> Vec<String> {
        let image = Reference::parse(image).unwrap();
        ring.of(&image)
            .iter()
            .map(|key| format!("{}:{}", key.user, key.password.expose_secret()))
            .collect()
    }

    fn ring(auths: &Value) -> Keyring {
        let mut ring = Keyring::default();
        ring.add_config(json!({ "auths": auths }).to_string().as_bytes());
        ring
    }

    #[test]
    fn every_form_of_an_entry_is_read() {
        let ring = ring(&json!({
            "https://index.docker.io/v1/": { "auth": STANDARD.encode("hub:pass:word") },
            "127.0.0.1:5000": { "username": "local", "password": "p" },
            "*.example.com": { "auth": STANDARD.encode("any:p") },
            "gcr.example.org/team/a": { "auth": STANDARD.encode("a:p") },
            "gcr.example.org": { "identitytoken": "t" },
            "broken.example": { "auth": "?" },
        }));
        assert_eq!(users(&ring, "python:3"), ["hub:pass:word"]);
        assert_eq!(users(&ring, "127.0.0.1:5000/x"), ["local:p"]);
        assert_eq!(users(&ring, "127.0.0.1:5001/x"), Vec::<String>::new());
        assert_eq!(users(&ring, "a.example.com/x"), ["any:p"]);
        assert_eq!(users(&ring, "a.b.example.com/x"), Vec::<String>::new());
        assert_eq!(users(&ring, "gcr.example.org/team/a/x"), ["a:p", ":t"]);
        assert_eq!(users(&ring, "gcr.example.org/team/ab"), [":t"]);
        assert_eq!(users(&ring, "broken.example/x"), Vec::<String>::new());
    }

    #[test]
    fn no_password_is_ever_shown() {
        let ring = ring(&json!({ "a.example": { "username": "u", "password": "canary" } }));
        assert!(!format!("{ring:?}").contains("canary"));
    }
}
