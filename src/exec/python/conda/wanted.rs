//! What conda is asked for, and what pip's index: lists of the task, else the repository's `environment.yml`.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::exec::failure::{Failure, one_line};
use crate::exec::plan::{Environment, effective_lines};
use crate::exec::python::list::{List, package_name};
use crate::exec::python::{Options, PythonSettings, project, remote};
use crate::pod::Brought;

/// What conda is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub channels: Vec<String>,
    pub specs: Vec<String>,
    /// Requirements for pip's index.
    pub pip: Vec<String>,
    /// Arguments of their installation.
    pub pip_arguments: Vec<String>,
}

impl Wanted {
    /// The task's list for conda, else the repository's file, and of the list for pip what neither names.
    pub(super) fn of(
        environment: &Environment,
        list: &List,
        python: Option<&str>,
        settings: &PythonSettings,
    ) -> Result<Self, Failure> {
        let mut wanted = match (&environment.conda, project::conda_file(environment)) {
            (Some(text), _) => of_list(text),
            (None, Some(file)) => of_file(&project::text(&file)?)
                .map_err(|why| Failure::new(format!("{} cannot be read: {why}", file.display())))?,
            (None, None) => Self::default(),
        };
        if wanted.channels.is_empty() {
            wanted.channels.clone_from(&settings.options.conda_channels);
        }
        let names: BTreeSet<String> = wanted.specs.iter().map(|spec| name_of(spec)).collect();
        if !names.contains("python") {
            wanted.specs.insert(
                0,
                python.map_or_else(
                    || "python".to_owned(),
                    |version| format!("python={version}"),
                ),
            );
        }
        for line in list.text.lines().chain(list.local.lines()) {
            if line.starts_with('-') || !names.contains(&package_name(line)) {
                wanted.pip.push(line.to_owned());
            }
        }
        if let Some(bad) = wanted
            .specs
            .iter()
            .chain(&wanted.channels)
            .find(|word| word.starts_with('-'))
        {
            return Err(Failure::new(format!(
                "{bad:?} is neither a package nor a channel of conda"
            )));
        }
        Ok(wanted)
    }

    /// What the configuration says of pip's index, and the commits of what comes from git; where nothing is listed for
    /// pip, nothing.
    pub(super) fn add_to_pip(
        &mut self,
        options: &Options,
        brought: &[Brought],
    ) -> Result<(), Failure> {
        let list = remote::pinned(&self.pip.join("\n"), brought)?;
        self.pip.clear();
        if effective_lines(&list).next().is_none() {
            return Ok(());
        }
        let indexes = options.extra_index_url.iter();
        self.pip
            .extend(indexes.map(|url| format!("--extra-index-url {url}")));
        self.pip.extend(list.lines().map(str::to_owned));
        self.pip_arguments.clone_from(&options.extra_flags);
        let strategy = options.index_strategy(false).iter();
        self.pip_arguments
            .extend(strategy.map(|word| (*word).to_owned()));
        Ok(())
    }
}

/// Part of an `environment.yml`.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    channels: Vec<String>,
    #[serde(default)]
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Dependency {
    Spec(String),
    Pip { pip: Vec<String> },
}

/// `numpy=1.2`, one a line; `file://` references of the recording machine become the bare package.
fn of_list(text: &str) -> Wanted {
    let specs = effective_lines(text)
        .map(|line| line.split("@ file:").next().unwrap_or(line))
        .map(|line| line.split_whitespace().collect::<String>())
        .filter(|line| !line.is_empty());
    Wanted {
        specs: specs.collect(),
        ..Wanted::default()
    }
}

fn of_file(text: &str) -> Result<Wanted, String> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| one_line(&error.to_string()))?;
    let mut wanted = Wanted {
        channels: file.channels,
        ..Wanted::default()
    };
    for dependency in file.dependencies {
        match dependency {
            Dependency::Spec(spec) => wanted.specs.push(spec.split_whitespace().collect()),
            Dependency::Pip { pip } => wanted.pip.extend(pip),
        }
    }
    Ok(wanted)
}

fn name_of(spec: &str) -> String {
    let spec = spec.rsplit("::").next().unwrap_or(spec);
    package_name(
        spec.split(['=', '<', '>', '!', '~', '['])
            .next()
            .unwrap_or(spec),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_the_task_and_files_of_the_repository_are_read() {
        assert_eq!(
            of_list("# c\nnumpy = 1.2=py\npip @ file:///x/pip\n").specs,
            ["numpy=1.2=py", "pip"]
        );
        let file = "name: x\nchannels: [conda-forge]\ndependencies:\n  - python=3.11\n  - numpy >=1\n  - pip:\n    - six==1\n";
        let wanted = of_file(file).unwrap();
        assert_eq!(wanted.channels, ["conda-forge"]);
        assert_eq!(wanted.specs, ["python=3.11", "numpy>=1"]);
        assert_eq!(wanted.pip, ["six==1"]);
        assert!(of_file("dependencies: 3").is_err());
    }

    #[test]
    fn the_configuration_counts_where_something_is_listed_for_pip() {
        let options = Options {
            extra_index_url: vec!["https://index.example/simple".to_owned()],
            extra_flags: vec!["--no-binary".to_owned(), "six".to_owned()],
            best_match: true,
            ..Options::default()
        };
        let added = |pip: &[&str], options: &Options| {
            let mut wanted = Wanted {
                pip: pip.iter().map(|line| (*line).to_owned()).collect(),
                ..Wanted::default()
            };
            wanted.add_to_pip(options, &[]).unwrap();
            wanted
        };
        let wanted = added(&["six==1"], &options);
        assert_eq!(
            wanted.pip,
            ["--extra-index-url https://index.example/simple", "six==1"]
        );
        assert_eq!(
            wanted.pip_arguments,
            [
                "--no-binary",
                "six",
                "--index-strategy",
                "unsafe-best-match"
            ]
        );
        assert_eq!(added(&["# none"], &options), Wanted::default());
        let wanted = added(&["six==1"], &Options::default());
        assert_eq!(wanted.pip, ["six==1"]);
        assert_eq!(wanted.pip_arguments, [""; 0]);
    }

    #[test]
    fn names_of_specs_are_found() {
        for (spec, name) in [
            ("numpy=1", "numpy"),
            ("conda-forge::Six>=1", "six"),
            ("a[build=x]", "a"),
        ] {
            assert_eq!(name_of(spec), name);
        }
    }
}
