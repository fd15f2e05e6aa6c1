//! Lays a task's own text over the checkout: the uncommitted changes, or a whole script (§7.4).

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use super::failure::Failure;
use super::small;
use super::tool::{self, Log};

/// Time for `git apply`; it reads and writes local files alone.
const LIMIT: Duration = Duration::from_mins(5);

/// Applies a git diff at the root of the checkout: all of it or nothing.
pub async fn apply(patch: &str, root: &Path, git: &Path, log: &mut Log<'_>) -> Result<(), Failure> {
    let mut command = Command::new(git);
    command
        .args(["apply", "--unidiff-zero", "--whitespace=nowarn", "-"])
        .current_dir(root);
    command
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_GLOBAL", "/dev/null");
    command
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*");
    // The last newline is easily lost on the way through forms and clipboards.
    let patch = format!("{patch}\n");
    let ended = tool::run(command, Some(patch.as_bytes()), LIMIT, log)
        .await
        .map_err(|trouble| {
            Failure::new(format!(
                "could not apply the uncommitted changes: {trouble}"
            ))
        })?;
    if !ended.status.success() {
        return Err(explain(&ended.output));
    }
    let files = patch
        .lines()
        .filter(|line| line.starts_with("diff --git "))
        .count();
    log(&format!("applied the uncommitted changes of {files} files"));
    Ok(())
}

/// PURE: what `git apply` printed -> which file does not fit, and why.
fn explain(output: &str) -> Failure {
    let what = "the task's uncommitted changes do not apply";
    let errors: Vec<&str> = output
        .lines()
        .filter_map(|line| line.strip_prefix("error: "))
        .collect();
    for error in &errors {
        if let Some(place) = error.strip_prefix("patch failed: ") {
            let (file, line) = place.rsplit_once(':').unwrap_or((place, "?"));
            return Failure::new(format!("{what}: {file} differs at line {line} from what was changed"))
                .hint("the recorded commit is not the one that was changed; commit and push, then enqueue again");
        }
        if let Some(file) = between(
            error,
            "cannot apply binary patch to '",
            "' without full index line",
        ) {
            return Failure::new(format!(
                "{what}: the binary file {file} was changed, but its content was not recorded"
            ))
            .hint("commit and push that file, then enqueue again");
        }
        let known = [
            (": No such file or directory", "is not in the commit"),
            (": does not exist in index", "is not in the commit"),
            (
                ": already exists in working directory",
                "is in the commit already",
            ),
        ];
        for (ending, sentence) in known {
            if let Some(file) = error.strip_suffix(ending) {
                return Failure::new(format!("{what}: {file} {sentence}"));
            }
        }
    }
    let said = errors
        .first()
        .copied()
        .or_else(|| output.lines().last())
        .unwrap_or("git gives no reason");
    Failure::new(format!("{what}: {said}"))
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.strip_prefix(before)?.strip_suffix(after)
}

/// Writes a stand-alone script below `root`. A file of that name is kept; the answer is a remark for the log.
pub fn write_script(path: &Path, text: &str, root: &Path) -> Result<Option<String>, Failure> {
    let name = path
        .strip_prefix(root)
        .unwrap_or(path)
        .display()
        .to_string();
    let failed =
        |error: std::io::Error| Failure::new(format!("could not write the script {name}: {error}"));
    let folder = path.parent().unwrap_or(root);
    std::fs::create_dir_all(folder).map_err(failed)?;
    let (folder, root) = (
        folder.canonicalize().map_err(failed)?,
        root.canonicalize().map_err(failed)?,
    );
    if !folder.starts_with(&root) {
        return Err(Failure::new(format!(
            "the folder of the script {name} is a link that leads out of the checkout"
        )));
    }
    match std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
    {
        Ok(mut file) => {
            file.write_all(text.as_bytes()).map_err(failed)?;
            Ok(None)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            // A link of the repository may lead to what never ends.
            let held = small::plain_bytes(path, text.len() as u64);
            let same = held.is_ok_and(|held| held == text.as_bytes());
            Ok((!same).then(|| {
                format!("{name} is in the repository with other content: that file is run")
            }))
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_does_not_fit_is_named() {
        for (output, expected) in [
            (
                "error: patch failed: a b.py:10\nerror: a b.py: patch does not apply\n",
                "a b.py differs at line 10",
            ),
            (
                "error: gone.py: No such file or directory\n",
                "gone.py is not in the commit",
            ),
            (
                "error: new.py: already exists in working directory\n",
                "new.py is in the commit already",
            ),
            (
                "error: cannot apply binary patch to 'x.bin' without full index line\n",
                "the binary file x.bin was changed",
            ),
            (
                "error: corrupt patch at line 7\n",
                "corrupt patch at line 7",
            ),
        ] {
            let sentence = explain(output).sentence;
            assert!(sentence.contains(expected), "{sentence}");
        }
    }

    #[test]
    fn a_script_is_written_and_an_existing_file_kept() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/train.py");
        assert_eq!(write_script(&path, "print(1)", root.path()).unwrap(), None);
        assert_eq!(write_script(&path, "print(1)", root.path()).unwrap(), None);
        assert!(
            write_script(&path, "print(2)", root.path())
                .unwrap()
                .unwrap()
                .starts_with("a/train.py is in")
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "print(1)");
    }

    #[test]
    fn what_stands_in_a_scripts_place_is_not_read_beyond_its_length() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().to_owned();
        let path = folder.join("train.py");
        // A pipe that nobody writes to is as endless as /dev/zero, and takes no memory.
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (told, outcome) = std::sync::mpsc::channel();
        // If it waits, it waits in a thread that the test leaves behind.
        std::thread::spawn(move || told.send(write_script(&path, "print(1)", &folder)));
        let remark = outcome.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(remark.unwrap().is_some());
    }

    #[test]
    fn a_link_does_not_lead_out_of_the_checkout() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(outside.path(), root.path().join("out")).unwrap();
        assert!(write_script(&root.path().join("out/x.py"), "1", root.path()).is_err());
        assert!(!outside.path().join("x.py").exists());
    }
}
