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

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::process::Command;

use super::install::{Inputs, pip_requirement};
use super::interpreter::Interpreter;
use super::list::{self, Additions, List, package_name};
use super::store::{Held, Place, Store};
use super::torch::{self, Attempt, Cuda};
use super::version::{Version, allows};
use super::{Python, PythonSettings, explain, index, layer, remote};
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
    /// Set if the list holds PyTorch.
    pub cuda: Option<&'a Cuda>,
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
                self.clean(&store, 0, log).await;
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
            base.installed = list::installed(&local, base.installed);
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

    /// What of the list others can share, in exact versions.
    async fn resolved(&self, store: &Store, log: &mut Log<'_>) -> Result<List, Failure> {
        let (additions, _) = self
            .missing(store, self.list, &self.list.local, log)
            .await?;
        let elsewhere: Vec<String> = additions
            .others
            .iter()
            .map(|(name, _)| package_name(name))
            .collect();
        let mut text = self.list.options() + &self.list.hashed(&additions.text());
        for line in self.list.text.lines() {
            // From git or an address: the line itself says which.
            if line.contains('@') && elsewhere.contains(&package_name(line)) {
                text.push_str(line);
                text.push('\n');
            }
        }
        Ok(List {
            exact: true,
            beside: self.list.beside.clone(),
            ..List::of_text(&text)
        })
    }

    /// The environment that others share, or a new one.
    async fn shared(&self, store: &Store, list: &List, log: &mut Log<'_>) -> Result<Base, Failure> {
        let begun = Instant::now();
        let key = list.key(&self.surroundings(list));
        if let Some(base) = self.ready(store, &key, log).await {
            log("the Python environment is in the cache");
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
            return Ok(base);
        }
        let place = store.unless_in_use(place, &key, log);
        let version = &self.interpreter.version;
        log(&format!(
            "making an environment for Python {version}: {} requirements",
            list.count()
        ));
        let installed = self.build(store, &place, list, log).await?;
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
                self.clean(store, limit, log).await;
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
                // Its files are links into uv's cache: what is damaged here is damaged there.
                let mut command = self.uv(store, &["cache", "clean", "--quiet"]);
                command.args(&broken);
                let _ = tool::run(command, None, QUICK, &mut |_| {}).await;
                None
            }
        }
    }

    /// Makes room: environments that nobody uses, the least recently used first; then what only uv's cache still holds.
    async fn clean(&self, store: &Store, limit: u64, log: &mut Log<'_>) {
        let (removed, over) = store.evict(limit);
        if removed > 0 {
            log(&format!(
                "{removed} environments that were used longest ago are removed from the cache"
            ));
        }
        if over {
            let command = self.uv(store, &["cache", "clean", "--quiet"]);
            let _ = tool::run(command, None, QUICK, &mut |_| {}).await;
        }
    }

    /// What else decides on the content of an environment.
    fn surroundings(&self, list: &List) -> String {
        let installer = if self.pip { "pip" } else { "uv" };
        let index = index::identity(self.settings);
        let options = &self.settings.options;
        format!(
            "{}\n{installer} {} {} {:?} {:?} {}\n{index}",
            self.interpreter.identity,
            list.exact,
            options.system_site_packages,
            options.extra_flags,
            if self.pip {
                options.pip_version.as_slice()
            } else {
                &[]
            },
            options.force_upgrade,
        )
    }

    /// A prebuilt image may hold all that is asked for: then it runs as it is, with no network and no waiting.
    async fn in_the_image(
        &self,
        store: &Store,
        list: &List,
        log: &mut Log<'_>,
    ) -> Option<Vec<String>> {
        let options = &self.settings.options;
        if !options.system_site_packages || options.force_upgrade {
            return None;
        }
        let inputs = self.inputs(list, &list.text, None).ok()?;
        let command = self.dry_run(store, list, &inputs, &["--offline"]);
        let ended = tool::run(command, Some(inputs.text.as_bytes()), QUICK, &mut |_| {})
            .await
            .ok()?;
        if !ended.status.success() || !list::additions(&ended.output).is_empty() {
            return None;
        }
        log("the image holds all required packages: it is used as it is");
        Some(self.listed_in_the_image(store, list).await)
    }

    /// The listed packages alone, with the image's versions: the rest of an image is no requirement of the task.
    async fn listed_in_the_image(&self, store: &Store, list: &List) -> Vec<String> {
        if !self.settings.options.system_site_packages {
            return Vec::new();
        }
        let mut command = self.uv(
            store,
            &["pip", "list", "--format", "json", "--quiet", "--python"],
        );
        command.arg(&self.interpreter.program);
        let listed = tool::run(command, None, QUICK, &mut |_| {}).await;
        // Nothing depends on it but the record in the task.
        listed
            .ok()
            .and_then(|ended| list::versions(&ended.output, &list.text))
            .unwrap_or_default()
    }

    async fn venv(&self, store: &Store, place: &Place) -> Result<(), Failure> {
        place.clear()?;
        let mut venv = self.uv(store, &["venv", "--quiet", "--no-project", "--python"]);
        venv.arg(&self.interpreter.program);
        if self.settings.options.system_site_packages {
            venv.arg("--system-site-packages");
        }
        venv.arg(place.folder());
        self.must(venv, None, &mut |_| {}).await?;
        self.show_packages_of_the_image(place)
    }

    async fn build(
        &self,
        store: &Store,
        place: &Place,
        list: &List,
        log: &mut Log<'_>,
    ) -> Result<Vec<String>, Failure> {
        self.venv(store, place).await?;
        let (last, list) = self.split_post(list);
        if self.pip {
            self.install_by_pip(store, place, &list, log).await?;
        } else {
            self.install(store, place, &list, log).await?;
        }
        for (line, optional) in last {
            self.install_last(store, place, &line, optional, log)
                .await?;
        }
        let frozen = self.frozen(store, place.folder()).await?;
        let of_the_image = self.listed_in_the_image(store, &list).await;
        Ok(list::installed(&frozen, of_the_image))
    }

    async fn frozen(&self, store: &Store, environment: &Path) -> Result<String, Failure> {
        let mut freeze = self.uv(store, &["pip", "freeze", "--quiet", "--python"]);
        freeze.arg(environment.join("bin/python"));
        let frozen = self.must(freeze, None, &mut |_| {}).await?.output;
        let lines = frozen.lines();
        let lines = lines.map(|line| remote::recorded(line, &self.settings.brought) + "\n");
        Ok(lines.collect())
    }

    /// An image may bring its packages in a virtual environment of its own; "system packages" would not be those.
    fn show_packages_of_the_image(&self, place: &Place) -> Result<(), Failure> {
        let packages = self.interpreter.packages.as_ref();
        let Some(packages) = packages.filter(|_| self.settings.options.system_site_packages) else {
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
        list: &List,
        log: &mut Log<'_>,
    ) -> Result<(), Failure> {
        let (additions, attempt) = self.missing(store, list, "", log).await?;
        let text = if list.exact {
            list.only(&additions.names())
        } else {
            let elsewhere: Vec<String> = additions
                .others
                .iter()
                .map(|(name, _)| package_name(name))
                .collect();
            let lines = list
                .text
                .lines()
                .filter(|line| elsewhere.contains(&package_name(line)));
            let lines: Vec<&str> = lines.collect();
            list.options() + &list.hashed(&additions.text()) + &lines.join("\n")
        };
        let unnamed = additions.others.len()
            != text.lines().filter(|line| line.contains('@')).count()
            && !list.exact;
        // An address without a name stands for itself: then all is installed as it is written.
        let (text, extra): (&str, &[&str]) = if unnamed {
            (&list.text, &[])
        } else {
            (&text, &["--no-deps"])
        };
        let index = attempt
            .as_ref()
            .and_then(|attempt| attempt.index.as_deref());
        let inputs = self.inputs(list, text, index)?;
        let mut install = self.uv(store, &["pip", "install", "--python"]);
        install
            .arg(place.folder().join("bin/python"))
            .args(extra)
            .args(&inputs.arguments)
            .args(&self.settings.options.extra_flags)
            .args(index::options(self.settings));
        self.must(install, Some(inputs.text.as_bytes()), log)
            .await
            .map(drop)
    }

    /// The parts of the checkout, into the task's own layer.
    async fn install_local(
        &self,
        store: &Store,
        layer: &Path,
        log: &mut Log<'_>,
    ) -> Result<(), Failure> {
        let brought = &self.settings.brought;
        let mut text = self.list.options() + &self.list.local;
        let mut install = self.uv(store, &["pip", "install", "--python"]);
        install.arg(layer.join("bin/python"));
        if self.pip {
            text = remote::on_disk(&self.list.text, brought) + &self.list.local;
        } else {
            install.arg("--no-deps");
        }
        install
            .args(["-r", "-"])
            .args(index::options(self.settings));
        self.must(install, Some(text.as_bytes()), log)
            .await
            .map(drop)
    }

    /// What has to come on top of the image, and how PyTorch is chosen.
    async fn missing(
        &self,
        store: &Store,
        list: &List,
        local: &str,
        log: &mut Log<'_>,
    ) -> Result<(Additions, Option<Attempt>), Failure> {
        let lines: Vec<&str> = list.text.lines().collect();
        let mut attempts: Vec<Option<Attempt>> = match self.cuda {
            Some(cuda) if !list.exact => {
                let index = self.settings.options.torch_index.as_deref();
                torch::attempts(&lines, cuda, index)
                    .into_iter()
                    .map(Some)
                    .collect()
            }
            _ => Vec::new(),
        };
        if attempts.is_empty() {
            attempts.push(None);
        }
        let text = format!("{}{local}", list.text);
        let mut last = Failure::new("the Python environment could not be made");
        let mut said = Vec::new();
        for attempt in attempts {
            said.clear();
            let index = attempt
                .as_ref()
                .and_then(|attempt| attempt.index.as_deref());
            let inputs = match &attempt {
                Some(attempt) => self.inputs(list, &with_family(&text, &attempt.lines), index)?,
                None => self.inputs(list, &text, index)?,
            };
            let command = self.dry_run(store, list, &inputs, index::options(self.settings));
            let ended = self
                .must(command, Some(inputs.text.as_bytes()), &mut |line| {
                    said.push(line.to_owned());
                })
                .await;
            match ended {
                Ok(ended) => {
                    let additions = list::additions(&ended.output);
                    if let Some(attempt) = &attempt {
                        let comes = additions.names().iter().any(|name| torch::is_family(name));
                        log(if comes {
                            &attempt.note
                        } else {
                            "PyTorch: the image's own is used"
                        });
                    }
                    return Ok((additions, attempt));
                }
                Err(failure) => last = failure,
            }
        }
        for line in &said {
            log(line);
        }
        Err(last)
    }

    fn inputs(&self, list: &List, text: &str, index: Option<&str>) -> Result<Inputs, Failure> {
        let brought = &self.settings.brought;
        let text = remote::on_disk(text, brought);
        let mut inputs = Inputs::new(&text, index, &list.constraints, &self.settings.own)?;
        inputs.overrides(&remote::overrides(brought), &self.settings.own)?;
        if list.exact {
            // Each line is one version, most of them with hashes: whichever index has it.
            inputs
                .arguments
                .extend(["--index-strategy".into(), "unsafe-best-match".into()]);
        }
        Ok(inputs)
    }

    /// Asks uv what it would change in the image's Python, which stays as it is.
    fn dry_run(&self, store: &Store, list: &List, inputs: &Inputs, extra: &[&str]) -> Command {
        let mut command = self.uv(
            store,
            &["pip", "install", "--dry-run", "--break-system-packages"],
        );
        command.args(extra).args(&inputs.arguments);
        if list.exact {
            command.arg("--no-deps");
        }
        let options = &self.settings.options;
        if options.force_upgrade {
            command.arg("--upgrade");
        }
        command.args(&options.extra_flags);
        if options.system_site_packages {
            command.arg("--python").arg(&self.interpreter.program);
        } else {
            // An environment that has nothing: what the image holds does not count.
            let target = self.settings.own.join("nothing");
            command
                .arg("--python")
                .arg(&self.interpreter.program)
                .arg("--target")
                .arg(target);
        }
        command
    }

    /// The lines that are installed last, whether they may fail, and the list without them.
    fn split_post(&self, list: &List) -> (Vec<(String, bool)>, List) {
        let options = &self.settings.options;
        let named = |names: &[String], line: &str| {
            names
                .iter()
                .any(|name| package_name(name) == package_name(line))
        };
        let (mut last, mut text) = (Vec::new(), String::new());
        for line in list.text.lines() {
            if named(&options.post_packages, line) {
                last.push((line.to_owned(), false));
            } else if named(&options.post_optional_packages, line) {
                last.push((line.to_owned(), true));
            } else {
                text.push_str(line);
                text.push('\n');
            }
        }
        let list = List {
            text,
            ..list.clone()
        };
        (last, list)
    }

    /// A package that looks at the others while it is built.
    async fn install_last(
        &self,
        store: &Store,
        place: &Place,
        line: &str,
        optional: bool,
        log: &mut Log<'_>,
    ) -> Result<(), Failure> {
        let mut install = self.uv(
            store,
            &["pip", "install", "--no-build-isolation", "--python"],
        );
        install
            .arg(place.folder().join("bin/python"))
            .args(["-r", "-"])
            .args(index::options(self.settings));
        let line = remote::on_disk(line, &self.settings.brought);
        match self.must(install, Some(line.as_bytes()), log).await {
            Err(failure) if optional => {
                log(&format!("left out, as it is optional: {failure}"));
                Ok(())
            }
            result => result.map(drop),
        }
    }

    async fn install_by_pip(
        &self,
        store: &Store,
        place: &Place,
        list: &List,
        log: &mut Log<'_>,
    ) -> Result<(), Failure> {
        let python = place.folder().join("bin/python");
        let wanted = pip_requirement(&self.settings.options.pip_version, &self.interpreter.facts);
        let mut pip = self.uv(store, &["pip", "install", "--quiet", "--python"]);
        pip.arg(&python)
            .arg(wanted)
            .args(index::options(self.settings));
        self.must(pip, None, log).await?;
        let file = place.folder().join("requirements.txt");
        write(&file, &remote::on_disk(&list.text, &self.settings.brought))?;
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
        if !list.constraints.trim().is_empty() {
            let constraints = place.folder().join("constraints.txt");
            write(&constraints, &list.constraints)?;
            install.arg("-c").arg(constraints);
        }
        if self.settings.options.force_upgrade {
            install.arg("--upgrade");
        }
        install.args(&self.settings.options.extra_flags);
        if self.has_old_resolver(store, &python).await {
            install.args(["--use-deprecated", "legacy-resolver"]);
        }
        install
            .current_dir(self.working_dir)
            .env("PIP_CACHE_DIR", store.base().join("pip"));
        install.envs(index::pip_variables(self.settings));
        self.must(install, None, log).await.map(drop)
    }

    /// Whether the pip that was installed is one of those that are to resolve as pip did before 20.3.
    async fn has_old_resolver(&self, store: &Store, python: &Path) -> bool {
        let ranges = &self.settings.options.legacy_resolver;
        let mut list = self.uv(
            store,
            &["pip", "list", "--format", "json", "--quiet", "--python"],
        );
        list.arg(python);
        let listed = tool::run(list, None, QUICK, &mut |_| {}).await;
        let pip = listed
            .ok()
            .and_then(|ended| list::versions(&ended.output, "pip"))
            .and_then(|lines| Some(lines.first()?.split("==").last()?.to_owned()))
            .and_then(|version| version.parse::<Version>().ok());
        pip.is_some_and(|pip| ranges.iter().any(|range| allows(range, &pip) == Some(true)))
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

/// The list with these lines in place of PyTorch's.
fn with_family(text: &str, lines: &[String]) -> String {
    let rest = text.lines().filter(|line| !torch::is_family(line));
    rest.chain(lines.iter().map(String::as_str))
        .flat_map(|line| [line, "\n"])
        .collect()
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(file, text)
        .map_err(|error| Failure::new(format!("could not write {}: {error}", file.display())))
}
