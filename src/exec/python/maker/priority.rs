//! What goes before the rest of a list (`agent.package_manager.priority_packages`, `priority_optional_packages`).
//!
//! uv resolves a list as a whole and builds each source beside nothing but what it declares, so that an order alone would
//! change nothing. What the order is for is done instead: a source whose build fails is built once more beside such
//! packages of the list, in the list's versions. Optional ones are tried each by itself, and may fail.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use tokio::process::Command;

use super::Maker;
use crate::exec::failure::Failure;
use crate::exec::python::explain;
use crate::exec::python::install::file;
use crate::exec::python::list::{List, package_name};
use crate::exec::python::store::{Place, Store};
use crate::exec::small;
use crate::exec::tool::{Ended, Log};

/// Longest configuration of uv that is looked into.
const MOST: u64 = 1 << 20;

/// Sources that are built beside the list's priority packages.
#[derive(Default)]
pub(in crate::exec::python) struct Aided {
    names: BTreeSet<String>,
    /// The last that came to it, and why it could not be built before.
    last: Option<(String, Failure)>,
    untold: Vec<String>,
}

impl Maker<'_> {
    /// The lines of this list that go first; a lock has an order of its own.
    pub(super) fn first<'b>(&self, list: &'b List) -> Vec<&'b str> {
        self.named(list, &self.settings.options.priority_packages)
    }

    /// The lines that may fail.
    pub(super) fn optional<'b>(&self, list: &'b List) -> Vec<&'b str> {
        self.named(list, &self.settings.options.priority_optional_packages)
    }

    fn named<'b>(&self, list: &'b List, names: &[String]) -> Vec<&'b str> {
        if self.list.exact {
            return Vec::new();
        }
        let names: BTreeSet<String> = names.iter().map(|name| package_name(name)).collect();
        let lines = list.text.lines();
        lines
            .filter(|line| names.contains(&package_name(line)))
            .collect()
    }

    /// The lines that may fail, and the list without them.
    pub(super) fn split_optional(&self, list: &List) -> (Vec<String>, List) {
        let optional: Vec<String> = self.optional(list).into_iter().map(str::to_owned).collect();
        let mut text = String::new();
        for line in list.text.lines() {
            if !optional.iter().any(|optional| optional == line) {
                text.push_str(line);
                text.push('\n');
            }
        }
        let list = List {
            text,
            ..list.clone()
        };
        (optional, list)
    }

    /// A package that the task can do without.
    pub(super) async fn install_optional(
        &self,
        store: &Store,
        place: &Place,
        line: &str,
        log: &mut Log<'_>,
    ) {
        // The indexes that the list names hold for all of it.
        let alone = List {
            text: format!("{}{line}\n", self.list.options()),
            local: String::new(),
            ..self.list.clone()
        };
        if let Err(failure) = self.install(store, place, &alone, log).await {
            log(&format!("left out, as it is optional: {failure}"));
        }
    }

    /// Runs uv about the list; `None`: a source could not be built, and uv is to be run once more, as it is now built
    /// beside the list's priority packages.
    pub(super) async fn tried(
        &self,
        mut command: Command,
        input: &[u8],
        log: &mut Log<'_>,
    ) -> Result<Option<Ended>, Failure> {
        if let Some(configuration) = self.configuration()? {
            command.arg("--config-file").arg(configuration);
        }
        let ended = self.ran(command, Some(input), log).await?;
        if ended.status.success() {
            return Ok(Some(ended));
        }
        match self.aid(&ended.output) {
            Some(failure) => Err(failure),
            None => Ok(None),
        }
    }

    /// Says which sources have been built that way; each of them once.
    pub(super) fn tell_aid(&self, log: &mut Log<'_>) {
        let untold = std::mem::take(&mut self.aided().untold);
        for text in untold {
            log(&text);
        }
    }

    /// Notes the source that could not be built, if something can be done about it; else that is the failure.
    fn aid(&self, output: &str) -> Option<Failure> {
        let failure = explain::explain(output);
        let Some(requirement) = explain::unbuilt(output) else {
            return Some(failure);
        };
        let name = package_name(requirement);
        let beside = self.beside(&name);
        let mut aided = self.aided();
        // What it said with nothing of ours beside it is nearer to its own trouble.
        if let Some((_, before)) = aided.last.take_if(|(last, _)| *last == name) {
            return Some(before);
        }
        if beside.is_empty() || aided.names.contains(&name) {
            return Some(failure);
        }
        if let Some(own) = configured(&self.settings.variables, self.working_dir) {
            return Some(failure.hint(format!(
                "agent.package_manager.priority_packages do not help it, as uv is configured by {}: name there what it is built beside (extra-build-dependencies)",
                own.display()
            )));
        }
        aided.names.insert(name.clone());
        aided.untold.push(format!(
            "{name} cannot be built with what it declares alone: it is built beside {} (agent.package_manager.priority_packages)",
            beside.join(", ")
        ));
        aided.last = Some((name, failure));
        None
    }

    /// What that source is built beside, as a build takes it: from an index, and without hashes.
    fn beside(&self, name: &str) -> Vec<&str> {
        let lines = self.first(self.list).into_iter();
        lines
            .filter(|line| !line.contains('@') && package_name(line) != name)
            .map(|line| line.split(" --hash").next().unwrap_or(line).trim())
            .collect()
    }

    /// A configuration of uv that says so; none while every source is built by itself.
    fn configuration(&self) -> Result<Option<OsString>, Failure> {
        let names = self.aided().names.clone();
        if names.is_empty() {
            return Ok(None);
        }
        let mut text = "[extra-build-dependencies]\n".to_owned();
        for name in names {
            let _ = writeln!(text, "{name:?} = {:?}", self.beside(&name));
        }
        file(&self.settings.own, "uv.toml", &text).map(Some)
    }

    fn aided(&self) -> MutexGuard<'_, Aided> {
        self.aided.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A configuration that uv finds by itself: it would count no more beside ours, and may name the only index to ask.
///
/// Source: uv's documentation, "Configuration files".
fn configured(variables: &BTreeMap<String, String>, working_dir: &Path) -> Option<PathBuf> {
    let folder = |name: &str, below: &str| variables.get(name).map(|at| Path::new(at).join(below));
    let named = variables.get("UV_CONFIG_FILE").map(PathBuf::from);
    let of_user =
        folder("XDG_CONFIG_HOME", "uv/uv.toml").or_else(|| folder("HOME", ".config/uv/uv.toml"));
    let of_machine = PathBuf::from("/etc/uv/uv.toml");
    let whole = [named, of_user, Some(of_machine)].into_iter().flatten();
    let of_folders = working_dir.ancestors().map(|at| at.join("uv.toml"));
    let in_projects = working_dir
        .ancestors()
        .map(|at| at.join("pyproject.toml"))
        .filter(|file| small::plain_bytes(file, MOST).is_ok_and(|text| has_table(&text)));
    let mut files = whole.chain(of_folders).filter(|file| file.exists());
    files.next().or_else(|| in_projects.into_iter().next())
}

/// Whether a `pyproject.toml` has a table of uv's.
fn has_table(text: &[u8]) -> bool {
    let table = b"tool.uv";
    text.windows(table.len()).any(|found| found == table)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_configuration_that_uv_finds_by_itself_is_found() {
        let root = tempfile::tempdir().unwrap();
        let (home, inner) = (root.path().join("home"), root.path().join("code/inner"));
        fs::create_dir_all(home.join(".config/uv")).unwrap();
        fs::create_dir_all(&inner).unwrap();
        let of = |pairs: &[(&str, &Path)]| {
            let text = |path: &Path| path.to_str().unwrap().to_owned();
            let pairs = pairs
                .iter()
                .map(|(name, path)| ((*name).to_owned(), text(path)));
            configured(&pairs.collect(), &inner)
        };
        let user = [("HOME", home.as_path())];
        assert_eq!(of(&user), None);

        let project = root.path().join("code/pyproject.toml");
        fs::write(&project, "[project]\nname = \"x\"\n").unwrap();
        assert_eq!(of(&user), None, "of another tool");
        fs::write(&project, "[[tool.uv.index]]\nurl = \"https://i\"\n").unwrap();
        assert_eq!(of(&user), Some(project));

        let own = home.join(".config/uv/uv.toml");
        fs::write(&own, "").unwrap();
        assert_eq!(of(&user), Some(own.clone()));
        assert_eq!(of(&[("UV_CONFIG_FILE", &own)]), Some(own));
    }
}
