//! How git reaches a repository: credentials, ssh, limits; all by environment variables of the one process.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{MemfdFlags, memfd_create};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::process::Command;
use url::Url;

use super::{GitSettings, Options, Scheme};
use crate::exec::digest::hex;
use crate::exec::failure::Failure;
use crate::exec::plan::Checkout;
use crate::pod;

/// User name for servers that look at the token alone.
const ANY_USER: &str = "git";

/// Begin the names of the variables that the credential helpers read; they exist in the processes of git alone.
const USERNAME: &str = "TRAINYARD_GIT_USERNAME";
const PASSWORD: &str = "TRAINYARD_GIT_PASSWORD";

/// A shell function that answers git's question from the variables of that number; `printf` is built in, so no process
/// shows them.
fn helper(number: usize) -> String {
    format!(
        "!f() {{ test \"$1\" = get || return 0; \
         printf 'username=%s\\npassword=%s\\n' \"${USERNAME}_{number}\" \"${PASSWORD}_{number}\"; }}; f"
    )
}

/// What is set on each call of git.
pub(super) struct Access {
    config: Vec<(String, String)>,
    logins: Vec<(SecretString, SecretString)>,
    ssh: String,
    protocols: &'static str,
    /// The private key, in memory; ssh opens it by its number, so it lives as long as this.
    key: Option<File>,
    fingerprint: String,
}

impl Access {
    pub(super) fn new(wanted: &Checkout, settings: &GitSettings) -> Result<Self, Failure> {
        let mounted = Mounted::read(settings.credentials.as_deref())?;
        let options = &settings.options;
        let local = is_local(&wanted.url);
        let mut access = Self {
            config: fixed(settings.stall),
            logins: Vec::new(),
            ssh: String::new(),
            protocols: if local {
                "file:https:http:ssh:git"
            } else {
                "https:http:ssh:git"
            },
            key: None,
            fingerprint: String::new(),
        };
        if let Some(trusted) = &settings.trusted {
            access.set("http.sslCAInfo", &trusted.to_string_lossy());
        }
        let logins = logins(wanted, &mounted, options);
        let mut hash = Sha256::new();
        for (place, username, password) in &logins {
            for part in [
                place.as_str(),
                username.expose_secret(),
                password.expose_secret(),
            ] {
                hash.update(part);
                hash.update([0]);
            }
        }
        if let Some(key) = &mounted.key {
            hash.update(key.expose_secret());
        }
        access.fingerprint = hex(&hash.finalize()[..16]);
        if options.force_ssh {
            access.force_ssh(&wanted.url, options);
        }
        let translate = options
            .translate_ssh
            .as_deref()
            .filter(|_| mounted.key.is_none() && !options.force_ssh);
        for (place, username, password) in logins {
            let own = ssh_prefix(&wanted.url);
            access.log_in(&place, username, password, options.scheme, translate, own);
        }
        access.key = mounted.key.map(|key| in_memory(&key)).transpose()?;
        access.ssh = ssh(access.key.as_ref(), settings.known_hosts.as_deref());
        Ok(access)
    }

    /// Lets git log in below `place`, which is `host` or `host/path`, with its scheme in front where it is known.
    fn log_in(
        &mut self,
        place: &str,
        username: SecretString,
        password: SecretString,
        scheme: Scheme,
        translate: Option<&str>,
        own_ssh: Option<String>,
    ) {
        let number = self.logins.len();
        let (schemes, rest) = match place.split_once("://") {
            Some((scheme, rest)) => (vec![scheme], rest),
            None => (vec!["https", "http"], place),
        };
        for kind in schemes {
            let address = format!("{kind}://{rest}");
            match header(scheme, &password) {
                Some(header) => self.set(&format!("http.{address}.extraHeader"), &header),
                None => self.set(&format!("credential.{address}.helper"), &helper(number)),
            }
            if let Some((host, _)) = rest.split_once('/') {
                // Else git asks for the host alone, and no beginning of a path fits.
                self.set(&format!("credential.{kind}://{host}.useHttpPath"), "true");
            }
        }
        if let Some(translated) = translate {
            // A password is of no use to ssh: the same repository is asked over https (§7.4).
            let host = rest.split(['/', ':']).next().unwrap_or(rest);
            let address = format!("url.{translated}://{host}/.insteadOf");
            let usual = [
                format!("ssh://git@{host}/"),
                format!("ssh://{host}/"),
                format!("git@{host}:"),
                format!("{host}:"),
            ];
            let own = own_ssh.filter(|own| !usual.contains(own) && own.contains(host));
            for prefix in usual.iter().chain(own.as_ref()) {
                self.set(&address, prefix);
            }
        }
        self.logins.push((username, password));
    }

    /// Every https address becomes one of ssh; a port can only be told for hosts that are known.
    fn force_ssh(&mut self, url: &str, options: &Options) {
        let user = &options.ssh_user;
        let host = Url::parse(url)
            .ok()
            .and_then(|url| url.host_str().map(str::to_owned));
        for scheme in ["https", "http"] {
            if let (Some(port), Some(host)) = (options.ssh_port, &host) {
                self.set(
                    &format!("url.ssh://{user}@{host}:{port}/.insteadOf"),
                    &format!("{scheme}://{host}/"),
                );
            }
            self.set(
                &format!("url.ssh://{user}@.insteadOf"),
                &format!("{scheme}://"),
            );
        }
    }

    fn set(&mut self, key: &str, value: &str) {
        self.config.push((key.to_owned(), value.to_owned()));
    }

    /// Whether there were credentials at all.
    pub(super) fn are_given(&self) -> bool {
        !self.logins.is_empty() || self.key.is_some()
    }

    /// Names the credentials without telling them: what was fetched with others is not handed out.
    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Sets the environment of one call; `more` is configuration for this call alone, `protocols` replaces those that
    /// are allowed.
    pub(super) fn apply(
        &self,
        command: &mut Command,
        more: &[(String, String)],
        protocols: Option<&str>,
    ) {
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
        command.env("GIT_ALLOW_PROTOCOL", protocols.unwrap_or(self.protocols));
        command.env("GIT_SSH_COMMAND", &self.ssh);
        command.env("GIT_SSH_VARIANT", "ssh");
        command.env("LC_ALL", "C");
        let config = || self.config.iter().chain(more);
        command.env("GIT_CONFIG_COUNT", config().count().to_string());
        for (number, (key, value)) in config().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{number}"), key);
            command.env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        for (number, (username, password)) in self.logins.iter().enumerate() {
            command
                .env(format!("{USERNAME}_{number}"), username.expose_secret())
                .env(format!("{PASSWORD}_{number}"), password.expose_secret());
        }
    }
}

/// Whether an address is a path of this machine.
pub(super) fn is_local(url: &str) -> bool {
    url.starts_with('/') || url.starts_with('.') || url.starts_with("file:")
}

/// Who logs in where, the first that fits a place first: the binding's Secret, the configuration, the recorded address.
fn logins(
    wanted: &Checkout,
    mounted: &Mounted,
    options: &Options,
) -> Vec<(String, SecretString, SecretString)> {
    let mut logins = Vec::new();
    let own = place(&wanted.url);
    let is_own = |host: &str| {
        let name = own.as_deref().and_then(|own| own.split("://").last());
        name.is_some_and(|name| name == host || name.split(':').next() == Some(host))
    };
    // Only the repository's own host is told: an address in .gitmodules must not collect the password.
    let mut first = mounted
        .login
        .clone()
        .filter(|_| mounted.host.as_deref().is_none_or(is_own));
    let mut more = Vec::new();
    for login in &options.logins {
        let pair = (login.username.clone(), login.password.clone());
        match &login.host {
            None => first = first.or(Some(pair)),
            Some(host) => more.push((host.trim_end_matches('/').to_owned(), pair)),
        }
    }
    // The recorded address has the last word where nobody else has one.
    let named = more
        .iter()
        .any(|(host, _)| is_own(host.split("://").last().unwrap_or(host)));
    let recorded = wanted
        .credentials
        .as_ref()
        .filter(|_| !named)
        .map(|own| (own.username.clone(), own.password.clone()));
    if let (Some(place), Some((username, password))) = (&own, first.or(recorded)) {
        logins.push((place.clone(), username, password));
    }
    for (host, (username, password)) in more {
        logins.push((host, username, password));
    }
    logins
}

/// `https://host:port` of an address of HTTP, the bare host of one of ssh.
fn place(url: &str) -> Option<String> {
    over_http(url).or_else(|| over_ssh(url))
}

/// How an ssh address begins, up to the path: with its user and port.
fn ssh_prefix(url: &str) -> Option<String> {
    over_ssh(url)?;
    match url.strip_prefix("ssh://") {
        Some(rest) => Some(format!("ssh://{}/", rest.split('/').next()?)),
        None => Some(format!("{}:", url.split_once(':')?.0)),
    }
}

/// The header in which some servers want a password.
fn header(scheme: Scheme, password: &SecretString) -> Option<String> {
    let password = password.expose_secret();
    match scheme {
        Scheme::Asked => None,
        Scheme::Bearer => Some(format!("Authorization: Bearer {password}")),
        Scheme::Azure => Some(format!(
            "Authorization: Basic {}",
            STANDARD.encode(format!(":{password}"))
        )),
    }
}

fn fixed(stall: Duration) -> Vec<(String, String)> {
    let stall = stall.as_secs().max(1).to_string();
    [
        ("safe.directory", "*"),
        ("core.hooksPath", "/dev/null"),
        ("core.fsmonitor", "false"),
        ("credential.helper", ""),
        ("advice.detachedHead", "false"),
        ("init.defaultBranch", "main"),
        ("gc.auto", "0"),
        ("maintenance.auto", "false"),
        // Less than 1 kB/s for so long: the transfer stands still.
        ("http.lowSpeedLimit", "1000"),
        ("http.lowSpeedTime", stall.as_str()),
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

/// The host of an ssh address.
fn over_ssh(url: &str) -> Option<String> {
    let authority = match url.strip_prefix("ssh://") {
        Some(rest) => rest.split('/').next()?,
        None if url.contains("://") || is_local(url) => return None,
        None => url.split_once(':')?.0,
    };
    let host = authority.rsplit('@').next()?;
    host.split(':').next().map(str::to_owned)
}

/// The mounted Secret.
#[derive(Default)]
struct Mounted {
    login: Option<(SecretString, SecretString)>,
    key: Option<SecretString>,
    /// The one host that is told, if the Secret names one.
    host: Option<String>,
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
            host: secret(folder, "host")?.map(|host| host.expose_secret().to_owned()),
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
mod tests;
