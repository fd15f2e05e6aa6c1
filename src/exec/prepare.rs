//! The init container: our programs, the login token and the task's code onto the pod's volume.
//!
//! It writes files and the spool, never the server: whether the task is ours to run is decided later, by the fence. A
//! failure that the task's user can act on is data for process 1, which reports it; one that concerns the pod alone
//! ends this container with an error, and the controller tries elsewhere.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::failure::Failure;
use super::git::GitSettings;
use super::output::Secrets;
use super::plan::Source;
use super::settings::Settings;
use super::spool::{Spool, shared_folder, write_shared};
use super::{certificates, configuration, diff, environment, git, handed_on, requirements};
use crate::api::{self, Client};
use crate::pod::{self, Brought, Prepared};
use crate::task::Task;

/// How long an unreachable server is waited for.
const SERVER_PATIENCE: Duration = Duration::from_secs(90);
/// Our programs beside this one; the first is this one under whatever name it was started.
const COMPANIONS: [&str; 2] = ["trainyard-glibc", "uv"];
const EXECUTABLE: u32 = 0o755;

/// What stops the pod before the task was touched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("could not copy {} to the pod's volume: {source}", path.display())]
    Copy { path: PathBuf, source: io::Error },
    #[error("could not write to the pod's volume at {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("could not read the task: {0}")]
    Server(api::Error),
    #[error("the task is gone from the server")]
    Deleted,
}

/// Prepares the pod's volume; two requests.
pub async fn run(settings: &Settings, client: &Client) -> Result<(), Error> {
    // The task may run as any user: what we make must be readable and the code writable for all of the pod.
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    let layout = &settings.layout;
    for folder in [layout.bin(), layout.code(), layout.spool()] {
        shared_folder(&folder).map_err(|source| Error::Write {
            path: folder,
            source,
        })?;
    }
    bring_programs(&layout.bin())?;
    certificates::bring(settings).map_err(|source| Error::Write {
        path: layout.certificates(),
        source,
    })?;
    let spool = Spool::open(&layout.spool()).map_err(|source| Error::Write {
        path: layout.spool(),
        source,
    })?;

    let until = Instant::now() + SERVER_PATIENCE;
    let token = api::retry(until, || client.token())
        .await
        .map_err(Error::Server)?;
    write(&layout.token(), token.expose_secret().as_bytes())?;
    let task = api::retry(until, || client.task(&settings.task))
        .await
        .map_err(Error::Server)?;
    let task = task.ok_or(Error::Deleted)?;

    let desk = Desk {
        settings,
        spool: &spool,
        secrets: secrets(settings, &token),
    };
    for note in &settings.notes {
        desk.note(note);
    }
    let (failure, code) = match bring_code(&desk, &task).await {
        Ok(code) => (None, code),
        Err(failure) => {
            tracing::warn!(%failure, "the task's code could not be prepared");
            (
                Some(desk.secrets.mask(failure.to_string())),
                Code::default(),
            )
        }
    };
    let code_root = layout.code().to_string_lossy().into_owned();
    let prepared = Prepared {
        version: pod::VERSION,
        failure,
        code_root,
        commit: code.commit,
        cached: code.cached,
        requirements: code.requirements,
    };
    let json = serde_json::to_vec(&prepared).map_err(|error| Error::Write {
        path: layout.prepared(),
        source: io::Error::other(error),
    })?;
    write(&layout.prepared(), &json)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write_shared(path, bytes).map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })
}

/// Copies this program, and its companions where the image has them, to where the task's container finds them.
fn bring_programs(bin: &Path) -> Result<(), Error> {
    let own = Path::new("/proc/self/exe");
    let own = fs::read_link(own).unwrap_or_else(|_| own.to_owned());
    copy(&own, &bin.join("trainyard"))?;
    let folder = own.parent().unwrap_or(Path::new("/"));
    for name in COMPANIONS {
        let companion = folder.join(name);
        if companion.is_file() {
            copy(&companion, &bin.join(name))?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let result = fs::remove_file(to)
        .or_else(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                Ok(())
            } else {
                Err(error)
            }
        })
        .and_then(|()| fs::copy(from, to))
        .and_then(|_| fs::set_permissions(to, fs::Permissions::from_mode(EXECUTABLE)));
    result.map_err(|source| Error::Copy {
        path: from.to_owned(),
        source,
    })
}

/// Keys, token and git credentials: nothing of it may stand in the log.
fn secrets(settings: &Settings, token: &SecretString) -> Secrets {
    let git = ["password", "token"].into_iter().filter_map(|key| {
        let value = fs::read_to_string(Path::new(pod::GIT_CREDENTIALS).join(key)).ok()?;
        Some(value.trim().to_owned())
    });
    settings.secrets(Some(token.expose_secret())).with(git)
}

/// Where remarks go.
struct Desk<'a> {
    settings: &'a Settings,
    spool: &'a Spool,
    secrets: Secrets,
}

impl Desk<'_> {
    fn note(&self, text: &str) {
        let noted = self
            .spool
            .note(&self.secrets.mask(text.to_owned()))
            .and_then(|()| self.spool.stamp(Timestamp::now().as_millisecond()));
        if let Err(error) = noted {
            tracing::warn!(%error, "could not write to the spool");
        }
    }
}

/// What was brought.
#[derive(Default)]
struct Code {
    /// The commit, if there is a repository.
    commit: Option<String>,
    requirements: Vec<Brought>,
    /// Bytes of the cache that repositories take.
    cached: u64,
}

/// Checks out the repository, lays the task's own text over it, and brings what it requires from git.
async fn bring_code(desk: &Desk<'_>, task: &Task) -> Result<Code, Failure> {
    let settings = desk.settings;
    let root = settings.layout.code();
    let agent = configuration::read(&settings.inherited)?;
    let conf = Path::new(pod::CLEARML_CONF);
    handed_on::hand_on(conf, &settings.layout.conf(), &settings.inherited)?;
    let plan = environment::planned(task, settings, &agent, root.clone())?;
    let git_options = configuration::git(&agent);
    let recorded = plan
        .checkout
        .as_ref()
        .and_then(|wanted| wanted.credentials.as_ref());
    let passwords = git_options.logins.iter().map(|login| &login.password);
    let passwords = passwords.chain(recorded.map(|recorded| &recorded.password));
    let passwords = passwords.map(|password| password.expose_secret().to_owned());
    let desk = &Desk {
        secrets: desk.secrets.clone().with(passwords),
        ..*desk
    };
    let present = |path: &str| Path::new(path).exists().then(|| PathBuf::from(path));
    let git_settings = GitSettings {
        credentials: present(pod::GIT_CREDENTIALS),
        known_hosts: present(pod::GIT_KNOWN_HOSTS),
        mirrors: settings.layout.repositories(),
        mirror_limit: settings.cache_limit,
        options: git_options,
        stall: settings.git_stall,
        trusted: certificates::for_programs(settings, pod::PREPARE).map_err(|error| {
            Failure::new(format!(
                "could not write the bundle of trusted certificates: {error}"
            ))
        })?,
        ..GitSettings::default()
    };
    let mut log = |line: &str| desk.note(line);
    let mut code = Code::default();
    if let Some(wanted) = &plan.checkout {
        let checked = git::checkout(wanted, &root, &git_settings, &mut log).await?;
        code.commit = Some(checked.commit);
    }
    match &plan.source {
        Source::None => {}
        Source::Patch(patch) => diff::apply(patch, &root, &git_settings.git, &mut log).await?,
        Source::Script { path, text } => {
            if let Some(remark) = diff::write_script(path, text, &root)? {
                desk.note(&remark);
            }
        }
    }
    let folder = settings.layout.requirements();
    code.requirements = requirements::bring(&plan, &git_settings, &folder, &mut log).await;
    code.cached = git::tidy(&git_settings, &mut log);
    Ok(code)
}
