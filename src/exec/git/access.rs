//! How git reaches a repository: credentials, ssh, limits; all by environment variables of the one process.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, memfd_create};
use secrecy::{ExposeSecret, SecretString};
use tokio::process::Command;
use url::Url;

use super::GitSettings;
use crate::exec::failure::Failure;
use crate::exec::plan::Checkout;
use crate::pod;

/// User name for servers that look at the token alone.
const ANY_USER: &str = "git";

/// Names the variables that the credential helper reads; they exist in the processes of git alone.
const USERNAME: &str = "TRAINYARD_GIT_USERNAME";
const PASSWORD: &str = "TRAINYARD_GIT_PASSWORD";
/// A shell function that answers git's question from those variables; `printf` is built in, so no process shows them.
const HELPER: &str = "!f() { test \"$1\" = get || return 0; \
    printf 'username=%s\\npassword=%s\\n' \"$TRAINYARD_GIT_USERNAME\" \"$TRAINYARD_GIT_PASSWORD\"; }; f";

/// What is set on each call of git.
pub(super) struct Access {
    config: Vec<(String, String)>,
    login: Option<(SecretString, SecretString)>,
    ssh: String,
    protocols: &'static str,
    /// The private key, in memory; ssh opens it by its number, so it lives as long as this.
    key: Option<File>,
}

impl Access {
    pub(super) fn new(wanted: &Checkout, settings: &GitSettings) -> Result<Self, Failure> {
        let mounted = Mounted::read(settings.credentials.as_deref())?;
        let local = wanted.url.starts_with('/') || wanted.url.starts_with("file:");
        let mut config = fixed();
        let own = wanted
            .credentials
            .as_ref()
            .map(|own| (own.username.clone(), own.password.clone()));
        let login = mounted.login.or(own);
        if let (Some(_), Some(host)) = (&login, over_http(&wanted.url)) {
            // Only the repository's own host is told: an address in .gitmodules must not collect the password.
            config.push((format!("credential.{host}.helper"), HELPER.to_owned()));
        }
        if let (Some(_), None, Some((ssh, https))) = (&login, &mounted.key, over_ssh(&wanted.url)) {
            // A password is of no use to ssh: the same repository is asked over https (§7.4).
            config.extend(
                ssh.into_iter()
                    .map(|prefix| (format!("url.{https}/.insteadOf"), prefix)),
            );
            config.push((format!("credential.{https}.helper"), HELPER.to_owned()));
        }
        let key = mounted.key.map(|key| in_memory(&key)).transpose()?;
        let ssh = ssh(key.as_ref(), settings.known_hosts.as_deref());
        let protocols = if local {
            "file:https:http:ssh:git"
        } else {
            "https:http:ssh:git"
        };
        Ok(Self {
            config,
            login,
            ssh,
            protocols,
            key,
        })
    }

    /// Whether there were credentials at all.
    pub(super) fn are_given(&self) -> bool {
        self.login.is_some() || self.key.is_some()
    }

    pub(super) fn apply(&self, command: &mut Command) {
        for name in [
            "GIT_DIR",
            "GIT_WORK_TREE",
            "GIT_INDEX_FILE",
            "GIT_ASKPASS",
            "SSH_ASKPASS",
            "GIT_CONFIG_PARAMETERS",
            pod::env::ACCESS_KEY,
            pod::env::SECRET_KEY,
        ] {
            command.env_remove(name);
        }
        command.env("GIT_CONFIG_GLOBAL", "/dev/null");
        command.env("GIT_TERMINAL_PROMPT", "0");
        command.env("GIT_ALLOW_PROTOCOL", self.protocols);
        command.env("GIT_SSH_COMMAND", &self.ssh);
        command.env("GIT_SSH_VARIANT", "ssh");
        command.env("LC_ALL", "C");
        command.env("GIT_CONFIG_COUNT", self.config.len().to_string());
        for (number, (key, value)) in self.config.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{number}"), key);
            command.env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        if let Some((username, password)) = &self.login {
            command
                .env(USERNAME, username.expose_secret())
                .env(PASSWORD, password.expose_secret());
        }
    }
}

fn fixed() -> Vec<(String, String)> {
    [
        ("safe.directory", "*"),
        ("core.hooksPath", "/dev/null"),
        ("core.fsmonitor", "false"),
        ("credential.helper", ""),
        ("advice.detachedHead", "false"),
        ("init.defaultBranch", "main"),
        ("gc.auto", "0"),
        ("maintenance.auto", "false"),
        // Less than 1 kB/s for 30 s: the transfer stands still.
        ("http.lowSpeedLimit", "1000"),
        ("http.lowSpeedTime", "30"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .to_vec()
}

/// `https://host:port`, if the address is one of HTTP.
fn over_http(url: &str) -> Option<String> {
    let url = Url::parse(url)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))?;
    Some(url.origin().ascii_serialization())
}

/// The beginnings of an ssh address, and the https address that stands for them.
fn over_ssh(url: &str) -> Option<([String; 2], String)> {
    let (user, host) = match url.strip_prefix("ssh://") {
        Some(rest) => {
            let authority = rest.split('/').next()?;
            let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
            (user.to_owned(), host.to_owned())
        }
        None if url.contains("://") || url.starts_with('/') => return None,
        None => {
            let (authority, _) = url.split_once(':')?;
            let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
            (user.to_owned(), host.to_owned())
        }
    };
    let at = if user.is_empty() {
        String::new()
    } else {
        format!("{user}@")
    };
    let name = host.split(':').next()?;
    Some((
        [format!("ssh://{at}{host}/"), format!("{at}{name}:")],
        format!("https://{name}"),
    ))
}

/// The mounted Secret.
#[derive(Default)]
struct Mounted {
    login: Option<(SecretString, SecretString)>,
    key: Option<SecretString>,
}

impl Mounted {
    fn read(folder: Option<&Path>) -> Result<Self, Failure> {
        let Some(folder) = folder.filter(|folder| folder.is_dir()) else {
            return Ok(Self::default());
        };
        let password = secret(folder, "password")?.or(secret(folder, "token")?);
        let username = secret(folder, "username")?.unwrap_or_else(|| SecretString::from(ANY_USER));
        let key = secret(folder, "ssh-privatekey")?;
        if password.is_none() && key.is_none() {
            return Err(
                Failure::new("the Secret with the git credentials has no usable key").hint(
                    "give it \"username\" and \"password\", or \"token\", or \"ssh-privatekey\"",
                ),
            );
        }
        Ok(Self {
            login: password.map(|password| (username, password)),
            key,
        })
    }
}

fn secret(folder: &Path, key: &str) -> Result<Option<SecretString>, Failure> {
    match std::fs::read_to_string(folder.join(key)) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => Ok(Some(SecretString::from(text.trim()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::new(format!(
            "could not read the key {key:?} of the git credentials: {error}"
        ))),
    }
}

/// A private key where ssh finds it and nobody else: a file in memory that only our user may read.
fn in_memory(key: &SecretString) -> Result<File, Failure> {
    let held = || -> std::io::Result<File> {
        let mut file = File::from(memfd_create(c"ssh-key", MemfdFlags::CLOEXEC)?);
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(key.expose_secret().as_bytes())?;
        // ssh refuses a key without the last newline, which a Secret easily loses.
        file.write_all(b"\n")?;
        Ok(file)
    };
    held().map_err(|error| Failure::new(format!("could not hand the ssh key to git: {error}")))
}

/// The ssh command line: no questions, no unknown hosts, an end to silence.
fn ssh(key: Option<&File>, known_hosts: Option<&Path>) -> String {
    let mut words = vec!["ssh -F /dev/null".to_owned()];
    for option in [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "ConnectTimeout=15",
        "ServerAliveInterval=15",
        "ServerAliveCountMax=4",
        "LogLevel=ERROR",
    ] {
        words.push(format!("-o{option}"));
    }
    if let Some(key) = key {
        words.push(format!(
            "-oIdentitiesOnly=yes -i /proc/{}/fd/{}",
            std::process::id(),
            key.as_raw_fd()
        ));
    }
    let known_hosts = known_hosts.map(|path| {
        if path.is_dir() {
            path.join("known_hosts")
        } else {
            path.to_owned()
        }
    });
    if let Some(path) = known_hosts.filter(|path: &PathBuf| path.is_file()) {
        words.push(format!(
            "-oUserKnownHostsFile='{}'",
            path.display().to_string().replace('\'', "")
        ));
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_for_the_host_of_the_repository() {
        assert_eq!(
            over_http("https://git.example/a.git").as_deref(),
            Some("https://git.example")
        );
        assert_eq!(
            over_http("http://git.example:8080/a").as_deref(),
            Some("http://git.example:8080")
        );
        assert_eq!(over_http("ssh://git@git.example/a"), None);
        assert_eq!(over_http("git@git.example:a"), None);
    }

    #[test]
    fn an_ssh_address_has_an_https_twin() {
        let (ssh, https) = over_ssh("git@git.example:a/b.git").unwrap();
        assert_eq!(https, "https://git.example");
        assert_eq!(ssh, ["ssh://git@git.example/", "git@git.example:"]);
        let (ssh, https) = over_ssh("ssh://git@git.example:2222/a.git").unwrap();
        assert_eq!(https, "https://git.example");
        assert_eq!(ssh[0], "ssh://git@git.example:2222/");
        assert_eq!(over_ssh("https://git.example/a"), None);
        assert_eq!(over_ssh("/srv/a"), None);
    }

    #[test]
    fn a_secret_without_a_known_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pass"), "x").unwrap();
        assert!(Mounted::read(Some(folder.path())).is_err());
        std::fs::write(folder.path().join("token"), "x\n").unwrap();
        let mounted = Mounted::read(Some(folder.path())).unwrap();
        let (username, password) = mounted.login.unwrap();
        assert_eq!(
            (username.expose_secret(), password.expose_secret()),
            ("git", "x")
        );
    }
}
