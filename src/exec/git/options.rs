//! What `clearml.conf` and its variables say about git (`protocol.md` §7.4, §8.2).

use secrecy::SecretString;

/// Who logs in where.
#[derive(Debug, Clone)]
pub struct Login {
    pub username: SecretString,
    pub password: SecretString,
    /// The host, or the beginning of an address without its scheme; `None`: the repository's own host.
    pub host: Option<String>,
}

/// How a password is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheme {
    /// As git asks for it.
    #[default]
    Asked,
    /// A token of Microsoft Entra: `Authorization: Bearer`.
    Bearer,
    /// A personal access token of Azure: `Authorization: Basic`, no user name.
    Azure,
}

/// Options of each checkout; the defaults are the agent's.
#[derive(Debug, Clone)]
pub struct Options {
    /// In their order: the first that fits a host counts.
    pub logins: Vec<Login>,
    pub scheme: Scheme,
    /// `agent.force_git_ssh_protocol`.
    pub force_ssh: bool,
    pub ssh_user: String,
    pub ssh_port: Option<u16>,
    /// With a password ssh addresses become those of this scheme; `None`: they stay.
    pub translate_ssh: Option<String>,
    /// Further arguments of `git fetch`.
    pub fetch_args: Vec<String>,
    /// `agent.vcs_cache.enabled`.
    pub cache: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            logins: Vec::new(),
            scheme: Scheme::Asked,
            force_ssh: false,
            ssh_user: "git".to_owned(),
            ssh_port: None,
            translate_ssh: Some("https".to_owned()),
            fetch_args: Vec::new(),
            cache: true,
        }
    }
}
