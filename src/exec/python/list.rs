//! The requirement list as the installer gets it, and its key.

mod line;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use self::line::{Line, absolute, logical_lines, plain_git, there};
use crate::exec::digest::hex;
use crate::exec::failure::Failure;
use crate::exec::plan::{Requirements, effective_lines};
use crate::exec::small;

/// Largest `requirements.txt`.
const MAX_FILE: u64 = 1 << 20;
/// Counts up when environments are made in another way.
const FORMAT: u32 = 2;
/// How deep requirement files may name others.
const MOST_FILES: usize = 16;
/// How many files are read for one list: two that name the next one twice, and so on, are soon more than memory holds.
const MOST_READ: usize = 100;

/// Requirements of one task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct List {
    /// What comes from elsewhere, as the installer reads it: the same for every task.
    pub text: String,
    /// What lies in the checkout: files and folders with absolute paths, for this task alone.
    pub local: String,
    /// Versions that hold for whatever is installed (`-c`).
    pub constraints: String,
    /// The repository's files that it came from.
    pub files: Vec<PathBuf>,
    /// A whole lock: nothing else is installed, and hashes count.
    pub exact: bool,
    /// What else decides on the content: the CUDA version that PyTorch was chosen for.
    pub beside: String,
    /// How many files were read because a line names them.
    pub read: usize,
}

impl List {
    /// Reads the requirements of a plan; relative paths of the task's own list start at `working_dir`.
    pub(super) fn read(requirements: &Requirements, working_dir: &Path) -> Result<Self, Failure> {
        let mut list = Self::default();
        match requirements {
            Requirements::Listed(text) => list.take(text, working_dir, 0)?,
            Requirements::Repository(folders) => {
                for folder in folders {
                    let file = folder.join("requirements.txt");
                    if file.is_file() {
                        list.take(&read(&file)?, folder, 0)?;
                        list.files.push(file);
                    }
                }
            }
        }
        list.text = last_of_clearml(&list.text);
        Ok(list)
    }

    /// A list that came as text and names nothing of the checkout.
    pub(super) fn of_text(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            ..Self::default()
        }
    }

    /// Sorts the lines of one file; files that it names are read in its place.
    pub(super) fn take(&mut self, text: &str, folder: &Path, depth: usize) -> Result<(), Failure> {
        if depth > MOST_FILES {
            return Err(Failure::new(
                "the requirement files name each other in a circle",
            ));
        }
        for line in logical_lines(text) {
            match Line::of(&line) {
                Line::File(name) => {
                    let file = folder.join(name);
                    let of_file = self.named(&file)?;
                    self.take(&of_file, file.parent().unwrap_or(folder), depth + 1)?;
                }
                Line::Constraints(name) => {
                    let of_file = self.named(&folder.join(name))?;
                    self.constraints.push_str(&of_file);
                    self.constraints.push('\n');
                }
                Line::Editable(path) | Line::Path(path) if !there(folder, path) => {
                    return Err(Failure::new(format!("requirement {path} is not there"))
                        .hint("is it committed to the repository?"));
                }
                Line::Editable(path) => {
                    push(&mut self.local, &format!("-e {}", absolute(folder, path)));
                }
                Line::Path(path) => push(&mut self.local, &absolute(folder, path)),
                Line::Reference(package, path) if there(folder, path) => {
                    push(
                        &mut self.local,
                        &format!("{package} @ file://{}", absolute(folder, path)),
                    );
                }
                // Only the machine that recorded the list had that file.
                Line::Reference(package, _) => push(&mut self.text, package),
                Line::EditableGit(source) => push(&mut self.text, &plain_git(source)),
                Line::Other => push(&mut self.text, &line),
            }
        }
        Ok(())
    }

    /// The text of a file that a line names.
    fn named(&mut self, file: &Path) -> Result<String, Failure> {
        self.read += 1;
        if self.read > MOST_READ {
            return Err(Failure::new(format!(
                "the requirement files name more than {MOST_READ} others"
            )));
        }
        read(file)
    }

    pub(super) fn is_empty(&self) -> bool {
        let asks = |text: &str| {
            effective_lines(text).any(|line| !line.starts_with('-') || line.starts_with("-e"))
        };
        !asks(&self.text) && !asks(&self.local)
    }

    pub(super) fn count(&self) -> usize {
        effective_lines(&self.text)
            .chain(effective_lines(&self.local))
            .count()
    }

    /// The lines that hold for all others: indexes and the like.
    pub(super) fn options(&self) -> String {
        let options: Vec<&str> = effective_lines(&self.text)
            .filter(|line| line.starts_with('-'))
            .collect();
        options.iter().flat_map(|line| [*line, "\n"]).collect()
    }

    /// The lines of these packages, as they stand in the list: hashes and all.
    pub(super) fn only(&self, names: &BTreeSet<String>) -> String {
        effective_lines(&self.text)
            .filter(|line| line.starts_with('-') || names.contains(&package_name(line)))
            .flat_map(|line| [line, "\n"])
            .collect()
    }

    /// Exact versions (`name==version`, one a line) with the hashes that this list wants of them.
    pub(super) fn hashed(&self, exact: &str) -> String {
        let mut text = String::new();
        for line in exact.lines() {
            text.push_str(line);
            let name = package_name(line);
            for listed in effective_lines(&self.text).filter(|line| package_name(line) == name) {
                if let Some((_, hashes)) = listed.split_once(" --hash") {
                    text.push_str(" --hash");
                    text.push_str(hashes);
                }
            }
            text.push('\n');
        }
        text
    }

    /// The name of the environment that the shared part of this list leads to in these surroundings.
    pub(super) fn key(&self, surroundings: &str) -> String {
        // Options apply to all lines and keep their order; requirements have none.
        let (options, packages): (Vec<&str>, Vec<&str>) =
            effective_lines(&self.text).partition(|line| line.starts_with('-'));
        let packages: BTreeSet<String> = packages.into_iter().map(without_blanks).collect();
        let mut hash = Sha256::new();
        hash.update(format!(
            "{FORMAT}\n{surroundings}\n{}\n{}\n",
            self.constraints, self.beside
        ));
        for line in options.into_iter().map(str::to_owned).chain(packages) {
            hash.update(line);
            hash.update("\n");
        }
        hex(&hash.finalize()[..16])
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let failed = |why: String| {
        Failure::new(format!(
            "the requirement file {} cannot be read: {why}",
            file.display()
        ))
        .hint("is it committed to the repository?")
    };
    // A link of the repository may lead to what never ends.
    let bytes = small::plain_bytes(file, MAX_FILE).map_err(|error| failed(error.to_string()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn push(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// `attrs == 1.0` and `attrs==1.0` are the same; a marker, a hash or an address keeps its words.
fn without_blanks(line: &str) -> String {
    if line.contains([';', '#', '@']) || line.contains("--") {
        return line.to_owned();
    }
    line.split_whitespace().collect()
}

/// Of `clearml` the last line counts (§7.6).
fn last_of_clearml(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let is_clearml = |line: &&str| package_name(line) == "clearml";
    let last = lines.iter().rposition(&is_clearml);
    let mut kept = String::new();
    for (at, line) in lines.iter().enumerate() {
        if !is_clearml(line) || Some(at) == last {
            push(&mut kept, line);
        }
    }
    kept
}

/// The normalised name that a requirement begins with (PEP 503).
pub(super) fn package_name(line: &str) -> String {
    let end = line
        .find(|c: char| !(c.is_alphanumeric() || "-_.".contains(c)))
        .unwrap_or(line.len());
    line[..end].to_ascii_lowercase().replace(['_', '.'], "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> String {
        List::of_text(text).key("python 3.11")
    }

    fn listed(text: &str, folder: &Path) -> Result<List, Failure> {
        List::read(&Requirements::Listed(text.to_owned()), folder)
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
        let mut with_torch = List::of_text("torch");
        with_torch.beside = "cuda 118".to_owned();
        assert_ne!(with_torch.key("python 3.11"), key("torch"));
    }

    #[test]
    fn what_lies_in_the_checkout_is_kept_apart() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("lib")).unwrap();
        let list = listed(
            "six\n-e ./lib[x]\n./lib\n.\nlib @ ./lib\n-e.\nnumpy @ file:///gone/numpy#sha256=1\n",
            &root,
        )
        .unwrap();
        assert_eq!(list.text, "six\nnumpy\n");
        let at = root.display();
        assert_eq!(
            list.local,
            format!("-e {at}/lib[x]\n{at}/lib\n{at}\nlib @ file://{at}/lib\n-e {at}\n")
        );
        let failure = listed("./gone\n", &root).unwrap_err();
        assert_eq!(failure.sentence, "requirement ./gone is not there");
    }

    #[test]
    fn files_that_are_named_are_read_in_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir(root.join("sub")).unwrap();
        std::fs::write(
            root.join("sub/more.txt"),
            "beta==2 \\\n    --hash=sha256:aa  # why\n-r deep.txt\n",
        )
        .unwrap();
        std::fs::write(root.join("sub/deep.txt"), "gamma\n").unwrap();
        std::fs::write(root.join("limits.txt"), "alpha<2").unwrap();
        let list = listed(
            "-r sub/more.txt\n--constraint=limits.txt\n--extra-index-url http://x\nalpha",
            root,
        )
        .unwrap();
        assert_eq!(
            list.text,
            "beta==2 --hash=sha256:aa\ngamma\n--extra-index-url http://x\nalpha\n"
        );
        assert_eq!(list.constraints, "alpha<2\n");
        assert_eq!(list.options(), "--extra-index-url http://x\n");
        assert!(
            listed("-r gone.txt", root)
                .unwrap_err()
                .sentence
                .contains("gone.txt cannot be read")
        );
        std::fs::write(root.join("me.txt"), "-r me.txt").unwrap();
        assert!(
            listed("-r me.txt", root)
                .unwrap_err()
                .sentence
                .contains("circle")
        );
    }

    #[test]
    fn files_that_are_none_or_too_many_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        // As a link to /dev/zero, which would fill the memory.
        std::os::unix::fs::symlink("/dev/null", root.join("device.txt")).unwrap();
        let sentence = |text: &str| listed(text, root).unwrap_err().sentence;
        let told = sentence("-r device.txt\n-c limits.txt");
        assert!(told.contains("it is no regular file"), "{told}");
        std::fs::write(root.join("long.txt"), "#".repeat((1 << 20) + 1)).unwrap();
        let told = sentence("-c long.txt");
        assert!(told.contains("longer than 1048576 bytes"), "{told}");
        for depth in 0..10 {
            let next = format!("-r {}.txt\n", depth + 1).repeat(2);
            std::fs::write(root.join(format!("{depth}.txt")), next).unwrap();
        }
        std::fs::write(root.join("10.txt"), "six\n").unwrap();
        let told = sentence("-r 0.txt");
        assert!(told.contains("more than 100 others"), "{told}");
    }

    #[test]
    fn what_only_the_recording_machine_had_is_mended() {
        let text = "-e git+https://git.example/a.git@0123#egg=a_b&subdirectory=x\nclearml==1\nsix\nclearml == 2";
        let list = listed(text, Path::new("/")).unwrap();
        assert_eq!(
            list.text,
            "a_b @ git+https://git.example/a.git@0123\nsix\nclearml == 2\n"
        );
    }

    #[test]
    fn files_from_the_root_down_become_one_list() {
        let root = tempfile::tempdir().unwrap();
        let sub = root.path().join("sub");
        std::fs::create_dir(&sub).unwrap();
        std::fs::write(root.path().join("requirements.txt"), "six").unwrap();
        let folders = Requirements::Repository(vec![root.path().to_owned(), sub.clone()]);
        let list = List::read(&folders, &sub).unwrap();
        assert_eq!((list.text.as_str(), list.files.len()), ("six\n", 1));
        std::fs::write(sub.join("requirements.txt"), "attrs").unwrap();
        assert_eq!(List::read(&folders, &sub).unwrap().text, "six\nattrs\n");
        std::fs::write(root.path().join("requirements.txt"), "# nothing").unwrap();
        std::fs::write(sub.join("requirements.txt"), "--pre\n").unwrap();
        assert!(List::read(&folders, &sub).unwrap().is_empty());
    }
}
