//! Which of the task's sources says what is installed: its own list, a lock of the repository, or files beside it.
//!
//! | manager  | first that is there                                                                     |
//! |----------|-----------------------------------------------------------------------------------------|
//! | `auto`   | `uv.lock`, `poetry.lock`, the task's list, `requirements.txt`, `pyproject.toml`, conda   |
//! | `uv`     | `uv.lock`, `pyproject.toml`, the task's list, `requirements.txt`                         |
//! | `poetry` | `poetry.lock`, `pyproject.toml`, the task's list, `requirements.txt`                     |
//! | `pip`    | the task's list, `requirements.txt`                                                      |
//! | `conda`  | conda's list of the task, `environment.yml`; the task's list beside it                   |
//!
//! A lock is looked for from the working directory up to the repository's root, or in the working directory alone.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::PythonSettings;
use super::explain;
use super::index;
use super::interpreter::Interpreter;
use super::list::{List, package_name};
use super::poetry::{self, Choice};
use super::remote::{self, Remote};
use super::sync;
use crate::exec::failure::{Failure, masked};
use crate::exec::plan::{Environment, Manager, Requirements};
use crate::exec::small;
use crate::exec::tool::{self, Log};

/// Largest lock that is read.
const MAX_LOCK: u64 = 16 << 20;

/// What says what is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    List,
    UvLock(PathBuf),
    PoetryLock(PathBuf),
    Project(PathBuf),
    Conda,
}

/// Chooses among what the task names and what lies in its repository.
pub(super) fn choose(environment: &Environment) -> Source {
    let nearest = |name: &str| {
        environment
            .folders
            .iter()
            .rev()
            .find(|folder| folder.join(name).is_file())
            .cloned()
    };
    let within = |only: Option<&PathBuf>, name: &str| match only {
        Some(folder) => folder.join(name).is_file().then(|| folder.clone()),
        None => nearest(name),
    };
    let (of_uv, of_poetry) = (
        environment.uv_folder.as_ref(),
        environment.poetry_folder.as_ref(),
    );
    let uv_lock = || within(of_uv, "uv.lock").map(Source::UvLock);
    let poetry_lock = || within(of_poetry, "poetry.lock").map(Source::PoetryLock);
    let project = || {
        let only = match environment.manager {
            Manager::Uv => of_uv,
            Manager::Poetry => of_poetry,
            _ => of_uv.or(of_poetry),
        };
        let folder = within(only, "pyproject.toml")?;
        let text = text(&folder.join("pyproject.toml")).ok()?;
        let names_packages = text
            .lines()
            .map(str::trim)
            .any(|line| line == "[project]" || line.starts_with("[tool.poetry.dependencies"));
        names_packages.then_some(Source::Project(folder))
    };
    let listed =
        || matches!(environment.requirements, Requirements::Listed(_)).then_some(Source::List);
    let file = || nearest("requirements.txt").map(|_| Source::List);
    let conda = || {
        let there = environment.conda.is_some() || conda_file(environment).is_some();
        there.then_some(Source::Conda)
    };
    let found = match environment.manager {
        Manager::Auto => uv_lock()
            .or_else(poetry_lock)
            .or_else(listed)
            .or_else(file)
            .or_else(project)
            .or_else(conda),
        Manager::Uv => uv_lock().or_else(project),
        Manager::Poetry => poetry_lock().or_else(project),
        Manager::Conda => Some(Source::Conda),
        Manager::Pip | Manager::None => None,
    };
    found.unwrap_or(Source::List)
}

/// The `environment.yml` of the repository.
pub(super) fn conda_file(environment: &Environment) -> Option<PathBuf> {
    let mut folders = environment.folders.iter().rev();
    folders.find_map(|folder| {
        ["environment.yml", "environment.yaml"]
            .map(|name| folder.join(name))
            .into_iter()
            .find(|file| file.is_file())
    })
}

/// What an environment asks of git, as far as that can be told without a Python: rather too much than too little.
pub fn from_git(environment: &Environment, working_dir: &Path) -> Vec<Remote> {
    let of_file = |file: &Path| text(file).unwrap_or_default();
    let of_requirements = || {
        let list = List::read(&environment.requirements, working_dir).unwrap_or_default();
        remote::of_list(&list.text)
    };
    match choose(environment) {
        Source::List => of_requirements(),
        Source::UvLock(folder) => remote::of_lock(&of_file(&folder.join("uv.lock"))),
        Source::PoetryLock(folder) => remote::of_lock(&of_file(&folder.join("poetry.lock"))),
        Source::Project(folder) => {
            let lines = remote::of_project(&of_file(&folder.join("pyproject.toml")));
            let lines: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
            remote::of_list(&lines.join("\n"))
        }
        Source::Conda => {
            let file = conda_file(environment).map(|file| of_file(&file));
            let mut found = of_requirements();
            for line in file.unwrap_or_default().lines() {
                let line = line
                    .trim()
                    .trim_start_matches("- ")
                    .trim_matches(['"', '\'']);
                found.extend(Remote::of_line(line));
            }
            found
        }
    }
}

/// A list with what the project takes from git in place of the same package from an index.
fn with_git_sources(list: &str, project: &str) -> String {
    let sources = remote::of_project(project);
    let mut text = String::new();
    for line in list.lines() {
        let name = package_name(line);
        match sources.iter().find(|(package, _)| *package == name) {
            Some((_, source)) if !line.contains("git+") => {
                // Extras stay with the package's name.
                let end = line
                    .find(['=', '<', '>', '!', '~', ';', ' '])
                    .unwrap_or(line.len());
                let (_, address) = source.split_once(" @ ").unwrap_or(("", source));
                let _ = write!(text, "{} @ {address}", &line[..end]);
            }
            _ => text += line,
        }
        text.push('\n');
    }
    text
}

/// Reads what the source says.
pub(super) async fn read(
    source: &Source,
    environment: &Environment,
    settings: &PythonSettings,
    interpreter: &Interpreter,
    working_dir: &Path,
    log: &mut Log<'_>,
) -> Result<List, Failure> {
    let listed = matches!(environment.requirements, Requirements::Listed(_));
    let instead = if listed && !matches!(source, Source::List | Source::Conda) {
        "; the task's own list is not used (environment.manager of the binding: pip uses it)"
    } else {
        ""
    };
    match source {
        Source::List | Source::Conda => List::read(&environment.requirements, working_dir),
        Source::UvLock(folder) => {
            log(&format!(
                "packages as in {}{instead}",
                folder.join("uv.lock").display()
            ));
            uv_lock(folder, settings, interpreter, log).await
        }
        Source::PoetryLock(folder) => {
            log(&format!(
                "packages as in {}{instead}",
                folder.join("poetry.lock").display()
            ));
            let (choice, unknown) = Choice::read(&settings.options.poetry_arguments);
            if !unknown.is_empty() {
                log(&without_effect("poetry", &unknown));
            }
            let (project, lock) = (
                text(&folder.join("pyproject.toml"))?,
                text(&folder.join("poetry.lock"))?,
            );
            let locked = poetry::locked(&project, &lock, &choice, &interpreter.facts)
                .map_err(Failure::new)?;
            let mut list = List {
                exact: true,
                ..List::default()
            };
            list.take(&locked.list, folder, 0)?;
            for line in locked.local {
                let line = if line.starts_with(['-', '/', '.']) {
                    line
                } else {
                    format!("./{line}")
                };
                list.take(&line.replace("-e ", "-e ./").replace("./.", "."), folder, 0)?;
            }
            if locked.root {
                list.take("-e .", folder, 0)?;
            }
            Ok(list)
        }
        Source::Project(folder) => {
            log(&format!(
                "packages as in {}{instead}",
                folder.join("pyproject.toml").display()
            ));
            let (choice, _) = Choice::read(&settings.options.poetry_arguments);
            let project = text(&folder.join("pyproject.toml"))?;
            let (list, notes) =
                poetry::unlocked(&project, &choice, &interpreter.facts).map_err(Failure::new)?;
            for note in &notes {
                log(note);
            }
            let list = with_git_sources(&list, &project);
            List::read(&Requirements::Listed(list), folder)
        }
    }
}

/// What the log says of arguments for a program that is not run; an index among them may have a password.
fn without_effect(program: &str, arguments: &[String]) -> String {
    let arguments = masked(&arguments.join(" "));
    format!("without effect, as {program} itself is not run: {arguments}")
}

async fn uv_lock(
    folder: &Path,
    settings: &PythonSettings,
    interpreter: &Interpreter,
    log: &mut Log<'_>,
) -> Result<List, Failure> {
    let options = &settings.options;
    let chosen = sync::exported(&options.uv_sync_arguments, &options.uv_run_arguments);
    for (program, without) in [
        ("uv sync", &chosen.without_sync),
        ("uv run", &chosen.without_run),
    ] {
        if !without.is_empty() {
            log(&without_effect(program, without));
        }
    }
    let exported = settings.own.join("uv-lock.txt");
    std::fs::create_dir_all(&settings.own).map_err(|error| {
        Failure::new(format!(
            "could not write to {}: {error}",
            settings.own.display()
        ))
    })?;
    let mut command = settings.uv(&super::store::base(&settings.cache, &settings.own));
    command
        .args([
            "export",
            "--quiet",
            "--no-header",
            "--no-annotate",
            "--python",
        ])
        .arg(&interpreter.program)
        .arg("--output-file")
        .arg(&exported)
        .args(chosen.arguments)
        .current_dir(folder);
    if options.uv_locked {
        command.arg("--frozen");
    } else {
        // What the project has come to ask for since is resolved, and so needs the indexes.
        command.args(index::options(settings));
        for url in &options.extra_index_url {
            command.arg("--extra-index-url").arg(url);
        }
    }
    let mut said = Vec::new();
    let ended = tool::run(command, None, settings.limit, &mut |line| {
        said.push(line.to_owned());
    })
    .await
    .map_err(|trouble| Failure::new(format!("could not read uv.lock: {trouble}")))?;
    if !ended.status.success() {
        for line in &said {
            log(line);
        }
        return Err(Failure::new(format!(
            "uv.lock cannot be used: {}",
            explain::first_words(&ended.output)
        ))
        .hint("run `uv lock` and commit it"));
    }
    let mut list = List {
        exact: true,
        ..List::default()
    };
    let lock = text(&folder.join("uv.lock"))?;
    for index in registries(&lock) {
        list.take(&format!("--extra-index-url {index}"), folder, 0)?;
    }
    list.take(&text(&exported)?, folder, 0)?;
    Ok(list)
}

/// The indexes that a `uv.lock` names beside the public one, for which the binding's or the image's stands.
fn registries(lock: &str) -> Vec<&str> {
    let mut found: Vec<&str> = lock
        .split("registry = \"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .filter(|url| url.starts_with("http") && !url.contains("//pypi.org/"))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// A file of the repository, unless it is too long.
pub(super) fn text(file: &Path) -> Result<String, Failure> {
    let failed = |why: String| Failure::new(format!("{} cannot be read: {why}", file.display()));
    let bytes = small::plain_bytes(file, MAX_LOCK).map_err(|error| failed(error.to_string()))?;
    String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(manager: Manager, root: &Path, listed: bool) -> Environment {
        let folders = vec![root.to_owned(), root.join("sub")];
        Environment {
            requirements: if listed {
                Requirements::Listed("six".to_owned())
            } else {
                Requirements::Repository(folders.clone())
            },
            manager,
            folders,
            uv_folder: None,
            poetry_folder: None,
            conda: None,
        }
    }

    #[test]
    fn on_request_locks_and_projects_count_in_the_working_directory_alone() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let sub = root.join("sub");
        std::fs::create_dir(&sub).unwrap();
        for name in ["uv.lock", "poetry.lock"] {
            std::fs::write(root.join(name), "").unwrap();
        }
        std::fs::write(root.join("pyproject.toml"), "[project]\nname = 'x'\n").unwrap();
        let chosen = |manager, uv: bool, poetry: bool| {
            choose(&Environment {
                uv_folder: uv.then(|| sub.clone()),
                poetry_folder: poetry.then(|| sub.clone()),
                ..environment(manager, root, true)
            })
        };
        let (uv, poetry) = (Source::UvLock(root.into()), Source::PoetryLock(root.into()));
        for (manager, of_uv, of_poetry, expected) in [
            (Manager::Auto, false, false, &uv),
            (Manager::Auto, true, false, &poetry),
            (Manager::Auto, false, true, &uv),
            (Manager::Auto, true, true, &Source::List),
            (Manager::Uv, false, true, &uv),
            // Neither the lock nor the project of the root.
            (Manager::Uv, true, false, &Source::List),
            (Manager::Poetry, true, false, &poetry),
            (Manager::Poetry, false, true, &Source::List),
        ] {
            let found = chosen(manager, of_uv, of_poetry);
            assert_eq!(found, *expected, "{manager:?} {of_uv} {of_poetry}");
        }
        std::fs::write(sub.join("pyproject.toml"), "[project]\nname = 'y'\n").unwrap();
        let project = Source::Project(sub.clone());
        assert_eq!(chosen(Manager::Uv, true, false), project);
        assert_eq!(chosen(Manager::Poetry, false, true), project);
    }

    #[test]
    fn a_lock_decides_unless_the_manager_says_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir(root.join("sub")).unwrap();
        let chosen = |manager, listed| choose(&environment(manager, root, listed));
        assert_eq!(chosen(Manager::Auto, true), Source::List);
        assert_eq!(chosen(Manager::Conda, true), Source::Conda);
        std::fs::write(root.join("pyproject.toml"), "[project]\nname = 'x'\n").unwrap();
        assert_eq!(
            chosen(Manager::Auto, true),
            Source::List,
            "a project alone is no lock"
        );
        assert_eq!(chosen(Manager::Auto, false), Source::Project(root.into()));
        assert_eq!(chosen(Manager::Uv, true), Source::Project(root.into()));
        std::fs::write(root.join("requirements.txt"), "six").unwrap();
        assert_eq!(chosen(Manager::Auto, false), Source::List);
        std::fs::write(root.join("poetry.lock"), "").unwrap();
        assert_eq!(chosen(Manager::Auto, true), Source::PoetryLock(root.into()));
        assert_eq!(
            chosen(Manager::Poetry, true),
            Source::PoetryLock(root.into())
        );
        std::fs::write(root.join("sub/uv.lock"), "").unwrap();
        assert_eq!(
            chosen(Manager::Auto, true),
            Source::UvLock(root.join("sub"))
        );
        assert_eq!(chosen(Manager::Pip, true), Source::List);
    }

    #[test]
    fn a_conda_file_counts_where_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("environment.yml"), "").unwrap();
        assert_eq!(
            choose(&environment(Manager::Auto, folder.path(), false)),
            Source::Conda
        );
        assert_eq!(
            choose(&environment(Manager::Auto, folder.path(), true)),
            Source::List
        );
    }

    #[test]
    fn arguments_without_effect_are_told_without_their_passwords() {
        let given = ["--index", "https://u:canary@index.example/simple"].map(str::to_owned);
        assert_eq!(
            without_effect("uv sync", &given),
            "without effect, as uv sync itself is not run: --index https://***@index.example/simple"
        );
    }

    #[test]
    fn the_indexes_of_a_lock_are_found() {
        let lock = "source = { registry = \"https://pypi.org/simple\" }\nsource = { registry = \"https://whl.example/cu118\" }\n\
            source = { registry = \"local\" }\nsource = { registry = \"https://whl.example/cu118\" }";
        assert_eq!(registries(lock), ["https://whl.example/cu118"]);
    }
}
