//! `trainyard init`: writes a `clearml.conf` once its keys have opened the server.
//!
//! What the server's page shows for new credentials is pasted, or comes on standard input; nothing secret is an argument.

use std::fs::{self, File};
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value, json};
use url::Url;

use super::{print_error, print_text};
use crate::api::{Client, Credentials, Settings};
use crate::config::conf::Document;
use crate::config::env::{self, Environment};

/// Largest text that is read.
const MOST: u64 = 1 << 20;

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Where to write. Default: what `CLEARML_CONFIG_FILE` names, else `~/clearml.conf`.
    #[arg(long, value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Replace the file if it is there.
    #[arg(long)]
    force: bool,
    /// Address of the API server, if the credentials do not name it.
    #[arg(long, value_name = "URL")]
    api_server: Option<String>,
    /// Where artifacts and models go by default.
    #[arg(long, value_name = "URI")]
    output_uri: Option<String>,
    /// User name for git over https.
    #[arg(long, value_name = "NAME")]
    git_user: Option<String>,
    /// File with the password or token for git over https.
    #[arg(long, value_name = "FILE")]
    git_pass_file: Option<PathBuf>,
    /// A further package index; may be given several times.
    #[arg(long, value_name = "URL")]
    extra_index_url: Vec<String>,
    /// Do not ask the server whether the keys are right.
    #[arg(long)]
    no_check: bool,
}

pub(super) fn main(flags: &Flags) -> ExitCode {
    match run(flags, &Environment::read()) {
        Ok(path) => print_text(&format!("wrote {}\n", path.display())),
        Err(message) => {
            print_error(&message);
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags, environment: &Environment) -> Result<PathBuf, String> {
    let path = place(flags, environment);
    if path.exists() && !flags.force {
        return Err(format!(
            "{} is there: it is left as it is; --force replaces it",
            path.display()
        ));
    }
    let mut wanted = Wanted::of(flags)?;
    let asked = io::stdin().is_terminal();
    let text = if asked { pasted()? } else { all()? };
    wanted.credentials(&text)?;
    if asked {
        wanted.ask()?;
    }
    if !flags.no_check {
        check(&wanted)?;
    }
    write(&path, &wanted.text(), flags.force)
        .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    Ok(path)
}

fn place(flags: &Flags, environment: &Environment) -> PathBuf {
    let named = environment.alias(env::CONFIG_FILE);
    flags
        .config_file
        .clone()
        .or_else(|| named.map(|(_, path)| PathBuf::from(path)))
        .unwrap_or_else(|| Path::new(environment.get("HOME").unwrap_or("/")).join("clearml.conf"))
}

/// What goes into the file.
#[derive(Default)]
struct Wanted {
    api_server: String,
    web_server: String,
    files_server: String,
    access_key: String,
    secret_key: String,
    output_uri: String,
    git_user: String,
    git_pass: String,
    extra_index_url: Vec<String>,
}

impl Wanted {
    fn of(flags: &Flags) -> Result<Self, String> {
        let password = match &flags.git_pass_file {
            None => String::new(),
            Some(file) => fs::read_to_string(file)
                .map_err(|error| format!("{} cannot be read: {error}", file.display()))?,
        };
        Ok(Self {
            api_server: flags.api_server.clone().unwrap_or_default(),
            output_uri: flags.output_uri.clone().unwrap_or_default(),
            git_user: flags.git_user.clone().unwrap_or_default(),
            git_pass: password.trim().to_owned(),
            extra_index_url: flags.extra_index_url.clone(),
            ..Self::default()
        })
    }

    /// Takes over what the server's page shows: `api { api_server: …, credentials { … } }`, or the inner part alone.
    fn credentials(&mut self, text: &str) -> Result<(), String> {
        let document = Document::read(text, &|_| None)
            .map_err(|error| format!("the credentials cannot be read: {error}"))?;
        let find = |key: &str| {
            let value = document
                .get(&format!("api.{key}"))
                .or_else(|| document.get(key));
            value.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        self.access_key = find("credentials.access_key");
        self.secret_key = find("credentials.secret_key");
        if self.access_key.is_empty() || self.secret_key.is_empty() {
            return Err("no credentials { access_key, secret_key } are there: copy them from the server's page, \
                Settings, Workspace, Create new credentials"
                .to_owned());
        }
        let named = find("api_server");
        if self.api_server.is_empty() {
            self.api_server = named;
        }
        if self.api_server.is_empty() {
            return Err("no api_server is there: name it by --api-server".to_owned());
        }
        let or_derived = |named: String, word: &str, port: u16| {
            Some(named)
                .filter(|named| !named.is_empty())
                .or_else(|| derived(&self.api_server, word, port))
                .unwrap_or_default()
        };
        self.web_server = or_derived(find("web_server"), "app", 8080);
        self.files_server = or_derived(find("files_server"), "files", 8081);
        Ok(())
    }

    /// Asks a person for the rest.
    fn ask(&mut self) -> Result<(), String> {
        for (question, answer) in [
            (
                "Where artifacts go by default (empty: the files server)",
                &mut self.output_uri,
            ),
            (
                "User name for git over https (empty: none)",
                &mut self.git_user,
            ),
        ] {
            if answer.is_empty() {
                *answer = line(question)?;
            }
        }
        if !self.git_user.is_empty() && self.git_pass.is_empty() {
            self.git_pass = line("Password or token for git")?;
        }
        while self.extra_index_url.is_empty() {
            let index = line("A further package index (empty: none)")?;
            if index.is_empty() {
                break;
            }
            self.extra_index_url.push(index);
        }
        Ok(())
    }

    /// JSON is a `clearml.conf`.
    fn text(&self) -> String {
        let mut agent = Map::new();
        if !self.git_user.is_empty() || !self.git_pass.is_empty() {
            agent.insert("git_user".to_owned(), json!(self.git_user));
            agent.insert("git_pass".to_owned(), json!(self.git_pass));
        }
        if !self.extra_index_url.is_empty() {
            agent.insert(
                "package_manager".to_owned(),
                json!({ "extra_index_url": self.extra_index_url }),
            );
        }
        let mut conf = json!({ "api": {
            "api_server": self.api_server,
            "web_server": self.web_server,
            "files_server": self.files_server,
            "credentials": { "access_key": self.access_key, "secret_key": self.secret_key },
        }});
        if !self.output_uri.is_empty() {
            conf["sdk"] = json!({ "development": { "default_output_uri": self.output_uri } });
        }
        if !agent.is_empty() {
            conf["agent"] = Value::Object(agent);
        }
        format!("# Written by trainyard init.\n{conf:#}\n")
    }
}

/// The page or the files of a server by its API address (`protocol.md` §8.1).
fn derived(api: &str, word: &str, port: u16) -> Option<String> {
    let mut url = Url::parse(api).ok()?;
    let host = url.host_str()?.to_owned();
    if let Some(rest) = host.strip_prefix("api.") {
        url.set_host(Some(&format!("{word}.{rest}"))).ok()?;
    } else if url.port() == Some(8008) {
        url.set_port(Some(port)).ok()?;
    } else {
        return None;
    }
    Some(url.as_str().trim_end_matches('/').to_owned())
}

fn pasted() -> Result<String, String> {
    say(
        "Paste the new credentials of the server's page (Settings, Workspace), then an empty line:\n",
    );
    let mut text = String::new();
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let open = text.matches('{').count();
        let whole = open > 0 && open == text.matches('}').count();
        if line.trim().is_empty() && (whole || text.trim().is_empty()) {
            if whole {
                break;
            }
            continue;
        }
        text += &line;
        text.push('\n');
    }
    Ok(text)
}

fn all() -> Result<String, String> {
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(MOST)
        .read_to_string(&mut text)
        .map_err(|error| format!("standard input cannot be read: {error}"))?;
    Ok(text)
}

fn line(question: &str) -> Result<String, String> {
    say(&format!("{question}: "));
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| error.to_string())?;
    Ok(answer.trim().to_owned())
}

fn say(text: &str) {
    let mut out = io::stderr();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Whether the server knows the keys.
fn check(wanted: &Wanted) -> Result<(), String> {
    let credentials = Credentials::Keys {
        access_key: wanted.access_key.clone().into(),
        secret_key: wanted.secret_key.clone().into(),
        token: None,
    };
    let server = &wanted.api_server;
    let settings = Settings::new(server, credentials, "trainyard-init");
    let client = Client::new(settings).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(client.token()).map(drop).map_err(|error| {
        format!("{server} does not take these keys: {error}; nothing was written (--no-check writes all the same)")
    })
}

/// For its owner's eyes alone from the first byte on; whole, or not at all.
fn write(path: &Path, text: &str, replace: bool) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| {
        if replace {
            fs::rename(&new, path)
        } else {
            // Unlike a rename this fails where a file has come to be in the meantime.
            fs::hard_link(&new, path)
        }
    });
    let _ = fs::remove_file(&new);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s53_other_addresses_follow_from_the_servers() {
        for (api, web, files) in [
            (
                "https://api.clear.example",
                "https://app.clear.example",
                "https://files.clear.example",
            ),
            (
                "http://10.0.0.1:8008",
                "http://10.0.0.1:8080",
                "http://10.0.0.1:8081",
            ),
        ] {
            assert_eq!(derived(api, "app", 8080).as_deref(), Some(web));
            assert_eq!(derived(api, "files", 8081).as_deref(), Some(files));
        }
        assert_eq!(derived("https://clear.example", "app", 8080), None);
    }

    #[test]
    fn s53_the_servers_block_is_understood_and_comes_back() {
        let mut wanted = Wanted {
            git_user: "me".into(),
            git_pass: "a\"b".into(),
            extra_index_url: vec!["https://index/simple".into()],
            output_uri: "s3://bucket".into(),
            ..Wanted::default()
        };
        let block = "api {\n  web_server: https://app.x\n  api_server: https://api.x\n  credentials {\n    \"access_key\" = \"A\"\n    \"secret_key\" = \"S\"\n  }\n}";
        wanted.credentials(block).unwrap();
        let read = Document::read(&wanted.text(), &|_| None).unwrap();
        let text = |key: &str| {
            read.get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        assert_eq!(text("api.api_server"), "https://api.x");
        assert_eq!(text("api.files_server"), "https://files.x");
        assert_eq!(text("api.credentials.secret_key"), "S");
        assert_eq!(text("agent.git_pass"), "a\"b");
        assert_eq!(text("sdk.development.default_output_uri"), "s3://bucket");
        assert!(
            Wanted::default()
                .credentials("api { api_server: x }")
                .is_err()
        );
    }
}
