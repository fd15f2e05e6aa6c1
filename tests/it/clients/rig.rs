//! What every flow runs in.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::server_world::{Program, keys};
use crate::shared::Shared;

/// The server of the tests that run now.
static SHARED: Shared<Server> = Shared::new();

/// What matplotlib keeps of this machine's fonts: it takes long to look at all of them.
static FONTS: Shared<TempDir> = Shared::new();

/// How long a flow may take, on a machine that others use too, before it is taken to stand still.
const LIMIT: Duration = Duration::from_secs(450);

/// The program under test, and where it keeps its data.
pub struct Server {
    pub program: Program,
    _data: TempDir,
}

impl Server {
    fn start() -> Self {
        let data = tempfile::tempdir().expect("temp folder");
        Self {
            program: Program::start(data.path()),
            _data: data,
        }
    }

    /// One that nobody else uses, for flows that look at all that there is.
    pub fn own() -> Arc<Self> {
        Arc::new(Self::start())
    }

    /// The one that flows share which do not disturb each other.
    pub fn shared() -> Arc<Self> {
        SHARED.get(Self::start)
    }
}

/// A virtual environment that `cargo xtask test` has made: the SDK's, the agent's, the old clients'.
pub fn python(variable: &str) -> PathBuf {
    let path = std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: it names a Python with the client; run these tests by `cargo xtask test --only clients::`")
    });
    PathBuf::from(path)
}

/// A client's folder, home and settings.
pub struct Flow {
    _server: Option<Arc<Server>>,
    folder: TempDir,
    fonts: Arc<TempDir>,
}

impl Flow {
    pub fn new(server: Arc<Server>) -> Self {
        let files = format!("{}/files", server.program.url);
        let flow = Self::of(&server.program, &files);
        Self {
            _server: Some(server),
            ..flow
        }
    }

    /// The same for a program that the test itself holds, and the address of its files.
    pub fn of(program: &Program, files: &str) -> Self {
        let folder = tempfile::tempdir().expect("temp folder");
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        for file in fs::read_dir(scripts).expect("flows are there").flatten() {
            // Copies, so that no flow sees the repository around its script.
            if file.path().extension() == Some(OsStr::new("py")) {
                fs::copy(file.path(), folder.path().join(file.file_name()))
                    .expect("flow is copied");
            }
        }
        let url = &program.url;
        let (key, secret) = keys(&program.data);
        // Without the last line the SDK forks while threads of its own run, and may stand still in the child.
        let settings = format!(
            "api {{\n  api_server: \"{url}\"\n  web_server: \"{url}\"\n  files_server: \"{files}\"\n  \
             credentials {{ access_key: \"{key}\", secret_key: \"{secret}\" }}\n}}\n\
             sdk.development.report_use_subprocess: false\n"
        );
        fs::write(folder.path().join("clearml.conf"), settings).expect("clearml.conf is written");
        Self {
            _server: None,
            folder,
            fonts: FONTS.get(|| tempfile::tempdir().expect("temp folder")),
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `python`, set up so that nothing of this machine's user is read or written.
    pub fn command(&self, program: &Path) -> Command {
        let folder = self.path();
        let mut command = Command::new(program);
        let beside = program.parent().unwrap_or(Path::new("/"));
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .current_dir(folder)
            .env("HOME", folder)
            .env("TMPDIR", folder)
            .env("PATH", format!("{}:{path}", beside.display()))
            .env("PYTHONPATH", folder)
            .env("PYTHONUNBUFFERED", "1")
            .env("CLEARML_CONFIG_FILE", folder.join("clearml.conf"))
            .env("TRAINS_CONFIG_FILE", folder.join("clearml.conf"))
            .env("CLEARML_CACHE_DIR", folder.join("cache"))
            .env("CLEARML_SUPPRESS_UPDATE_MESSAGE", "1")
            .env("MPLBACKEND", "agg")
            .env("MPLCONFIGDIR", self.fonts.path());
        for name in [
            "CLEARML_TASK_ID",
            "CLEARML_API_HOST",
            "CLEARML_API_ACCESS_KEY",
            "CLEARML_API_SECRET_KEY",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// Runs a flow of `tests/clients` to its end: it should say how many facts held.
    pub fn holds(&self, program: &Path, script: &str, environment: &[(&str, &OsStr)]) {
        let mut command = self.command(program);
        command.arg(self.path().join(script));
        command.envs(environment.iter().copied());
        let mut group = Group::start(&mut command, &self.path().join("output"));
        group.holds(script);
    }
}

/// How a child ended; without a status it ran out of time.
pub struct Ended {
    pub status: Option<ExitStatus>,
    pub output: String,
}

impl Ended {
    fn how(&self) -> String {
        self.status.map_or_else(
            || "did not end in time and was killed".to_owned(),
            |status| format!("ended with {status}"),
        )
    }
}

/// A child with all that it starts: killed together when the value goes.
pub struct Group {
    child: Child,
    log: PathBuf,
}

impl Group {
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = fs::File::create(log).expect("log file is made");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("log file is cloned"))
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} starts: {error}"));
        Self {
            child,
            log: log.to_owned(),
        }
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits for the end, but no longer than this.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return Some(status);
            }
            if Instant::now() > until {
                return None;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for a flow's end: it should say how many facts held.
    pub fn holds(&mut self, script: &str) {
        let ended = Ended {
            status: self.wait(LIMIT),
            output: self.log(),
        };
        let held = ended
            .output
            .lines()
            .find_map(|line| line.strip_prefix("HELD "));
        assert!(
            ended.status.is_some_and(|status| status.success()) && held.is_some(),
            "{script} {}:\n{}",
            ended.how(),
            ended.output
        );
        println!("{script}: {} facts held", held.unwrap_or_default());
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
