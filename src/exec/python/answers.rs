//! What uv answers: what it would install, and what is installed.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::list::package_name;
use crate::exec::plan::effective_lines;

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
}

/// The installed versions (`uv pip list --format json`) of the packages that `listed` names.
pub(super) fn versions(json: &str, listed: &str) -> Option<Vec<String>> {
    let installed: Vec<Package> = serde_json::from_str(json.trim()).ok()?;
    let listed: BTreeSet<String> = effective_lines(listed).map(package_name).collect();
    let named = installed
        .into_iter()
        .filter(|package| listed.contains(&package_name(&package.name)));
    Some(
        named
            .map(|package| format!("{}=={}", package.name, package.version))
            .collect(),
    )
}

/// What is recorded in the task: all of the environment (`frozen`), and the listed packages that the image brings.
pub(super) fn installed(frozen: &str, of_the_image: Vec<String>) -> Vec<String> {
    let mut installed: Vec<String> = effective_lines(frozen).map(str::to_owned).collect();
    let names: BTreeSet<String> = installed.iter().map(|line| package_name(line)).collect();
    let rest = of_the_image
        .into_iter()
        .filter(|line| !names.contains(&package_name(line)));
    installed.extend(rest);
    installed.sort_by_key(|line| line.to_ascii_lowercase());
    installed
}

/// What `uv pip install --dry-run` would install.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Additions {
    /// From an index: `name==version`.
    pub indexed: Vec<(String, String)>,
    /// From somewhere else: name, and where from.
    pub others: Vec<(String, String)>,
}

impl Additions {
    pub(super) fn is_empty(&self) -> bool {
        self.indexed.is_empty() && self.others.is_empty()
    }

    pub(super) fn names(&self) -> BTreeSet<String> {
        self.indexed
            .iter()
            .chain(&self.others)
            .map(|(name, _)| package_name(name))
            .collect()
    }

    /// One exact version a line.
    pub(super) fn text(&self) -> String {
        let lines = self
            .indexed
            .iter()
            .map(|(name, version)| format!("{name}=={version}\n"));
        lines.collect()
    }
}

/// Reads what uv says that it would change.
pub(super) fn additions(output: &str) -> Additions {
    let mut additions = Additions::default();
    for line in output.lines().map(str::trim) {
        let Some(package) = line.strip_prefix("+ ").or_else(|| line.strip_prefix("~ ")) else {
            continue;
        };
        match package.split_once(" (from ") {
            Some((package, from)) => {
                let name = package.split("==").next().unwrap_or(package);
                additions
                    .others
                    .push((name.to_owned(), from.trim_end_matches(')').to_owned()));
            }
            // What is not built yet has no version.
            None => match (package.split_once(" @ "), package.split_once("==")) {
                (Some((name, from)), _) => {
                    additions.others.push((name.to_owned(), from.to_owned()));
                }
                (None, Some((name, version))) => {
                    additions
                        .indexed
                        .push((name.to_owned(), version.to_owned()));
                }
                (None, None) => {}
            },
        }
    }
    additions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::python::list::List;

    #[test]
    fn of_an_image_only_the_listed_packages_count() {
        let json = r#"[{"name":"Torch_Vision","version":"1"},{"name":"six","version":"2"}]"#;
        let of_the_image = versions(json, "torch-vision>=0\nalpha\n").unwrap();
        assert_eq!(of_the_image, ["Torch_Vision==1"]);
        assert_eq!(
            installed("alpha==1\n", of_the_image),
            ["alpha==1", "Torch_Vision==1"]
        );
        assert_eq!(installed("six==3\n", vec!["Six==2".to_owned()]), ["six==3"]);
    }

    #[test]
    fn what_uv_would_change_is_read() {
        let output = "Resolved 2 packages in 1ms\n - attrs==26\n + attrs==23.1\n ~ six==1\n + lib==0.1 (from file:///x/lib)\n + new @ git+https://h/new@c0\n";
        let found = additions(output);
        assert_eq!(found.text(), "attrs==23.1\nsix==1\n");
        assert_eq!(
            found.others,
            [
                ("lib".to_owned(), "file:///x/lib".to_owned()),
                ("new".to_owned(), "git+https://h/new@c0".to_owned())
            ]
        );
        assert!(additions("Would make no changes\n").is_empty());
        let list = List::of_text("--pre\nattrs==23.1 --hash=sha256:aa\nother\n");
        assert_eq!(
            list.hashed(&found.text()),
            "attrs==23.1 --hash=sha256:aa\nsix==1\n"
        );
        assert_eq!(
            list.only(&found.names()),
            "--pre\nattrs==23.1 --hash=sha256:aa\n"
        );
    }
}
