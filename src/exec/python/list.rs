//! The requirement list as the installer gets it, and its key.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::exec::failure::Failure;
use crate::exec::plan::{Requirements, effective_lines};

/// Largest `requirements.txt`.
const MAX_FILE: u64 = 1 << 20;
/// Counts up when environments are made in another way.
const FORMAT: u32 = 1;

/// Requirements of one task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct List {
    /// As the installer reads it.
    pub text: String,
    /// The repository's files that it came from.
    pub files: Vec<PathBuf>,
    /// Whether it names files or folders of the checkout: then it holds for this task alone.
    local: bool,
}

impl List {
    /// Reads the requirements of a plan.
    pub(super) fn read(requirements: &Requirements) -> Result<Self, Failure> {
        match requirements {
            Requirements::Listed(text) => {
                Ok(Self::of_text(&rewritten(text, &|path| path.exists())))
            }
            Requirements::Repository(folders) => Self::of_files(folders),
        }
    }

    /// A list that came as text.
    pub(super) fn of_text(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            files: Vec::new(),
            local: effective_lines(text).any(is_local),
        }
    }

    fn of_files(folders: &[PathBuf]) -> Result<Self, Failure> {
        let mut list = Self::default();
        let mut plain = String::new();
        for file in folders
            .iter()
            .map(|folder| folder.join("requirements.txt"))
            .filter(|file| file.is_file())
        {
            let failed =
                |why: String| Failure::new(format!("could not read {}: {why}", file.display()));
            let size = file
                .metadata()
                .map_err(|error| failed(error.to_string()))?
                .len();
            if size > MAX_FILE {
                return Err(failed(format!(
                    "it has {size} bytes, at most {MAX_FILE} are accepted"
                )));
            }
            let bytes = std::fs::read(&file).map_err(|error| failed(error.to_string()))?;
            let text = String::from_utf8_lossy(&bytes);
            list.local |= effective_lines(&text).any(is_local);
            plain.push_str(&text);
            plain.push('\n');
            list.files.push(file);
        }
        // Files that name others are read by the installer itself, in their own folder.
        list.text = if list.local {
            let lines: Vec<String> = list
                .files
                .iter()
                .map(|file| format!("-r {}\n", file.display()))
                .collect();
            lines.concat()
        } else {
            rewritten(&plain, &|path| path.exists())
        };
        if effective_lines(&plain).next().is_none() {
            list.text.clear();
        }
        Ok(list)
    }

    pub(super) fn is_empty(&self) -> bool {
        effective_lines(&self.text).next().is_none()
    }

    pub(super) fn count(&self) -> usize {
        effective_lines(&self.text).count()
    }

    /// Whether it names what lies on this machine.
    pub(super) fn is_local(&self) -> bool {
        self.local
    }

    /// The lines that hold for all others: indexes and the like.
    pub(super) fn options(&self) -> String {
        let options: Vec<&str> = effective_lines(&self.text)
            .filter(|line| line.starts_with('-'))
            .collect();
        options.iter().flat_map(|line| [*line, "\n"]).collect()
    }

    /// The name of the environment that this list leads to in these surroundings; `None` if it is for this task
    /// alone.
    pub(super) fn key(&self, surroundings: &str) -> Option<String> {
        if self.local {
            return None;
        }
        // Options apply to all lines and keep their order; requirements have none.
        let (options, packages): (Vec<&str>, Vec<&str>) =
            effective_lines(&self.text).partition(|line| line.starts_with('-'));
        let packages: BTreeSet<String> = packages.into_iter().map(without_blanks).collect();
        let mut hash = Sha256::new();
        hash.update(format!("{FORMAT}\n{surroundings}\n"));
        for line in options.into_iter().map(str::to_owned).chain(packages) {
            hash.update(line);
            hash.update("\n");
        }
        let mut key = String::new();
        for byte in &hash.finalize()[..16] {
            let _ = write!(key, "{byte:02x}");
        }
        Some(key)
    }
}

/// `attrs == 1.0` and `attrs==1.0` are the same; a marker or a comment keeps its words.
fn without_blanks(line: &str) -> String {
    if line.contains([';', '#', '@']) {
        return line.to_owned();
    }
    line.split_whitespace().collect()
}

/// Whether a line refers to something that lies on this machine.
fn is_local(line: &str) -> bool {
    let refers = [
        "-r",
        "-c",
        "-e",
        "--requirement",
        "--constraint",
        "--editable",
    ]
    .iter()
    .any(|option| {
        line.strip_prefix(option)
            .is_some_and(|rest| rest.starts_with([' ', '\t', '=']) || option.len() == 2)
    });
    let path = ["./", "../", "/", "file:"]
        .iter()
        .any(|start| line.starts_with(start))
        || line == ".";
    refers || path || line.contains("@ file:") || line.contains("@file:")
}

/// Mends what only the machine that recorded the list could install (§7.6): references to files that are not here
/// become the bare package, editable git checkouts become plain ones, of `clearml` the last line counts.
fn rewritten(text: &str, exists: &dyn Fn(&Path) -> bool) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let line = line.trim();
            if let Some((package, path)) = line.split_once("@ file://") {
                let path = path.split(['#', ';']).next().unwrap_or(path).trim();
                let here = exists(Path::new(path));
                return if here {
                    line.to_owned()
                } else {
                    package.trim().to_owned()
                };
            }
            match line
                .strip_prefix("-e ")
                .map(str::trim)
                .filter(|source| source.starts_with("git+"))
            {
                Some(source) => match source.split_once("#egg=") {
                    Some((address, name)) => {
                        format!("{} @ {address}", name.split('&').next().unwrap_or(name))
                    }
                    None => source.to_owned(),
                },
                None => line.to_owned(),
            }
        })
        .collect();
    let is_clearml = |line: &&String| package_name(line) == "clearml";
    let last = lines.iter().rposition(|line| is_clearml(&line));
    let mut kept = String::new();
    for (at, line) in lines.iter().enumerate() {
        if !is_clearml(&line) || Some(at) == last {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// The normalised name that a requirement begins with (PEP 503).
fn package_name(line: &str) -> String {
    let end = line
        .find(|c: char| !(c.is_alphanumeric() || "-_.".contains(c)))
        .unwrap_or(line.len());
    line[..end].to_ascii_lowercase().replace(['_', '.'], "-")
}

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

/// The packages that `uv pip install --dry-run` would install, one exact version a line; `None` if some have none.
pub(super) fn additions(output: &str) -> Option<String> {
    let mut additions = String::new();
    for line in output.lines().map(str::trim) {
        let Some(package) = line.strip_prefix("+ ").or_else(|| line.strip_prefix("~ ")) else {
            continue;
        };
        let (name, version) = package.split_once("==")?;
        if name.contains(' ') || version.contains(' ') {
            return None;
        }
        let _ = writeln!(additions, "{name}=={version}");
    }
    Some(additions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Option<String> {
        List::of_text(text).key("python 3.11")
    }

    #[test]
    fn order_blanks_and_comments_do_not_change_the_key_and_versions_do() {
        assert_eq!(
            key("# Python\nattrs == 1\nsix==2\n"),
            key("six==2\nattrs==1")
        );
        assert_ne!(key("attrs==1"), key("attrs==2"));
        assert_ne!(
            key("attrs==1"),
            List::of_text("attrs==1").key("python 3.12")
        );
        assert_ne!(key("--pre\nattrs"), key("attrs"));
    }

    #[test]
    fn what_refers_to_the_checkout_is_not_shared() {
        for line in [
            "-r other.txt",
            "-e .",
            ".",
            "./lib",
            "-c limits.txt",
            "lib @ file:///x",
            "--requirement=x",
            "-rx",
        ] {
            assert_eq!(key(line), None, "{line}");
        }
        assert!(key("--extra-index-url http://x\ntorch").is_some());
        assert!(key("lib @ git+https://git.example/lib@1").is_some());
    }

    #[test]
    fn what_only_the_recording_machine_had_is_mended() {
        let exists = |path: &Path| path == Path::new("/here");
        let text = "numpy @ file:///croot/numpy/work#sha256=1\nlib @ file:///here\n\
            -e git+https://git.example/a.git@0123#egg=a_b&subdirectory=x\nclearml==1\nsix\nclearml == 2";
        assert_eq!(
            rewritten(text, &exists),
            "numpy\nlib @ file:///here\na_b @ git+https://git.example/a.git@0123\nsix\nclearml == 2\n"
        );
    }

    #[test]
    fn files_from_the_root_down_become_one_list() {
        let root = tempfile::tempdir().unwrap();
        let sub = root.path().join("sub");
        std::fs::create_dir(&sub).unwrap();
        std::fs::write(root.path().join("requirements.txt"), "six").unwrap();
        let folders = [root.path().to_owned(), sub.clone()];
        let list = List::read(&Requirements::Repository(folders.to_vec())).unwrap();
        assert_eq!((list.text.as_str(), list.files.len()), ("six\n", 1));
        std::fs::write(sub.join("requirements.txt"), "-r more.txt").unwrap();
        let list = List::read(&Requirements::Repository(folders.to_vec())).unwrap();
        assert_eq!(
            list.text,
            format!(
                "-r {}\n-r {}\n",
                root.path().join("requirements.txt").display(),
                sub.join("requirements.txt").display()
            )
        );
        assert_eq!(list.key("x"), None);
        std::fs::write(root.path().join("requirements.txt"), "# nothing").unwrap();
        let list = List::read(&Requirements::Repository(vec![root.path().to_owned()])).unwrap();
        assert!(list.is_empty());
    }

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
    fn what_uv_would_change_becomes_exact_versions() {
        let output = "Resolved 2 packages in 1ms\n - attrs==26\n + attrs==23.1\n ~ six==1\n";
        assert_eq!(additions(output).as_deref(), Some("attrs==23.1\nsix==1\n"));
        assert_eq!(additions("Would make no changes\n").as_deref(), Some(""));
        assert_eq!(
            additions(" + six==1.17.0 (from git+https://git.example/six@1)\n"),
            None
        );
    }
}
