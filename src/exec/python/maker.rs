//! Makes one environment: what the image lacks, and nothing that it has.
//!
//! uv by itself does not see the packages that an image brings and would install all of them again. So it is asked
//! first what it would change in the image's own Python (`--dry-run`), and just that goes into the environment: the
//! image's PyTorch stays the one that runs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::process::Command;

use super::interpreter::Interpreter;
use super::list::{self, List};
use super::store::{Place, Store};
use super::{Python, PythonSettings, explain, index};
use crate::exec::failure::{Failure, masked};
use crate::exec::tool::{self, Ended, Log};

/// Time for a question to uv that asks no index.
const QUICK: Duration = Duration::from_mins(1);

/// What is made of what.
pub(super) struct Maker<'a> {
    pub settings: &'a PythonSettings,
    pub list: &'a List,
    pub interpreter: &'a Interpreter,
    /// Install with pip.
    pub pip: bool,
    /// Relative paths in the list start here.
    pub working_dir: &'a Path,
}

impl Maker<'_> {
    /// Finds the environment, or makes it.
    pub(super) async fn make(&self, log: &mut Log<'_>) -> Result<Python, Failure> {
        let begun = Instant::now();
        let store = Store::open(&self.settings.cache, &self.settings.own, log);
        let key = self.list.key(&self.surroundings());
        if let Some(python) = key.as_deref().and_then(|key| store.ready(key)).map(found) {
            log("the Python environment is in the cache");
            return Ok(python);
        }
        if let Some(python) = self.in_the_image(&store, log).await {
            return Ok(python);
        }
        let place = store.place(key.as_deref(), log).await?;
        // Another task may have made it while we waited for the lock.
        let shared = key.as_deref().filter(|_| place.is_shared());
        if let Some(python) = shared.and_then(|key| store.ready(key)).map(found) {
            log("another task has just made the Python environment");
            return Ok(python);
        }
        let count = self.list.count();
        let version = &self.interpreter.version;
        log(&format!(
            "making an environment for Python {version}: {count} requirements"
        ));
        let installed = self.build(&store, &place, log).await?;
        if place.is_shared() {
            // A task that is run again carries what came of it (`features.md` A58): the same environment serves it.
            let frozen = List::of_text(&installed.join("\n")).key(&self.surroundings());
            store.keep(&place, &installed, frozen.as_deref());
        }
        let seconds = begun.elapsed().as_secs_f64();
        log(&format!(
            "the Python environment is ready after {seconds:.1} s"
        ));
        let environment = place.folder().to_owned();
        Ok(Python {
            interpreter: Some(environment.join("bin/python")),
            environment: Some(environment),
            installed: Some(installed),
            reused: false,
        })
    }

    /// What else decides on the content of an environment.
    fn surroundings(&self) -> String {
        let installer = if self.pip { "pip" } else { "uv" };
        let index = index::identity(self.settings);
        format!("{}\n{installer}\n{index}", self.interpreter.identity)
    }

    /// A prebuilt image may hold all that is asked for: then it runs as it is, with no network and no waiting.
    async fn in_the_image(&self, store: &Store, log: &mut Log<'_>) -> Option<Python> {
        if self.list.is_local() {
            return None;
        }
        let command = self.dry_run(store, &["--offline"]);
        let list = Some(self.list.text.as_bytes());
        let ended = tool::run(command, list, QUICK, &mut |_| {}).await.ok()?;
        if !ended.status.success()
            || list::additions(&ended.output).is_none_or(|new| !new.is_empty())
        {
            return None;
        }
        let installed = self.listed_in_the_image(store).await;
        log("the image holds all required packages: it is used as it is");
        Some(Python {
            interpreter: Some(self.interpreter.program.clone()),
            environment: None,
            installed: Some(installed),
            reused: true,
        })
    }

    /// The listed packages alone, with the image's versions: the rest of an image is no requirement of the task.
    async fn listed_in_the_image(&self, store: &Store) -> Vec<String> {
        let mut command = self.uv(
            store,
            &["pip", "list", "--format", "json", "--quiet", "--python"],
        );
        command.arg(&self.interpreter.program);
        let listed = tool::run(command, None, QUICK, &mut |_| {}).await;
        // Nothing depends on it but the record in the task.
        listed
            .ok()
            .and_then(|ended| list::versions(&ended.output, &self.list.text))
            .unwrap_or_default()
    }

    async fn build(
        &self,
        store: &Store,
        place: &Place,
        log: &mut Log<'_>,
    ) -> Result<Vec<String>, Failure> {
        place.clear()?;
        let venv = [
            "venv",
            "--quiet",
            "--no-project",
            "--system-site-packages",
            "--python",
        ];
        let mut venv = self.uv(store, &venv);
        venv.arg(&self.interpreter.program).arg(place.folder());
        self.must(venv, None, log).await?;
        self.show_packages_of_the_image(place)?;
        if self.pip {
            self.install_by_pip(store, place, log).await?;
        } else {
            self.install(store, place, log).await?;
        }
        let mut freeze = self.uv(store, &["pip", "freeze", "--quiet", "--python"]);
        freeze.arg(place.folder().join("bin/python"));
        let frozen = self.must(freeze, None, &mut |_| {}).await?;
        let of_the_image = self.listed_in_the_image(store).await;
        Ok(list::installed(&frozen.output, of_the_image))
    }

    /// An image may bring its packages in a virtual environment of its own; "system packages" would not be those.
    fn show_packages_of_the_image(&self, place: &Place) -> Result<(), Failure> {
        let Some(packages) = &self.interpreter.packages else {
            return Ok(());
        };
        let minor: Vec<&str> = self.interpreter.version.split('.').take(2).collect();
        let folder = format!("lib/python{}/site-packages", minor.join("."));
        let file = place.folder().join(folder).join("trainyard-image.pth");
        write(&file, &format!("{}\n", packages.display()))
    }

    async fn install(
        &self,
        store: &Store,
        place: &Place,
        log: &mut Log<'_>,
    ) -> Result<(), Failure> {
        let missing = self.missing(store, log).await?;
        let (text, extra): (&str, &[&str]) = match &missing {
            Some(missing) => (missing, &["--no-deps"]),
            None => (&self.list.text, &[]),
        };
        let mut install = self.uv(store, &["pip", "install", "--python"]);
        install
            .arg(place.folder().join("bin/python"))
            .args(extra)
            .args(["-r", "-"]);
        install.args(index::options(self.settings));
        self.must(install, Some(text.as_bytes()), log)
            .await
            .map(drop)
    }

    /// What has to come on top of the image, as exact versions; `None` if that cannot be told, as with packages that
    /// come from the checkout: then all is installed.
    async fn missing(&self, store: &Store, log: &mut Log<'_>) -> Result<Option<String>, Failure> {
        if self.list.is_local() {
            return Ok(None);
        }
        let mut said = Vec::new();
        let list = Some(self.list.text.as_bytes());
        let command = self.dry_run(store, index::options(self.settings));
        let ended = self
            .must(command, list, &mut |line| said.push(line.to_owned()))
            .await;
        match ended {
            Ok(ended) => Ok(list::additions(&ended.output).map(|new| self.list.options() + &new)),
            Err(failure) => {
                for line in &said {
                    log(line);
                }
                Err(failure)
            }
        }
    }

    /// Asks uv what it would change in the image's Python, which stays as it is.
    fn dry_run(&self, store: &Store, extra: &[&str]) -> Command {
        let mut command = self.uv(
            store,
            &["pip", "install", "--dry-run", "--break-system-packages"],
        );
        command
            .args(extra)
            .arg("--python")
            .arg(&self.interpreter.program)
            .args(["-r", "-"]);
        command
    }

    async fn install_by_pip(
        &self,
        store: &Store,
        place: &Place,
        log: &mut Log<'_>,
    ) -> Result<(), Failure> {
        let python = place.folder().join("bin/python");
        let mut pip = self.uv(store, &["pip", "install", "--quiet", "--python"]);
        pip.arg(&python)
            .arg("pip")
            .args(index::options(self.settings));
        self.must(pip, None, log).await?;
        let file = place.folder().join("requirements.txt");
        write(&file, &self.list.text)?;
        let quiet = [
            "--disable-pip-version-check",
            "--no-input",
            "--progress-bar",
            "off",
        ];
        let mut install = self.settings.child(&python);
        install
            .args(["-m", "pip", "install"])
            .args(quiet)
            .arg("-r")
            .arg(&file);
        install
            .current_dir(self.working_dir)
            .env("PIP_CACHE_DIR", store.base().join("pip"));
        install.envs(index::pip_variables(self.settings));
        self.must(install, None, log).await.map(drop)
    }

    async fn must(
        &self,
        command: Command,
        input: Option<&[u8]>,
        log: &mut Log<'_>,
    ) -> Result<Ended, Failure> {
        let mut without_secrets = |line: &str| log(&masked(line));
        let ended = tool::run(command, input, self.settings.limit, &mut without_secrets)
            .await
            .map_err(|trouble| {
                Failure::new(format!("could not make the Python environment: {trouble}"))
            })?;
        if ended.status.success() {
            Ok(ended)
        } else {
            Err(explain::explain(&ended.output))
        }
    }

    fn uv(&self, store: &Store, arguments: &[&str]) -> Command {
        let mut command = self.settings.uv(store.base());
        command.args(arguments).current_dir(self.working_dir);
        command
    }
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(file, text)
        .map_err(|error| Failure::new(format!("could not write {}: {error}", file.display())))
}

fn found((environment, installed): (PathBuf, Vec<String>)) -> Python {
    Python {
        interpreter: Some(environment.join("bin/python")),
        environment: Some(environment),
        installed: Some(installed),
        reused: true,
    }
}
