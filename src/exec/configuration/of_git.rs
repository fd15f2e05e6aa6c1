//! What the configuration says about git: who logs in where, and how addresses are read.

use serde_json::Value;

use crate::config::agent::Agent;
use crate::exec::failure::masked;
use crate::exec::git::{Login, Options, Scheme};

const FETCH_ARGS: &str = "agent.git_fetch_args";
const SSH_PORT: &str = "agent.force_git_ssh_port";
const HOST: &str = "agent.git_host";
const EXTRA_LOGINS: &str = "agent.git.extra_credentials";
/// What every generated file says of it: nobody has chosen that.
const GENERATED: [&str; 3] = ["--all", "--tags", "--recurse-submodules"];
/// Arguments that say what is fetched: that is the wanted commit, and no more.
const WHAT: [&str; 8] = [
    "--all",
    "--multiple",
    "--recurse-submodules",
    "--depth",
    "--deepen",
    "--shallow-since",
    "--shallow-exclude",
    "--unshallow",
];
/// Arguments that are followed by their value, unless it stands behind `=`.
const WITH_VALUE: [&str; 7] = [
    "-j",
    "--jobs",
    "-o",
    "--server-option",
    "--filter",
    "--negotiation-tip",
    "--upload-pack",
];

/// All of it.
pub(super) fn options(agent: &Agent) -> Options {
    let default = Options::default();
    let scheme = agent.text("agent.translate_ssl_replacement_scheme");
    let translated = scheme.unwrap_or_else(|| "https".to_owned());
    Options {
        logins: logins(agent),
        scheme: if agent.flag("agent.git_use_ms_entra_token") {
            Scheme::Bearer
        } else if agent.flag("agent.git_use_azure_pat") {
            Scheme::Azure
        } else {
            Scheme::Asked
        },
        force_ssh: agent.flag("agent.force_git_ssh_protocol"),
        ssh_user: agent
            .text("agent.force_git_ssh_user")
            .unwrap_or(default.ssh_user),
        ssh_port: ssh_port(agent),
        translate_ssh: Some(translated).filter(|_| agent.flag("agent.translate_ssh")),
        fetch_args: fetch_args(agent).0,
        cache: agent.flag("agent.vcs_cache.enabled"),
    }
}

/// What the log says of settings that have no effect.
pub(super) fn set_aside(agent: &Agent) -> Vec<String> {
    let mut told = Vec::new();
    let (_, without) = fetch_args(agent);
    if !without.is_empty() {
        let (from, without) = (agent.origin(FETCH_ARGS), masked(&without.join(" ")));
        told.push(format!(
            "{without} of {FETCH_ARGS} ({from}) has no effect: the wanted commit alone is fetched"
        ));
    }
    let blank = |value: &Value| value.as_str().is_some_and(|text| text.trim().is_empty());
    let named = |key: &str| agent.get(key).filter(|value| !blank(value));
    if let (Some(value), None) = (named(SSH_PORT), ssh_port(agent)) {
        let from = agent.origin(SSH_PORT);
        told.push(format!(
            "{SSH_PORT} ({from}) has no effect: {value} is not the number of a port"
        ));
    }
    if !names_a_host(agent) {
        let from = agent.origin(HOST);
        told.push(format!(
            "agent.git_pass has no effect: {HOST} ({from}) is not a text"
        ));
    }
    let from = agent.origin(EXTRA_LOGINS);
    match named(EXTRA_LOGINS) {
        None => {}
        Some(Value::Array(entries)) => {
            for (number, entry) in (1..).zip(entries) {
                if let Err(why) = extra_login(entry) {
                    told.push(format!(
                        "entry {number} of {EXTRA_LOGINS} ({from}) has no effect: {why}"
                    ));
                }
            }
        }
        Some(_) => told.push(format!(
            "{EXTRA_LOGINS} ({from}) has no effect: it is not a list"
        )),
    }
    told
}

fn ssh_port(agent: &Agent) -> Option<u16> {
    agent.text(SSH_PORT)?.trim().parse().ok()
}

/// Whether the host of the login can be read, if there is one. Without any, the password is for the host of whichever
/// repository a task names.
fn names_a_host(agent: &Agent) -> bool {
    !matches!(agent.get(HOST), Some(Value::Array(_) | Value::Object(_)))
}

/// User, password and host of an entry, or why it is none. Its values are never told: they may be secrets.
fn extra_login(entry: &Value) -> Result<(&str, &str, Option<&str>), String> {
    let text = |key: &str| match entry.get(key) {
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(Value::Null) | None => Ok(None),
        Some(_) => Err(format!("its {key} is not a text: put it in quotes")),
    };
    let needed = |key: &str| text(key)?.ok_or_else(|| format!("it has no {key}"));
    Ok((needed("user")?, needed("pass")?, text("host")?))
}

fn logins(agent: &Agent) -> Vec<Login> {
    let mut logins = Vec::new();
    let prefix = agent.flag("agent.git_host_match_prefix");
    // Of a host with a path only the host counts, unless beginnings of addresses are to be compared.
    let place = |host: String| {
        let host = host.trim().trim_end_matches('/').to_owned();
        let rest = host.split("://").last().unwrap_or(&host).to_owned();
        match rest.split_once('/') {
            Some((name, _)) if !prefix => name.to_owned(),
            _ => host,
        }
    };
    let password = agent.text("agent.git_pass");
    if let Some(password) = password.filter(|_| names_a_host(agent)) {
        logins.push(Login {
            username: agent
                .text("agent.git_user")
                .unwrap_or_else(|| "git".to_owned())
                .into(),
            password: password.into(),
            host: agent.text(HOST).map(place),
        });
    }
    let extra = agent.get(EXTRA_LOGINS);
    for entry in extra.and_then(Value::as_array).into_iter().flatten() {
        if let Ok((username, password, host)) = extra_login(entry) {
            logins.push(Login {
                username: username.to_owned().into(),
                password: password.to_owned().into(),
                host: host
                    .filter(|host| !host.trim().is_empty())
                    .map(|host| place(host.to_owned())),
            });
        }
    }
    logins
}

/// Arguments of `git fetch` that count, and those that do not.
fn fetch_args(agent: &Agent) -> (Vec<String>, Vec<String>) {
    let (mut kept, mut without) = (Vec::new(), Vec::new());
    let arguments = agent.list(FETCH_ARGS);
    if !agent.is_set(FETCH_ARGS) || arguments == GENERATED {
        return (kept, without);
    }
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let name = argument.split('=').next().unwrap_or_default();
        if !argument.starts_with('-') || WHAT.contains(&name) {
            without.push(argument);
            continue;
        }
        let value = WITH_VALUE.contains(&argument.as_str());
        kept.push(argument);
        if value {
            kept.extend(arguments.next());
        }
    }
    (kept, without)
}
