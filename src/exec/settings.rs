//! What the pod was told: the one place of the executor that reads environment variables.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::git;
use super::output::Secrets;
use crate::pod;
use crate::task::{Attempt, QueueId, TaskId, WorkerId};

/// Moves everything under [`pod::ROOT`] elsewhere, so that tests need no root and no `/trainyard`.
const ROOT: &str = "TRAINYARD_ROOT";
/// The termination message file, if it is not the default of Kubernetes.
const TERMINATION_LOG: &str = "TRAINYARD_TERMINATION_LOG";
/// Shortens the time after which a transfer of git counts as standing still, so that tests need not wait for it.
const GIT_STALL: &str = "TRAINYARD_GIT_STALL_SECONDS";
/// Where Kubernetes reads a container's last words.
const DEFAULT_TERMINATION_LOG: &str = "/dev/termination-log";
/// Set by the static program when it hands over to the one that can load NVML: once is enough.
pub const LINK: &str = "TRAINYARD_LINK";

/// Our variables, and the one of them that the user's process may see.
pub const OWN_PREFIX: &str = "TRAINYARD_";

const DEFAULT_GRACE: Duration = Duration::from_secs(30);
const CALLBACK_MOST: Duration = Duration::from_mins(30);
const DEFAULT_REPORT_PERIOD: Duration = Duration::from_secs(30);

/// The pod was not described as the executor expects it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "environment variable {0} is not set: this program is started by trainyard's controller"
    )]
    Missing(&'static str),
    #[error("environment variable {name} has the value {value:?}: {expected}")]
    Invalid {
        name: &'static str,
        value: String,
        expected: &'static str,
    },
}

/// Everything that the controller told this pod.
#[derive(Clone)]
pub struct Settings {
    pub layout: Layout,
    pub task: TaskId,
    pub attempt: Attempt,
    pub pending_queue: QueueId,
    pub worker: WorkerId,
    pub grace: Duration,
    /// How long Kubernetes waits for the pod's end.
    pub pod_grace: Duration,
    pub manager: String,
    pub index_url: Option<String>,
    /// Largest size of the cache in bytes, if it outlives the pod.
    pub cache_limit: Option<u64>,
    pub setup_script: Option<String>,
    pub post_script: Option<String>,
    /// Whether the task may bring a setup script of its own.
    pub task_setup_allowed: bool,
    pub report_period: Duration,
    pub gpu: String,
    pub node: Option<String>,
    pub api_host: String,
    pub web_host: Option<String>,
    pub files_host: Option<String>,
    /// The HTTP proxy on the way to the server.
    pub proxy: Option<String>,
    pub access_key: SecretString,
    pub secret_key: SecretString,
    pub termination_log: PathBuf,
    /// Set if this process was already chosen for the image's C library.
    pub link: Option<String>,
    /// What the task asked for and does not get, for its log.
    pub notes: Vec<String>,
    /// How long a transfer of git may stand still.
    pub git_stall: Duration,
    /// Longest time that an abort callback of the SDK may take.
    pub callback_most: Duration,
    /// Folder whose disk counts in the statistics; absent: the pod's volume.
    pub disk: Option<PathBuf>,
    /// Whether the end of a run that fails by its own fault is left to the controller, which tries it again.
    pub tried_again: bool,
    /// Whether the task will have devices that this pod has not.
    pub without_devices: bool,
    /// What runs instead of the task's code, with references to variables.
    pub entrypoint: Option<Vec<String>>,
    /// All variables as they were inherited, for the user's process.
    pub inherited: BTreeMap<String, String>,
}

impl Settings {
    /// Reads the environment of this process; values that are no UTF-8 are passed on with replacements.
    pub fn from_environment() -> Result<Self, Error> {
        let inherited = std::env::vars_os()
            .map(|(name, value)| {
                (
                    name.to_string_lossy().into_owned(),
                    value.to_string_lossy().into_owned(),
                )
            })
            .collect();
        Self::from_variables(inherited)
    }

    /// The same from variables that were read elsewhere.
    pub fn from_variables(inherited: BTreeMap<String, String>) -> Result<Self, Error> {
        use pod::env;
        let find = |name: &str| {
            inherited
                .get(name)
                .filter(|value| !value.is_empty())
                .cloned()
        };
        let need = |name| find(name).ok_or(Error::Missing(name));
        let grace = seconds(env::GRACE, find(env::GRACE), DEFAULT_GRACE)?;
        let least = grace.saturating_add(pod::GRACE_MARGIN);
        Ok(Self {
            layout: Layout::of(&inherited),
            task: parse(
                env::TASK_ID,
                need(env::TASK_ID)?,
                "expected 32 lower-case hexadecimal digits",
            )?,
            attempt: Attempt(parse(
                env::ATTEMPT,
                need(env::ATTEMPT)?,
                "expected a positive number",
            )?),
            pending_queue: parse(
                env::PENDING_QUEUE,
                need(env::PENDING_QUEUE)?,
                "expected 32 lower-case hexadecimal digits",
            )?,
            worker: WorkerId(need(env::WORKER)?),
            grace,
            pod_grace: seconds(env::POD_GRACE, find(env::POD_GRACE), least)?,
            manager: find(env::MANAGER).unwrap_or_else(|| "auto".to_owned()),
            index_url: find(env::INDEX_URL),
            cache_limit: find(env::CACHE_LIMIT)
                .map(|limit| parse(env::CACHE_LIMIT, limit, "expected a number of bytes"))
                .transpose()?,
            setup_script: find(env::SETUP_SCRIPT),
            post_script: find(env::POST_SCRIPT),
            task_setup_allowed: find(env::TASK_SETUP_SCRIPT).as_deref() == Some("allow"),
            report_period: seconds(
                env::REPORT_PERIOD,
                find(env::REPORT_PERIOD),
                DEFAULT_REPORT_PERIOD,
            )?
            .max(Duration::from_secs(1)),
            gpu: find(env::GPU).unwrap_or_else(|| "auto".to_owned()),
            node: find(env::NODE),
            api_host: need(env::API_HOST)?,
            web_host: find(env::WEB_HOST),
            files_host: find(env::FILES_HOST),
            proxy: find(env::SERVER_PROXY),
            access_key: SecretString::from(need(env::ACCESS_KEY)?),
            secret_key: SecretString::from(need(env::SECRET_KEY)?),
            termination_log: PathBuf::from(
                find(TERMINATION_LOG).unwrap_or_else(|| DEFAULT_TERMINATION_LOG.to_owned()),
            ),
            link: find(LINK),
            notes: find(env::NOTES)
                .map(|notes| notes.lines().map(str::to_owned).collect())
                .unwrap_or_default(),
            git_stall: seconds(GIT_STALL, find(GIT_STALL), git::STALL)?,
            callback_most: CALLBACK_MOST,
            disk: None,
            tried_again: find(env::ON_FAILURE).as_deref() == Some("controller"),
            without_devices: find(env::DEVICES).as_deref() == Some("left-out"),
            entrypoint: find(env::ENTRYPOINT).map(words).transpose()?,
            inherited,
        })
    }

    /// Values that no log line of this task may show; the token is known once `prepare` has logged in.
    pub fn secrets(&self, token: Option<&str>) -> Secrets {
        let keys = [&self.access_key, &self.secret_key].map(|key| key.expose_secret().to_owned());
        Secrets::new(keys.into_iter().chain(token.map(str::to_owned)))
    }
}

fn parse<T: std::str::FromStr>(
    name: &'static str,
    value: String,
    expected: &'static str,
) -> Result<T, Error> {
    value.parse().map_err(|_| Error::Invalid {
        name,
        value,
        expected,
    })
}

fn words(list: String) -> Result<Vec<String>, Error> {
    serde_json::from_str(&list).map_err(|_| Error::Invalid {
        name: pod::env::ENTRYPOINT,
        value: list,
        expected: "expected a list of texts as JSON",
    })
}

fn seconds(
    name: &'static str,
    value: Option<String>,
    default: Duration,
) -> Result<Duration, Error> {
    let Some(value) = value else {
        return Ok(default);
    };
    parse(name, value, "expected a whole number of seconds").map(Duration::from_secs)
}

/// Inherited variables may hold secrets of any kind, so none is shown.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("task", &self.task)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// Where things are on the pod's volume; see the constants of [`pod`] for what they are.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The layout that these variables tell.
    pub fn of(variables: &BTreeMap<String, String>) -> Self {
        let told = variables.get(ROOT).filter(|root| !root.is_empty());
        Self::new(told.map_or(pod::ROOT, String::as_str))
    }

    fn at(&self, path: &str) -> PathBuf {
        let below = path.strip_prefix(pod::ROOT).unwrap_or(path);
        self.root.join(below.trim_start_matches('/'))
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn bin(&self) -> PathBuf {
        self.at(pod::BIN)
    }

    pub fn code(&self) -> PathBuf {
        self.at(pod::CODE)
    }

    pub fn cache(&self) -> PathBuf {
        self.at(pod::CACHE)
    }

    /// The configuration that `prepare` has handed on.
    pub fn conf(&self) -> PathBuf {
        self.at(pod::HANDED_CONF)
    }

    pub fn requirements(&self) -> PathBuf {
        self.at(pod::REQUIREMENTS)
    }

    /// Where the cache's repositories are, if the pod has a cache that outlives it.
    pub fn repositories(&self) -> Option<PathBuf> {
        let moved = self.root.join("repositories");
        let mounted = Path::new(pod::GIT_CACHE);
        [mounted, &moved]
            .into_iter()
            .find(|folder| folder.is_dir())
            .map(Path::to_owned)
    }

    pub fn spool(&self) -> PathBuf {
        self.at(pod::SPOOL)
    }

    pub fn prepared(&self) -> PathBuf {
        self.at(pod::PREPARED)
    }

    pub fn token(&self) -> PathBuf {
        self.at(pod::TOKEN)
    }

    pub fn fence(&self) -> PathBuf {
        self.at(pod::FENCE)
    }

    /// Appears when the run must end; says until when.
    pub fn deadline(&self) -> PathBuf {
        self.root.join("deadline")
    }

    /// Where a setup script leaves the variables that it has exported.
    pub fn exports(&self) -> PathBuf {
        self.root.join("exports")
    }

    /// Certificates that our image trusts, for task images that have none.
    pub fn certificates(&self) -> PathBuf {
        self.root.join("certificates.crt")
    }

    /// What one of the containers trusts, for its programs.
    pub fn bundle(&self, role: &str) -> PathBuf {
        self.root.join(format!("trusted-by-{role}.crt"))
    }

    /// Home folder of a user who has none that can be written.
    pub fn home(&self) -> PathBuf {
        self.root.join("home")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(change: &[(&str, &str)]) -> BTreeMap<String, String> {
        let mut all = vec![
            ("TRAINYARD_TASK_ID", "0123456789abcdef0123456789abcdef"),
            ("TRAINYARD_ATTEMPT", "2"),
            (
                "TRAINYARD_PENDING_QUEUE",
                "fedcba9876543210fedcba9876543210",
            ),
            (
                "TRAINYARD_WORKER",
                "c:ns/b:0123456789abcdef0123456789abcdef:2",
            ),
            ("CLEARML_API_HOST", "http://api"),
            ("CLEARML_API_ACCESS_KEY", "ACCESS-KEY"),
            ("CLEARML_API_SECRET_KEY", "SECRET-KEY"),
        ];
        for (name, value) in change {
            all.retain(|(known, _)| known != name);
            all.push((name, value));
        }
        all.into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn a_pod_described_in_full_is_understood() {
        let settings =
            Settings::from_variables(variables(&[("TRAINYARD_GRACE_SECONDS", "5")])).unwrap();
        assert_eq!(settings.attempt, Attempt(2));
        assert_eq!(settings.grace, Duration::from_secs(5));
        assert_eq!(settings.pod_grace, Duration::from_secs(35));
        assert_eq!(settings.report_period, DEFAULT_REPORT_PERIOD);
        assert_eq!(settings.layout.spool(), Path::new(pod::SPOOL));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let error = Settings::from_variables(variables(&[("TRAINYARD_WORKER", "")])).unwrap_err();
        assert_eq!(error, Error::Missing("TRAINYARD_WORKER"));
        let error =
            Settings::from_variables(variables(&[("TRAINYARD_ATTEMPT", "two")])).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("TRAINYARD_ATTEMPT has the value \"two\""),
            "{error}"
        );
    }

    #[test]
    fn a_command_in_place_of_the_code_is_a_list_of_texts() {
        let of = |value: &str| {
            let settings = Settings::from_variables(variables(&[("TRAINYARD_ENTRYPOINT", value)]));
            settings.map(|settings| settings.entrypoint)
        };
        assert_eq!(of("").unwrap(), None);
        assert_eq!(of("[]").unwrap(), Some(Vec::new()));
        let words = ["/run".to_owned(), "a b".to_owned()];
        assert_eq!(of(r#"["/run","a b"]"#).unwrap(), Some(words.to_vec()));
        let error = of("/run").unwrap_err().to_string();
        assert!(error.contains("a list of texts as JSON"), "{error}");
    }

    #[test]
    fn another_root_moves_every_path() {
        let settings =
            Settings::from_variables(variables(&[("TRAINYARD_ROOT", "/tmp/pod")])).unwrap();
        let layout = &settings.layout;
        for path in [
            layout.bin(),
            layout.code(),
            layout.spool(),
            layout.prepared(),
            layout.token(),
            layout.fence(),
        ] {
            assert!(
                path.starts_with("/tmp/pod") && path != Path::new("/tmp/pod"),
                "{}",
                path.display()
            );
        }
    }

    #[test]
    fn keys_are_masked_and_never_shown_in_debug_output() {
        let settings = Settings::from_variables(variables(&[])).unwrap();
        assert_eq!(
            settings
                .secrets(Some("TOKEN-1"))
                .mask("SECRET-KEY TOKEN-1".into()),
            "**** ****"
        );
        let shown = format!(
            "{settings:?} {:?} {:?}",
            settings.access_key, settings.secret_key
        );
        assert!(!shown.contains("KEY"), "{shown}");
    }
}
