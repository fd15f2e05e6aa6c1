//! Makes one environment: what the image lacks, and nothing that it has.
//!
//! ```text
//! list ──▶ what others can share ──▶ key ──▶ made before? ─no─▶ resolve against the image ──▶ venv, install, marker
//!   └────▶ what lies in the checkout ──────────────────────────────────────────────▶ the task's own layer on top
//! ```
//!
//! uv by itself does not see the packages that an image brings and would install all of them again. So it is asked
//! first what it would change in the image's own Python (`--dry-run`), and just that goes into the environment: the
//! image's PyTorch stays the one that runs. A list that names parts of the checkout is resolved as a whole; what comes
//! from an index is then shared all the same, by its exact versions.

mod contents;
mod pip;
mod priority;
mod resolution;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use tokio::process::Command;

use self::priority::Aided;
use super::interpreter::Interpreter;
use super::list::{List, package_name};
use super::store::{Held, Store};
use super::torch::Cuda;
use super::{Python, PythonSettings, QUICK, answers, explain, index, layer, torch};
use crate::exec::failure::{Failure, masked};
use crate::exec::tool::{self, Ended, Log};

/// What is made of what.
pub(super) struct Maker<'a> {
    pub settings: &'a PythonSettings,
    pub list: &'a List,
    pub interpreter: &'a Interpreter,
    /// Install with pip.
    pub pip: bool,
    /// Relative paths in the list start here.
    pub working_dir: &'a Path,
    /// Set if the list holds PyTorch.
    pub cuda: Option<&'a Cuda>,
    /// What is known of the image's cuDNN, in words; nothing is chosen by it.
    pub cudnn: Option<String>,
    /// Sources that cannot be built by themselves.
    pub aided: Mutex<Aided>,
}

/// The shared part of what the task runs with.
struct Base {
    /// `None`: the image holds it all.
    environment: Option<PathBuf>,
    installed: Vec<String>,
    reused: bool,
    /// Keeps the environment from being evicted as long as this process lives.
    held: Held,
}

impl Maker<'_> {
    /// Finds the environment, or makes it.
    pub(super) async fn make(&self, log: &mut Log<'_>) -> Result<Python, Failure> {
        let store = Store::of(self.settings, log);
        match self.with(&store, log).await {
            Err(failure) if store.is_usable() && explain::is_full(&failure) => {
                log(
                    "the cache is full: what no task uses is removed, and the environment made anew",
                );
                store.clean(0, self.settings, self.working_dir, log).await;
                match self.with(&store, log).await {
                    Err(failure) if explain::is_full(&failure) => {
                        log("the cache is still full: the environment is made for this task alone");
                        self.with(&Store::own(&self.settings.own), log).await
                    }
                    result => result,
                }
            }
            result => result,
        }
    }

    async fn with(&self, store: &Store, log: &mut Log<'_>) -> Result<Python, Failure> {
        let resolved = if self.list.local.is_empty() || self.list.exact || self.pip {
            None
        } else {
            Some(self.resolved(store, log).await?)
        };
        let shared = resolved.as_ref().unwrap_or(self.list);
        let base = if shared.is_empty() || (self.pip && !self.list.local.is_empty()) {
            None
        } else {
            Some(self.shared(store, shared, log).await?)
        };
        let mut base = base.unwrap_or(Base {
            environment: None,
            installed: Vec::new(),
            reused: false,
            held: Held::default(),
        });
        if base.environment.is_none() && self.list.local.is_empty() {
            return Ok(Python {
                interpreter: Some(self.interpreter.program.clone()),
                environment: None,
                shared: None,
                installed: Some(base.installed),
                reused: true,
                held: Held::default(),
            });
        }
        let own = match &base.environment {
            Some(shared) if shared.starts_with(store.base().join("env")) => {
                layer::make(shared, &self.settings.own).map_err(|error| {
                    Failure::new(format!(
                        "could not lay an environment over {}: {error}",
                        shared.display()
                    ))
                })?
            }
            Some(own) => own.clone(),
            None => {
                let place = store.own_place();
                self.venv(store, &place).await?;
                place.folder().to_owned()
            }
        };
        if !self.list.local.is_empty() {
            self.install_local(store, &own, log).await?;
            let local = self.frozen(store, &own).await?;
            base.installed = answers::installed(&local, base.installed);
        }
        Ok(Python {
            interpreter: Some(own.join("bin/python")),
            environment: Some(own),
            shared: base.environment,
            installed: Some(base.installed),
            reused: base.reused,
            held: base.held,
        })
    }

    /// The environment that others share, or a new one.
    async fn shared(&self, store: &Store, list: &List, log: &mut Log<'_>) -> Result<Base, Failure> {
        let begun = Instant::now();
        let key = list.key(&self.surroundings(list));
        if let Some(base) = self.ready(store, &key, log).await {
            log("the Python environment is in the cache");
            self.tell_build(&base.installed, log);
            return Ok(base);
        }
        if let Some(installed) = self.in_the_image(store, list, log).await {
            return Ok(Base {
                environment: None,
                installed,
                reused: true,
                held: Held::default(),
            });
        }
        let place = store.place(&key, log).await?;
        // Another task may have made it while we waited for the lock.
        if place.is_shared()
            && let Some(base) = self.ready(store, &key, log).await
        {
            log("another task has just made the Python environment");
            self.tell_build(&base.installed, log);
            return Ok(base);
        }
        let place = store.unless_in_use(place, &key, log);
        let version = &self.interpreter.version;
        log(&format!(
            "making an environment for Python {version}: {} requirements",
            list.count()
        ));
        let built = self.build_whole(store, &place, list, log).await;
        if built.is_err() {
            // Half an environment serves nobody, and takes room that others may need.
            let _ = place.clear();
        }
        let installed = built?;
        let mut held = Held::default();
        if place.is_shared() {
            // A task that is run again carries what came of it (`features.md` A58): the same environment serves it.
            let frozen = List {
                beside: list.beside.clone(),
                ..List::of_text(&installed.join("\n"))
            };
            let frozen = frozen.key(&self.surroundings(&frozen));
            held = store.keep(&place, &installed, &frozen);
            if let Some(limit) = self.settings.options.cache_limit {
                store
                    .clean(limit, self.settings, self.working_dir, log)
                    .await;
            }
        }
        log(&format!(
            "the Python environment is ready after {:.1} s",
            begun.elapsed().as_secs_f64()
        ));
        Ok(Base {
            environment: Some(place.folder().to_owned()),
            installed,
            reused: false,
            held,
        })
    }

    /// Which build of PyTorch runs is told to every task, also to those that find it made.
    fn tell_build(&self, installed: &[String], log: &mut Log<'_>) {
        if let Some(note) = self.cuda.and_then(|cuda| torch::found(installed, cuda)) {
            self.tell_choice(&note, log);
        }
    }

    /// How PyTorch is chosen, and beside it the image's cuDNN.
    fn tell_choice(&self, note: &str, log: &mut Log<'_>) {
        match &self.cudnn {
            Some(cudnn) => log(&format!("{note}; {cudnn}")),
            None => log(note),
        }
    }

    /// The environment of that key, if it is whole; one that is not is told, and what it came from is dropped too.
    async fn ready(&self, store: &Store, key: &str, log: &mut Log<'_>) -> Option<Base> {
        match store.ready(key) {
            Ok(ready) => ready.map(|(environment, installed, held)| Base {
                environment: Some(environment),
                installed,
                reused: true,
                held,
            }),
            Err(broken) => {
                log(&format!(
                    "the environment in the cache is damaged ({}): it is made anew",
                    broken.join(", ")
                ));
                self.settings.forget(store.base(), &broken).await;
                None
            }
        }
    }

    /// What else decides on the content of an environment.
    fn surroundings(&self, list: &List) -> String {
        let installer = if self.pip { "pip" } else { "uv" };
        let index = index::identity(self.settings);
        let options = &self.settings.options;
        let optional: BTreeSet<String> =
            self.optional(list).into_iter().map(package_name).collect();
        let optional = if optional.is_empty() {
            String::new()
        } else {
            format!(" without {optional:?} if need be")
        };
        format!(
            "{}\n{installer} {} {} {:?}{} {:?} {}{optional}\n{index}",
            self.interpreter.identity,
            list.exact,
            options.system_site_packages,
            options.extra_flags,
            if options.best_match { " best" } else { "" },
            if self.pip {
                options.pip_version.as_slice()
            } else {
                &[]
            },
            options.force_upgrade,
        )
    }

    async fn must(
        &self,
        command: Command,
        input: Option<&[u8]>,
        log: &mut Log<'_>,
    ) -> Result<Ended, Failure> {
        let ended = self.ran(command, input, log).await?;
        if ended.status.success() {
            Ok(ended)
        } else {
            Err(explain::explain(&ended.output))
        }
    }

    /// Runs it to its end, however that is.
    async fn ran(
        &self,
        command: Command,
        input: Option<&[u8]>,
        log: &mut Log<'_>,
    ) -> Result<Ended, Failure> {
        let mut without_secrets = |line: &str| log(&masked(line));
        tool::run(command, input, self.settings.limit, &mut without_secrets)
            .await
            .map_err(|trouble| {
                Failure::new(format!("could not make the Python environment: {trouble}"))
            })
    }

    fn uv(&self, store: &Store, arguments: &[&str]) -> Command {
        let mut command = self.settings.uv(store.base());
        command.args(arguments).current_dir(self.working_dir);
        command
    }
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(file, text).map_err(|error| match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => explain::no_space(),
        _ => Failure::new(format!("could not write {}: {error}", file.display())),
    })
}
