//! Programs of the image that were built before from the same sources, kept outside the clone: a fresh clone and another
//! branch take them instead of building for ten minutes.
//!
//! As with the cluster's programs the folder's name is a hash of all that decides what is built, and the folder appears
//! by a rename.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::{dirs, sh, tools};

/// What decides what is built, in the repository: files, and folders with all in them.
const INPUTS: [&str; 6] = [
    "Cargo.toml",
    "Cargo.lock",
    ".cargo/config.toml",
    "rust-toolchain.toml",
    "src",
    "xtask/src/image",
];

/// How many builds stay, each of about 40 MB.
const MOST: usize = 4;

const NAMES: [&str; 2] = ["trainyard", "trainyard-glibc"];

/// Over the compilers and every file that is compiled or says how.
pub fn key() -> Result<String> {
    let mut parts = vec![
        sh::output(
            sh::command("rustc")
                .arg("-vV")
                .current_dir(dirs::repository()),
        )?
        .into_bytes(),
        // Its folder is named after the versions in it.
        tools::program("cargo-zigbuild")?
            .into_os_string()
            .into_encoded_bytes(),
    ];
    for file in inputs()? {
        let within = file.strip_prefix(dirs::repository()).unwrap_or(&file);
        parts.push(within.as_os_str().as_encoded_bytes().to_vec());
        parts.push(fs::read(&file).with_context(|| format!("could not read {}", file.display()))?);
    }
    Ok(sh::short_hash(parts))
}

fn inputs() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut left: Vec<_> = INPUTS
        .iter()
        .map(|input| dirs::repository().join(input))
        .collect();
    while let Some(path) = left.pop() {
        if !path.is_dir() {
            files.push(path);
            continue;
        }
        let entries =
            fs::read_dir(&path).with_context(|| format!("could not read {}", path.display()))?;
        for entry in entries {
            left.push(entry?.path());
        }
    }
    files.sort();
    Ok(files)
}

/// The static program and the one for glibc, if they were built from the same before.
pub fn find(key: &str) -> Result<Option<[PathBuf; 2]>> {
    let folder = store()?.join(key);
    Ok(folder.is_dir().then(|| NAMES.map(|name| folder.join(name))))
}

/// Keeps what was built under `key`, and lets go of the oldest.
pub fn keep(key: &str, built: [&Path; 2]) -> Result<()> {
    for program in built {
        check_sources(program)?;
    }
    // Sources that were edited meanwhile: nobody knows which of them were compiled.
    if self::key()? != key {
        return Ok(());
    }
    let store = store()?;
    let beside = store.join(format!("copying-{}", std::process::id()));
    sh::make_dir(&beside)?;
    for (name, program) in NAMES.iter().zip(built) {
        fs::copy(program, beside.join(name))
            .with_context(|| format!("could not copy {}", program.display()))?;
    }
    let kept = store.join(key);
    match fs::rename(&beside, &kept) {
        // Another clone was faster.
        Err(_) if kept.is_dir() => sh::remove(&beside)?,
        renamed => renamed.with_context(|| format!("could not create {}", kept.display()))?,
    }
    forget_oldest(&store)
}

/// The compiler's own list of what it read: a source that [`INPUTS`] does not name would be missed by the key.
fn check_sources(program: &Path) -> Result<()> {
    let list = program.with_extension("d");
    let text =
        fs::read_to_string(&list).with_context(|| format!("could not read {}", list.display()))?;
    match foreign(&text, dirs::repository()) {
        Some(path) => {
            bail!("the program was made of {path} too: name it in xtask/src/image/kept.rs")
        }
        None => Ok(()),
    }
}

/// The first path in cargo's list of dependencies, in make's syntax, that is no input.
fn foreign<'a>(list: &'a str, repository: &Path) -> Option<&'a str> {
    let (_, sources) = list.split_once(": ")?;
    sources.split_whitespace().find(|path| {
        !INPUTS
            .iter()
            .any(|input| Path::new(path).starts_with(repository.join(input)))
    })
}

fn forget_oldest(store: &Path) -> Result<()> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(store)? {
        let entry = entry?;
        let made = entry
            .metadata()?
            .modified()
            .unwrap_or(SystemTime::UNIX_EPOCH);
        kept.push((made, entry.path()));
    }
    kept.sort();
    let surplus = kept.len().saturating_sub(MOST);
    for (_, folder) in kept.drain(..surplus) {
        sh::remove(folder)?;
    }
    Ok(())
}

fn store() -> Result<PathBuf> {
    Ok(dirs::cache()?.join("programs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_the_key_does_not_know_is_found() {
        let repository = Path::new("/clone");
        let known = "/out/trainyard: /clone/src/main.rs /clone/src/server/page/page.js\n";
        assert_eq!(foreign(known, repository), None);
        let unknown = "/out/trainyard: /clone/src/main.rs /clone/docs/failures.md\n";
        assert_eq!(
            foreign(unknown, repository),
            Some("/clone/docs/failures.md")
        );
        let neighbour = "/out/trainyard: /clone/srcs/main.rs\n";
        assert_eq!(foreign(neighbour, repository), Some("/clone/srcs/main.rs"));
    }

    #[test]
    fn the_oldest_builds_go() {
        let store = std::env::temp_dir().join(format!("trainyard-kept-{}", std::process::id()));
        let begin = SystemTime::UNIX_EPOCH;
        for age in 0..6_u64 {
            let folder = store.join(age.to_string());
            sh::make_dir(&folder).unwrap();
            let made = begin + std::time::Duration::from_secs(age);
            fs::File::open(&folder).unwrap().set_modified(made).unwrap();
        }
        forget_oldest(&store).unwrap();
        let mut left: Vec<_> = fs::read_dir(&store)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        sh::remove(&store).unwrap();
        assert_eq!(left, ["2", "3", "4", "5"]);
    }
}
