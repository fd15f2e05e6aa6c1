//! Checks out the wanted commit with the `git` program, as cheaply as the server allows.
//!
//! ```text
//! server ──what is new──▶ the cache's copy ──one commit──▶ checkout ──▶ submodules, the same way ──▶ files of Git LFS
//!    └──────────────without a cache──────────────▶┘
//! ```
//!
//! Runs in `prepare` alone: credentials stay there. They go to git by a credential helper for the repository's own
//! host, never by an argument or a file of the checkout.

mod access;
mod call;
mod explain;
mod mirror;
mod options;
mod submodules;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::access::Access;
use self::call::Git;
use self::mirror::{Mirror, Mirrors, Place};
pub use self::options::{Login, Options, Scheme};
use super::failure::Failure;
use super::plan::{Checkout, Revision};
use super::tool::Log;

/// How long a transfer may stand still before it is tried again.
pub const STALL: Duration = Duration::from_secs(30);

/// What checking out needs beside the repository.
#[derive(Debug, Clone)]
pub struct GitSettings {
    /// The program.
    pub git: PathBuf,
    /// Folder of the mounted credentials (`pod::GIT_CREDENTIALS`): `username`, `password` or `token`,
    /// `ssh-privatekey`.
    pub credentials: Option<PathBuf>,
    /// Mounted `known_hosts` (`pod::GIT_KNOWN_HOSTS`).
    pub known_hosts: Option<PathBuf>,
    /// The certificates that servers are checked by; absent: git's own.
    pub trusted: Option<PathBuf>,
    /// Longest time that one call of git may take. A transfer that stands still is ended much sooner.
    pub limit: Duration,
    /// How long a transfer over HTTP may stand still.
    pub stall: Duration,
    /// Folder of the cached repositories (`pod::GIT_CACHE`), if the cache outlives the pod.
    pub mirrors: Option<PathBuf>,
    /// Largest size of the whole cache, of which repositories have a part.
    pub mirror_limit: Option<u64>,
    pub options: Options,
}

impl Default for GitSettings {
    fn default() -> Self {
        Self {
            git: "git".into(),
            credentials: None,
            known_hosts: None,
            trusted: None,
            limit: Duration::from_hours(1),
            stall: STALL,
            mirrors: None,
            mirror_limit: None,
            options: Options::default(),
        }
    }
}

/// What was checked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// All its digits.
    pub commit: String,
}

/// Brings the wanted revision of the repository, its submodules included, into `dest`; what was there is removed.
pub async fn checkout(
    wanted: &Checkout,
    dest: &Path,
    settings: &GitSettings,
    log: &mut Log<'_>,
) -> Result<Checked, Failure> {
    let begun = Instant::now();
    let access = Access::new(wanted, settings)?;
    let git = Git {
        wanted,
        folder: dest,
        settings,
        access: &access,
        shared: false,
    };
    empty(dest)
        .map_err(|error| Failure::new(format!("could not empty {}: {error}", dest.display())))?;
    log(&format!(
        "checking out {} of {}",
        described(&wanted.revision),
        wanted.url
    ));

    git.must(&["init", "--quiet", "."], log).await?;
    git.must(&["remote", "add", "origin", &wanted.url], log)
        .await?;
    let mirrors = Mirrors::open(settings, log);
    let (commit, mirror) = fetch(&git, mirrors.as_ref(), log).await?;
    git.must(
        &["checkout", "--quiet", "--force", "--detach", &commit],
        log,
    )
    .await?;
    submodules::bring(&git, mirrors.as_ref(), log).await?;
    large_files(&git, mirror.as_ref(), log).await?;
    log(&format!(
        "checked out {commit} in {:.1} s",
        begun.elapsed().as_secs_f64()
    ));
    Ok(Checked { commit })
}

/// Fetches the history of what was checked out, and the tags: some packages make their version of them.
pub async fn deepen(
    wanted: &Checkout,
    dest: &Path,
    settings: &GitSettings,
    log: &mut Log<'_>,
) -> Result<(), Failure> {
    let access = Access::new(wanted, settings)?;
    let git = Git {
        wanted,
        folder: dest,
        settings,
        access: &access,
        shared: false,
    };
    if !dest.join(".git/shallow").exists() {
        return Ok(());
    }
    log("the package makes its version of tags: fetching its history");
    git.must(
        &["fetch", "--quiet", "--unshallow", "--tags", "origin"],
        log,
    )
    .await
    .map(drop)
    .map_err(Failure::from)
}

/// Keeps the cache of repositories within its share; the bytes that it takes.
pub fn tidy(settings: &GitSettings, log: &mut Log<'_>) -> u64 {
    Mirrors::open(settings, &mut |_: &str| {}).map_or(0, |mirrors| mirrors.tidy(log))
}

/// The commit that is wanted: by way of the cache, or straight from the server.
async fn fetch(
    git: &Git<'_>,
    mirrors: Option<&Mirrors>,
    log: &mut Log<'_>,
) -> Result<(String, Option<Mirror>), Failure> {
    if let Some(mirrors) = mirrors {
        match mirrors.bring(git, Place::Checkout, log).await {
            Ok((fetched, mirror)) => return Ok((fetched.commit, Some(mirror))),
            Err(mirror::Trouble::Told(failure)) => return Err(failure),
            Err(mirror::Trouble::Cache(why)) => log(&passed_over(&git.wanted.url, &why)),
        }
    }
    Ok((git.fetch_wanted(log).await?.commit, None))
}

fn passed_over(url: &str, why: &str) -> String {
    format!("the cached copy of {url} cannot be used ({why}): it is fetched for this task alone")
}

fn described(revision: &Revision) -> String {
    match revision {
        Revision::Commit(commit) => format!("commit {commit}"),
        Revision::Tag(tag) => format!("tag {tag}"),
        Revision::Branch(branch) => format!("branch {branch}"),
        Revision::Any(name) => name.clone(),
        Revision::Default => "the default branch".to_owned(),
    }
}

/// Makes `dest` an empty folder; the folder itself may be a mount point and stays.
fn empty(dest: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dest)?;
    for entry in std::fs::read_dir(dest)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Files of Git LFS come if its program is there; otherwise the task's user is told what to expect.
async fn large_files(
    git: &Git<'_>,
    mirror: Option<&Mirror>,
    log: &mut Log<'_>,
) -> Result<(), Failure> {
    let asked = ["grep", "--quiet", "filter=lfs", "--", "*.gitattributes"];
    let asked = git.call(&asked, &mut |_: &str| {}).await?;
    if !asked.status.success() {
        return Ok(());
    }
    if !git
        .call(&["lfs", "version"], &mut |_: &str| {})
        .await?
        .status
        .success()
    {
        log(
            "the repository keeps files in Git LFS, which is not installed here: they stay pointers",
        );
        return Ok(());
    }
    if let Some(mirror) = mirror {
        // In the checkout's own configuration: variables would tell the other side of a local address the same.
        let storage = mirror.large_files().display().to_string();
        git.must(&["config", "lfs.storage", &storage], log).await?;
        let pulled = git.call(&["lfs", "pull"], log).await?;
        git.must(&["config", "--unset", "lfs.storage"], log).await?;
        if pulled.status.success() {
            return Ok(());
        }
        // A file there that was cut short would be in the way for ever.
        let _ = std::fs::remove_dir_all(mirror.large_files());
        log(&passed_over(
            &git.wanted.url,
            "its files of Git LFS do not come",
        ));
    }
    git.must(&["lfs", "pull"], log)
        .await
        .map(drop)
        .map_err(Failure::from)
}
