//! Checks out the wanted commit with the `git` program, as cheaply as the server allows.
//!
//! ```text
//! commit ──▶ fetch that commit alone ──refused──▶ recorded branch ──not there──▶ all branches and tags
//! tag, branch, default ──▶ fetch that name alone
//!        └──▶ checkout ──▶ submodules
//! ```
//!
//! Runs in `prepare` alone: credentials stay there. They go to git by a credential helper for the repository's own
//! host, never by an argument or a file of the checkout.

mod access;
mod explain;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::process::Command;

use self::access::Access;
use self::explain::{Course, Explained};
use super::failure::{Failure, masked};
use super::plan::{Checkout, Revision};
use super::tool::{self, Ended, Log, Trouble};

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
    /// Longest time that one call of git may take. A transfer that stands still is ended much sooner.
    pub limit: Duration,
}

impl Default for GitSettings {
    fn default() -> Self {
        Self {
            git: "git".into(),
            credentials: None,
            known_hosts: None,
            limit: Duration::from_hours(1),
        }
    }
}

/// What was checked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// All its digits.
    pub commit: String,
}

/// How often a call that failed for the network's sake is made.
const TRIES: u32 = 3;

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
        dest,
        settings,
        access,
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
    let commit = match &wanted.revision {
        Revision::Commit(commit) => git.fetch_commit(commit, log).await?,
        Revision::Tag(tag) => {
            git.fetch_name(
                &format!("refs/tags/{tag}"),
                &format!("refs/tags/{tag}"),
                log,
            )
            .await?
        }
        Revision::Branch(branch) => git.fetch_branch(branch, log).await?,
        Revision::Default => {
            let branch = git.default_branch().await?;
            git.fetch_branch(&branch, log).await?
        }
    };
    git.must(
        &["checkout", "--quiet", "--force", "--detach", &commit],
        log,
    )
    .await?;
    git.submodules(log).await?;
    git.large_files(log).await?;
    log(&format!(
        "checked out {commit} in {:.1} s",
        begun.elapsed().as_secs_f64()
    ));
    Ok(Checked { commit })
}

fn described(revision: &Revision) -> String {
    match revision {
        Revision::Commit(commit) => format!("commit {commit}"),
        Revision::Tag(tag) => format!("tag {tag}"),
        Revision::Branch(branch) => format!("branch {branch}"),
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

struct Git<'a> {
    wanted: &'a Checkout,
    dest: &'a Path,
    settings: &'a GitSettings,
    access: Access,
}

impl Git<'_> {
    /// One call, whatever comes of it.
    async fn call(&self, arguments: &[&str], log: &mut Log<'_>) -> Result<Ended, Failure> {
        let mut command = Command::new(&self.settings.git);
        command.args(arguments).current_dir(self.dest);
        self.access.apply(&mut command);
        let mut without_secrets = |line: &str| log(&masked(line));
        tool::run(command, None, self.settings.limit, &mut without_secrets)
            .await
            .map_err(|trouble| self.troubled(&trouble))
    }

    fn troubled(&self, trouble: &Trouble) -> Failure {
        match trouble {
            Trouble::Start { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Failure::new(format!(
                    "{} is not installed where code is checked out",
                    self.settings.git.display()
                ))
            }
            other => Failure::new(format!("could not check out {}: {other}", self.wanted.url)),
        }
    }

    /// A call that has to succeed; tried again where the network failed.
    async fn must(&self, arguments: &[&str], log: &mut Log<'_>) -> Result<String, Explained> {
        let mut tries = 1;
        loop {
            let ended = self
                .call(arguments, log)
                .await
                .map_err(|failure| Explained {
                    failure,
                    course: Course::GiveUp,
                })?;
            if ended.status.success() {
                return Ok(ended.output);
            }
            let explained = explain::explain(&ended.output, self.wanted, self.access.are_given());
            if explained.course != Course::TryAgain || tries == TRIES {
                return Err(explained);
            }
            log(&format!("git failed, trying again ({tries} of {TRIES})"));
            tokio::time::sleep(Duration::from_secs(u64::from(tries) * 2)).await;
            tries += 1;
        }
    }

    async fn fetch(&self, extra: &[&str], log: &mut Log<'_>) -> Result<String, Explained> {
        let mut arguments = vec!["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"];
        arguments.extend(extra);
        self.must(&arguments, log).await
    }

    async fn fetch_commit(&self, commit: &str, log: &mut Log<'_>) -> Result<String, Failure> {
        if matches!(commit.len(), 40 | 64) {
            match self.fetch(&["--depth", "1", "origin", commit], log).await {
                Ok(_) => {
                    return self
                        .resolve(commit)
                        .await?
                        .ok_or_else(|| self.missing_commit(commit));
                }
                Err(explained) if explained.course != Course::SearchOn => {
                    return Err(explained.into());
                }
                Err(_) => {
                    log("the server does not hand out a single commit: fetching its branches");
                }
            }
        }
        if let Some(branch) = &self.wanted.branch {
            let refspec = format!("+refs/heads/{branch}:refs/remotes/origin/{branch}");
            match self.fetch(&["origin", &refspec], log).await {
                Ok(_) => {
                    if let Some(found) = self.resolve(commit).await? {
                        return Ok(found);
                    }
                }
                Err(explained) if explained.course != Course::SearchOn => {
                    return Err(explained.into());
                }
                Err(_) => {}
            }
        }
        self.fetch(
            &[
                "origin",
                "+refs/heads/*:refs/remotes/origin/*",
                "+refs/tags/*:refs/tags/*",
            ],
            log,
        )
        .await?;
        self.resolve(commit)
            .await?
            .ok_or_else(|| self.missing_commit(commit))
    }

    async fn fetch_branch(&self, branch: &str, log: &mut Log<'_>) -> Result<String, Failure> {
        self.fetch_name(
            &format!("refs/heads/{branch}"),
            &format!("refs/remotes/origin/{branch}"),
            log,
        )
        .await
    }

    async fn fetch_name(
        &self,
        theirs: &str,
        ours: &str,
        log: &mut Log<'_>,
    ) -> Result<String, Failure> {
        self.fetch(
            &["--depth", "1", "origin", &format!("+{theirs}:{ours}")],
            log,
        )
        .await?;
        self.resolve(ours)
            .await?
            .ok_or_else(|| Failure::new(format!("{theirs} of {} names no commit", self.wanted.url)))
    }

    /// All digits of a commit that is here, or nothing.
    async fn resolve(&self, name: &str) -> Result<Option<String>, Failure> {
        let mut quiet = |_: &str| {};
        let wanted = format!("{name}^{{commit}}");
        let ended = self
            .call(
                &[
                    "rev-parse",
                    "--verify",
                    "--quiet",
                    "--end-of-options",
                    &wanted,
                ],
                &mut quiet,
            )
            .await?;
        Ok(ended
            .status
            .success()
            .then(|| ended.output.trim().to_owned()))
    }

    fn missing_commit(&self, commit: &str) -> Failure {
        explain::missing_commit(commit, &self.wanted.url)
    }

    /// `master`, else `main`, else what the server calls its head (`features.md` B233).
    async fn default_branch(&self) -> Result<String, Failure> {
        let mut quiet = |_: &str| {};
        let listed = self
            .must(
                &[
                    "ls-remote",
                    "--symref",
                    "origin",
                    "HEAD",
                    "refs/heads/master",
                    "refs/heads/main",
                ],
                &mut quiet,
            )
            .await?;
        default_of(&listed).ok_or_else(|| {
            Failure::new(format!("{} has no default branch", self.wanted.url))
                .hint("is it empty? Set a branch or commit in the task")
        })
    }

    /// Files of Git LFS come if its program is there; otherwise the task's user is told what to expect.
    async fn large_files(&self, log: &mut Log<'_>) -> Result<(), Failure> {
        let attributes = std::fs::read_to_string(self.dest.join(".gitattributes"));
        if !attributes.is_ok_and(|text| text.contains("filter=lfs")) {
            return Ok(());
        }
        if self
            .call(&["lfs", "version"], &mut |_| {})
            .await?
            .status
            .success()
        {
            return self
                .must(&["lfs", "pull"], log)
                .await
                .map(drop)
                .map_err(Failure::from);
        }
        log(
            "the repository keeps files in Git LFS, which is not installed here: they stay pointers",
        );
        Ok(())
    }

    /// An error in a submodule is an error of the task: code that is half there is worse than none.
    async fn submodules(&self, log: &mut Log<'_>) -> Result<(), Failure> {
        if !self.dest.join(".gitmodules").exists() {
            return Ok(());
        }
        let update = [
            "submodule",
            "update",
            "--init",
            "--recursive",
            "--force",
            "--jobs",
            "4",
        ];
        let shallow: Vec<&str> = update.into_iter().chain(["--depth", "1"]).collect();
        if self.call(&shallow, log).await?.status.success() {
            return Ok(());
        }
        log("fetching the submodules with their whole history");
        self.must(&update, log)
            .await
            .map(drop)
            .map_err(|Explained { failure, .. }| Failure {
                sentence: format!(
                    "a submodule of {} could not be fetched: {}",
                    self.wanted.url, failure.sentence
                ),
                hint: failure.hint,
            })
    }
}

fn default_of(listed: &str) -> Option<String> {
    let has = |branch: &str| {
        listed
            .lines()
            .any(|line| line.ends_with(&format!("\trefs/heads/{branch}")))
    };
    if let Some(branch) = ["master", "main"].into_iter().find(|branch| has(branch)) {
        return Some(branch.to_owned());
    }
    let head = listed.lines().find_map(|line| {
        line.strip_prefix("ref: refs/heads/")?
            .strip_suffix("\tHEAD")
    });
    head.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_branch_is_master_then_main_then_the_head() {
        let head = "ref: refs/heads/dev\tHEAD\n1\tHEAD\n";
        assert_eq!(default_of(head).as_deref(), Some("dev"));
        assert_eq!(
            default_of(&format!("{head}2\trefs/heads/main\n")).as_deref(),
            Some("main")
        );
        assert_eq!(
            default_of(&format!("{head}2\trefs/heads/main\n3\trefs/heads/master\n")).as_deref(),
            Some("master")
        );
        assert_eq!(default_of(""), None);
    }
}
