//! Repositories on the cache volume, so that the second task of a repository fetches only what is new.
//!
//! ```text
//! <cache>/<uid>/<key>/git    a bare repository: the commits that tasks ran with, without the history before them
//! <cache>/<uid>/<key>/lfs    files of Git LFS
//! ```
//!
//! The key holds the address and what identifies the credentials: nobody gets code out of the cache that the server
//! would not give. The volume's folder is mounted into the init container alone; no task can read or change it. Trouble
//! with the cache is never trouble of the task: what cannot be used is made anew once, then passed over.

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::GitSettings;
use super::call::{Fetched, Git};
use super::explain::Explained;
use crate::exec::digest::hex;
use crate::exec::failure::Failure;
use crate::exec::plan::Revision;
use crate::exec::shelf;
use crate::exec::tool::{Ended, Log};

/// How long another task is waited for that fetches the same repository.
const PATIENCE: Duration = Duration::from_mins(5);
/// Commits that tasks ran with, by their digits.
const KEPT: &str = "refs/trainyard/";
/// A repository of so many packs is packed anew.
const MOST_PACKS: usize = 40;
/// What part of the cache's limit repositories may have.
const SHARE: u64 = 4;

/// Why a repository did not come out of the cache.
pub(super) enum Trouble {
    /// The server said so; there is nothing else to try.
    Told(Failure),
    /// The cache is to blame.
    Cache(String),
}

/// The repositories of our user.
pub(super) struct Mirrors {
    shelf: PathBuf,
    limit: Option<u64>,
}

/// One of them, which nobody removes while this is held.
pub(super) struct Mirror {
    folder: PathBuf,
    _used: Option<File>,
}

impl Mirror {
    pub fn repository(&self) -> PathBuf {
        self.folder.join("git")
    }

    /// As an address that git takes for one of another repository: its objects are copied, not linked.
    pub fn url(&self) -> String {
        format!("file://{}", self.repository().display())
    }

    pub fn large_files(&self) -> PathBuf {
        self.folder.join("lfs")
    }
}

impl Mirrors {
    /// The cache, if the pod has one that outlives it.
    pub fn open(settings: &GitSettings, log: &mut Log<'_>) -> Option<Self> {
        let volume = settings
            .mirrors
            .as_ref()
            .filter(|_| settings.options.cache)?;
        let shelf = volume.join(nix::unistd::geteuid().to_string());
        match DirBuilder::new().recursive(true).mode(0o700).create(&shelf) {
            Ok(()) => Some(Self {
                shelf,
                limit: settings.mirror_limit,
            }),
            Err(error) => {
                log(&format!(
                    "the cache of repositories at {} cannot be written ({error}): all is fetched for this task alone",
                    volume.display()
                ));
                None
            }
        }
    }

    /// Fetches what is wanted by way of the cache.
    pub async fn bring(
        &self,
        git: &Git<'_>,
        place: Place<'_>,
        log: &mut Log<'_>,
    ) -> Result<(Fetched, Mirror), Trouble> {
        let mut damage = None;
        for _ in 0..2 {
            let lock = self.lock(git, log).await?;
            let mirror = self.mirror(git);
            if let Some(why) = damage.take() {
                log(&format!(
                    "the cached copy of {} is damaged ({why}): it is fetched anew",
                    git.wanted.url
                ));
                clear(&mirror)?;
            }
            let fetched = match fetch(git, &mirror, log).await {
                Ok(fetched) => fetched,
                Err(explained) if explained.elsewhere => {
                    return Err(Trouble::Told(explained.failure));
                }
                Err(explained) => {
                    damage = Some(explained.failure.sentence);
                    continue;
                }
            };
            drop(lock);
            match copy(git, place, &mirror, &fetched).await {
                Ok(()) => return Ok((fetched, mirror)),
                Err(why) => damage = Some(why),
            }
        }
        Err(Trouble::Cache(damage.unwrap_or_default()))
    }

    fn folder(&self, git: &Git<'_>) -> PathBuf {
        let mut hash = Sha256::new();
        hash.update(&git.wanted.url);
        hash.update([0]);
        hash.update(git.access.fingerprint());
        self.shelf.join(hex(&hash.finalize()[..16]))
    }

    fn mirror(&self, git: &Git<'_>) -> Mirror {
        let folder = self.folder(git);
        Mirror {
            _used: shelf::hold(&folder),
            folder,
        }
    }

    /// The right to change the repository; waits while another task fetches into it.
    async fn lock(&self, git: &Git<'_>, log: &mut Log<'_>) -> Result<File, Trouble> {
        let path = self.folder(git).with_extension("lock");
        let file = shelf::open_lock(&path)
            .ok_or_else(|| Trouble::Cache(format!("{} cannot be opened", path.display())))?;
        let begun = Instant::now();
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => {
                    if !told {
                        log("another task is fetching the same repository: waiting for it");
                        told = true;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let minutes = PATIENCE.as_secs() / 60;
                    return Err(Trouble::Cache(format!(
                        "another task has been fetching for {minutes} min"
                    )));
                }
                Err(TryLockError::Error(error)) => {
                    return Err(Trouble::Cache(format!("it cannot be locked: {error}")));
                }
            }
        }
    }

    /// Removes what was not used for longest until all is within its share; the bytes that are left.
    pub fn tidy(&self, log: &mut Log<'_>) -> u64 {
        let mut size = shelf::size(&self.shelf);
        let Some(limit) = self.limit.map(|limit| limit / SHARE) else {
            return size;
        };
        let mut repositories = shelf::least_recent(&self.shelf);
        repositories.sort();
        let mut removed = 0;
        for (_, folder) in repositories {
            if size <= limit {
                break;
            }
            removed += usize::from(shelf::remove(&folder, |_| {}));
            size = shelf::size(&self.shelf);
        }
        if removed > 0 {
            log(&format!(
                "{removed} repositories that were used longest ago are removed from the cache"
            ));
        }
        size
    }
}

/// Brings the copy up to what is wanted; a commit that is there needs no server.
async fn fetch(git: &Git<'_>, mirror: &Mirror, log: &mut Log<'_>) -> Result<Fetched, Explained> {
    let repository = mirror.repository();
    let bare = Git {
        folder: &repository,
        shared: true,
        ..*git
    };
    if !repository.join("HEAD").is_file() {
        make(&bare).await?;
    }
    bare.must(
        &["rev-parse", "--is-bare-repository", "--git-dir"],
        &mut |_: &str| {},
    )
    .await
    .map_err(|explained| Explained::here(explained.failure))?;
    if let Revision::Commit(commit) = &git.wanted.revision
        && bare.resolve(&format!("{KEPT}{commit}")).await?.as_ref() == Some(commit)
    {
        log("the commit is in the cache");
        return Ok(Fetched {
            commit: commit.clone(),
            name: None,
        });
    }
    let fetched = bare.fetch_wanted(log).await?;
    let kept = format!("{KEPT}{}", fetched.commit);
    bare.must(&["update-ref", &kept, &fetched.commit], &mut |_: &str| {})
        .await
        .map_err(|explained| Explained::here(explained.failure))?;
    if packs(&repository) > MOST_PACKS {
        // Whoever copies from it right now looks for the new pack by itself.
        let _ = bare
            .call(&["repack", "-a", "-d", "--quiet"], &mut |_: &str| {})
            .await;
    }
    Ok(fetched)
}

/// An empty repository with the address that is fetched from.
async fn make(bare: &Git<'_>) -> Result<(), Explained> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(bare.folder)
        .map_err(|error| {
            Explained::here(Failure::new(format!(
                "could not make {}: {error}",
                bare.folder.display()
            )))
        })?;
    for arguments in [
        &["init", "--quiet", "--bare", "."][..],
        &["config", "remote.origin.url", bare.wanted.url.as_str()],
        // A pack for each fetch, however small: packs are checked as a whole and counted.
        &["config", "fetch.unpackLimit", "1"],
        &["config", "uploadpack.allowAnySHA1InWant", "true"],
    ] {
        bare.must(arguments, &mut |_: &str| {})
            .await
            .map_err(|explained| Explained::here(explained.failure))?;
    }
    Ok(())
}

fn clear(mirror: &Mirror) -> Result<(), Trouble> {
    match std::fs::remove_dir_all(mirror.repository()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Trouble::Cache(format!("it cannot be removed: {error}")))
        }
        _ => Ok(()),
    }
}

fn packs(repository: &Path) -> usize {
    let entries = std::fs::read_dir(repository.join("objects/pack"));
    let names = entries.into_iter().flatten().flatten();
    names
        .filter(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "pack")
        })
        .count()
}

/// Where the copy goes.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// The repository itself, which is there and empty.
    Checkout,
    /// A submodule of this one.
    Submodule(&'a Git<'a>, &'a str),
}

/// From the cache to where it is wanted; git looks at every object again on the way.
async fn copy(
    git: &Git<'_>,
    place: Place<'_>,
    mirror: &Mirror,
    fetched: &Fetched,
) -> Result<(), String> {
    let url = mirror.url();
    let (ended, said) = match place {
        Place::Checkout => {
            let kept = format!("{KEPT}{}", fetched.commit);
            let refspec = match &fetched.name {
                // A tag may be an object of its own.
                Some(name) if name.starts_with("refs/tags/") => format!("+{name}:{name}"),
                Some(name) => format!("+{kept}:{name}"),
                None => kept,
            };
            let fetch = [
                "fetch",
                "--quiet",
                "--no-tags",
                "--no-recurse-submodules",
                "--depth",
                "1",
                &url,
                &refspec,
            ];
            local(git, &fetch, &[]).await?
        }
        Place::Submodule(parent, path) => {
            let instead = (format!("url.{url}.insteadOf"), git.wanted.url.clone());
            let update = [
                "submodule",
                "update",
                "--quiet",
                "--force",
                "--depth",
                "1",
                "--",
                path,
            ];
            local(parent, &update, &[instead]).await?
        }
    };
    if !ended.status.success() {
        let telling = |line: &&String| line.starts_with("fatal:") || line.starts_with("error:");
        let why = said.iter().find(telling).or(said.last());
        return Err(why.map_or_else(|| "it could not be copied".to_owned(), Clone::clone));
    }
    match git.resolve(&fetched.commit).await {
        Ok(Some(_)) => Ok(()),
        _ => Err("it does not hold the commit".to_owned()),
    }
}

/// A call that reads this machine's files alone, and what it said.
async fn local(
    git: &Git<'_>,
    arguments: &[&str],
    config: &[(String, String)],
) -> Result<(Ended, Vec<String>), String> {
    let mut said = Vec::new();
    let ended = git
        .call_with(arguments, config, Some("file"), &mut |line: &str| {
            said.push(line.to_owned());
        })
        .await
        .map_err(|failure| failure.sentence)?;
    Ok((ended, said))
}
