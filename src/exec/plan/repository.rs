//! What to check out: the address without secrets, and the revision that wins.

use secrecy::SecretString;
use url::Url;

use super::{PlanError, clipped};
use crate::task::Script;

/// A repository at a revision.
#[derive(Debug, Clone)]
pub struct Checkout {
    /// Address without user name or password, except the user of an ssh address.
    pub url: String,
    pub revision: Revision,
    /// The branch that was recorded beside a commit: where to look if the server does not hand out single commits.
    pub branch: Option<String>,
    /// What the recorded address carried; used only if the binding gives no credentials.
    pub credentials: Option<Credentials>,
}

/// Commit wins over tag, tag over branch (§7.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revision {
    Commit(String),
    Tag(String),
    Branch(String),
    /// A tag, a branch or a commit, whichever has this name.
    Any(String),
    /// `master`, else `main`, else what the server calls its head.
    Default,
}

impl Revision {
    /// What a requirement names behind its `@`; empty: the default branch.
    pub fn of_name(name: &str) -> Result<Self, PlanError> {
        let hex = name.bytes().all(|byte| byte.is_ascii_hexdigit());
        match self::name("revision", name)? {
            None => Ok(Self::Default),
            Some(name) if hex && matches!(name.len(), 40 | 64) => Ok(Self::Commit(name)),
            Some(name) => Ok(Self::Any(name)),
        }
    }
}

/// A user name and password for one host.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub username: SecretString,
    pub password: SecretString,
}

const SCHEMES: [&str; 5] = ["https", "http", "ssh", "git", "file"];

/// The checkout that a task asks for; `None` for a stand-alone script.
pub(super) fn checkout(script: &Script) -> Result<Option<Checkout>, PlanError> {
    let written = script.repository.trim();
    if written.is_empty() {
        return Ok(None);
    }
    let (url, credentials) = address(written)?;
    let branch = name("branch", &script.branch)?;
    let revision = match (
        commit(&script.version_num)?,
        name("tag", &script.tag)?,
        branch.clone(),
    ) {
        (Some(commit), _, _) => Revision::Commit(commit),
        (None, Some(tag), _) => Revision::Tag(tag),
        (None, None, Some(branch)) => Revision::Branch(branch),
        (None, None, None) => Revision::Default,
    };
    Ok(Some(Checkout {
        url,
        revision,
        branch,
        credentials,
    }))
}

/// Whether the newest commit is wanted: none is recorded, or the word that people write for it.
pub fn is_latest(version_num: &str) -> bool {
    let written = version_num.trim();
    written.is_empty() || written.eq_ignore_ascii_case("latest")
}

fn commit(written: &str) -> Result<Option<String>, PlanError> {
    let written = written.trim();
    if is_latest(written) {
        return Ok(None);
    }
    let known =
        (4..=64).contains(&written.len()) && written.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !known {
        let why = "a commit is written in 4 to 64 hexadecimal digits";
        return Err(PlanError::Unusable {
            field: "version_num",
            value: clipped(written),
            why,
        });
    }
    Ok(Some(written.to_ascii_lowercase()))
}

/// A branch or tag, by git's own rules for names (`git check-ref-format`).
fn name(field: &'static str, written: &str) -> Result<Option<String>, PlanError> {
    let written = written.trim();
    if written.is_empty() {
        return Ok(None);
    }
    let bad = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    if written.starts_with(['-', '/', '.'])
        || written.ends_with(['/', '.'])
        || written.contains("..")
        || written.contains("//")
        || written.contains("@{")
        || written.chars().any(bad)
    {
        return Err(PlanError::Unusable {
            field,
            value: clipped(written),
            why: "git allows no such name",
        });
    }
    Ok(Some(written.to_owned()))
}

/// Takes user name and password out of an address, and refuses what git would not take for one.
pub fn address(written: &str) -> Result<(String, Option<Credentials>), PlanError> {
    let refuse = |why| {
        Err(PlanError::Unusable {
            field: "repository",
            value: masked(written),
            why,
        })
    };
    if written.starts_with('-') || written.chars().any(char::is_control) {
        return refuse("it is no address");
    }
    let Some((scheme, _)) = written.split_once("://") else {
        return match written {
            path if path.starts_with('/') => Ok((path.to_owned(), None)),
            scp if is_scp_like(scp) => Ok((scp.to_owned(), None)),
            _ => refuse("use https://, http://, ssh://, git://, file:// or user@host:path"),
        };
    };
    if !SCHEMES.contains(&scheme) {
        return refuse("use https://, http://, ssh://, git://, file:// or user@host:path");
    }
    let Ok(mut url) = Url::parse(written) else {
        return refuse("it is no URL");
    };
    if scheme != "file"
        && url
            .host_str()
            .is_none_or(|host| host.is_empty() || host.starts_with('-'))
    {
        return refuse("it names no host");
    }
    let over_http = matches!(scheme, "http" | "https");
    let password = url.password().map(decoded);
    if password.is_none() && (url.username().is_empty() || !over_http) {
        return Ok((written.to_owned(), None));
    }
    let credentials = Credentials {
        username: SecretString::from(decoded(url.username())),
        password: SecretString::from(password.unwrap_or_default()),
    };
    let stripped = url.set_password(None).is_ok() && (!over_http || url.set_username("").is_ok());
    if !stripped {
        return refuse("its user name and password cannot be taken out");
    }
    Ok((url.to_string(), over_http.then_some(credentials)))
}

/// `user@host:path`, with git's rule that a slash before the colon makes it a path.
fn is_scp_like(text: &str) -> bool {
    let Some((host, path)) = text.split_once(':') else {
        return false;
    };
    let host = host.rsplit('@').next().unwrap_or(host);
    !host.is_empty()
        && !text.contains("::")
        && !path.is_empty()
        && !host.starts_with('-')
        && !host.contains(|c: char| c == '/' || c.is_whitespace())
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        // `from_str_radix` would take a sign, too.
        let hex = after
            .get(..2)
            .filter(|pair| pair.iter().all(u8::is_ascii_hexdigit))
            .and_then(|pair| std::str::from_utf8(pair).ok());
        let value = hex.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        if let Some(value) = value.filter(|_| byte == b'%') {
            bytes.push(value);
            rest = &after[2..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An address that could not be read, without what may be a secret in front of its host.
fn masked(written: &str) -> String {
    clipped(written.rsplit('@').next().unwrap_or(written))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn script(repository: &str) -> Script {
        Script {
            repository: repository.to_owned(),
            ..Script::default()
        }
    }

    #[test]
    fn commit_wins_over_tag_and_tag_over_branch() {
        let mut script = script("https://git.example/a/b.git");
        let revision = |script: &Script| checkout(script).unwrap().unwrap().revision;
        assert_eq!(revision(&script), Revision::Default);
        script.branch = "main".into();
        assert_eq!(revision(&script), Revision::Branch("main".into()));
        script.tag = "v1".into();
        assert_eq!(revision(&script), Revision::Tag("v1".into()));
        script.version_num = "latest".into();
        assert_eq!(revision(&script), Revision::Tag("v1".into()));
        script.version_num = "ABCDEF0123".into();
        assert_eq!(revision(&script), Revision::Commit("abcdef0123".into()));
        assert_eq!(
            checkout(&script).unwrap().unwrap().branch.as_deref(),
            Some("main")
        );
    }

    #[test]
    fn every_usual_form_of_an_address_is_taken_as_written() {
        for written in [
            "https://git.example/a/b.git",
            "http://git.example:8080/a",
            "ssh://git@git.example:2222/a.git",
            "git://git.example/a",
            "file:///srv/a.git",
            "/srv/a.git",
            "git@git.example:a/b.git",
            "git.example:a/b.git",
        ] {
            let checkout = checkout(&script(written)).unwrap().unwrap();
            assert_eq!(checkout.url, written);
            assert!(checkout.credentials.is_none());
        }
    }

    #[test]
    fn what_runs_a_program_or_is_an_option_is_no_address() {
        for written in [
            "ext::sh -c id",
            "--upload-pack=id",
            "ssh://-oProxyCommand=id/x",
            "-h:x",
            "fd::17",
            "word",
        ] {
            assert!(checkout(&script(written)).is_err(), "{written}");
        }
        let mut options = script("https://git.example/a");
        options.branch = "--upload-pack=id".into();
        assert!(checkout(&options).is_err());
        options.branch = String::new();
        options.version_num = "--force".into();
        assert!(checkout(&options).is_err());
    }

    #[test]
    fn a_secret_in_the_address_leaves_it_and_never_shows() {
        let checkout = checkout(&script("https://alice:s3%2Fcret@git.example/a"))
            .unwrap()
            .unwrap();
        assert_eq!(checkout.url, "https://git.example/a");
        assert!(!format!("{checkout:?}").contains("s3"));
        let credentials = checkout.credentials.unwrap();
        assert_eq!(credentials.username.expose_secret(), "alice");
        assert_eq!(credentials.password.expose_secret(), "s3/cret");
        let signed = super::checkout(&script("https://alice:a%+5%zz@git.example/a"))
            .unwrap()
            .unwrap();
        let password = signed.credentials.unwrap().password;
        assert_eq!(password.expose_secret(), "a%+5%zz");
        let token = super::checkout(&script("https://t0ken@git.example/a"))
            .unwrap()
            .unwrap();
        assert_eq!(token.url, "https://git.example/a");
        let error = super::checkout(&script("gopher://alice:s3cret@git.example/a")).unwrap_err();
        assert!(!error.to_string().contains("s3cret"));
    }
}
