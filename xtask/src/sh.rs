//! Running other programs: what fails says which program, how it ended and its own last words, in one line.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest, Sha256};

use crate::cluster::layout::{POD_NET, SERVICE_NET};

/// Runs `command` without showing its output and returns what it wrote to stdout.
pub fn output(command: &mut Command) -> Result<String> {
    let output = capture(command)?;
    if !output.status.success() {
        bail!("{}", failure(command, &output));
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}

/// Runs `command` without showing its output.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs `command` and says whether it succeeded; its output is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    capture(command).is_ok_and(|output| output.status.success())
}

/// Runs `command` with its output on the terminal, for work whose progress is worth seeing.
pub fn show(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("could not start `{}`", name(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", line(command));
    }
    Ok(())
}

/// Runs `command` with `input` on its stdin.
pub fn feed(command: &mut Command, input: &str) -> Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start `{}`", name(command)))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{}", failure(command, &output));
    }
    Ok(())
}

fn capture(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("could not start `{}`", name(command)))
}

fn name(command: &Command) -> String {
    Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program())
        .to_string_lossy()
        .into_owned()
}

/// The command as typed, shortened so that an error stays one readable line.
fn line(command: &Command) -> String {
    let mut line = name(command);
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    if line.chars().count() > 160 {
        line = line.chars().take(160).collect();
        line.push('…');
    }
    line
}

fn failure(command: &Command, output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let text = if stderr.trim().is_empty() {
        stdout
    } else {
        stderr
    };
    let mut last: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let keep = last.len().saturating_sub(3);
    last.drain(..keep);
    format!(
        "`{}` failed ({}): {}",
        line(command),
        output.status,
        last.join(" | ")
    )
}

/// `PATH`, and after it the folders where Debian keeps what only root calls.
fn path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = [
        "/usr/local/sbin",
        "/usr/sbin",
        "/sbin",
        "/usr/local/bin",
        "/usr/bin",
        "/bin",
    ]
    .map(PathBuf::from);
    // Joining fails only for a folder with a colon in its name, which splitting does not yield.
    std::env::join_paths(std::env::split_paths(&path).chain(usual)).unwrap_or(path)
}

/// Where `program` is.
pub fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&path())
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// A command for `program` (a name or a path) that finds root's programs whoever calls it, and that does not send
/// what is meant for the local cluster to the proxy of this machine.
pub fn command(program: impl AsRef<Path>) -> Command {
    let program = program.as_ref();
    let found = program
        .to_str()
        .filter(|name| !name.contains('/'))
        .and_then(find);
    let mut command = Command::new(found.unwrap_or_else(|| program.to_owned()));
    let ours = format!("localhost,127.0.0.1,{POD_NET},{SERVICE_NET}");
    for variable in ["NO_PROXY", "no_proxy"] {
        let theirs = std::env::var(variable).unwrap_or_default();
        command.env(
            variable,
            if theirs.is_empty() {
                ours.clone()
            } else {
                format!("{theirs},{ours}")
            },
        );
    }
    command.env("PATH", path());
    command
}

/// Asks `ready` every 50 ms until it holds; `what` names it in the error.
pub fn wait_for(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let start = Instant::now();
    loop {
        if ready()? {
            return Ok(());
        }
        if start.elapsed() > limit {
            return Err(anyhow!("{what} is not ready after {} s", limit.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The first 16 hexadecimal digits of the SHA-256 over all `parts`, each with its length.
pub fn short_hash<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.as_ref().len() as u64).to_le_bytes());
        hash.update(part.as_ref());
    }
    hex(&hash.finalize())[..16].to_owned()
}

/// The SHA-256 of a file, in hexadecimal digits.
pub fn file_hash(path: &Path) -> Result<String> {
    let mut file =
        fs::File::open(path).with_context(|| format!("could not open {}", path.display()))?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash)?;
    Ok(hex(&hash.finalize()))
}

/// Lower-case hexadecimal digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Writes a file whole; the folder must exist.
pub fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<()> {
    let path = path.as_ref();
    fs::write(path, content).with_context(|| format!("could not write {}", path.display()))
}

/// Makes a folder and those above it.
pub fn make_dir(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    fs::create_dir_all(path).with_context(|| format!("could not create {}", path.display()))
}

/// Removes a file or a folder with all in it; that there is none is success.
pub fn remove(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let removed = match fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    removed.with_context(|| format!("could not remove {}", path.display()))
}

/// Arguments of mixed string types as one list.
pub fn arguments<T: AsRef<OsStr>>(list: impl IntoIterator<Item = T>) -> Vec<OsString> {
    list.into_iter()
        .map(|argument| argument.as_ref().to_owned())
        .collect()
}

/// Says what is being done and, when done, how long it took.
pub fn timed<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("{what} ...");
    let start = Instant::now();
    let result = work().with_context(|| what.to_owned())?;
    eprintln!("{what}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_program_and_its_last_words() {
        let error = run(command("sh").args(["-c", "echo one >&2; echo two >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("sh -c") && error.contains("one | two") && error.contains('3'),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1);
    }

    #[test]
    fn the_hash_depends_on_where_one_part_ends() {
        assert_ne!(short_hash(["ab", "c"]), short_hash(["a", "bc"]));
    }
}
