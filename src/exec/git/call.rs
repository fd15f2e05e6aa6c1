//! Calls of the `git` program in one folder, and how a revision is fetched into it.
//!
//! ```text
//! commit ──▶ fetch that commit alone ──refused──▶ recorded branch ──not there──▶ all branches and tags
//! tag, branch, default ──▶ fetch that name alone
//! ```

use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use super::GitSettings;
use super::access::Access;
use super::explain::{self, Course, Explained};
use crate::exec::failure::{Failure, masked};
use crate::exec::plan::{Checkout, Revision};
use crate::exec::tool::{self, Ended, Log, Trouble};

/// How often a call that failed for the network's sake is made.
const TRIES: u32 = 3;
/// The depth that stands for all of the history, also where a part of it is there.
const WHOLE: &str = "2147483647";

/// A repository on this machine, and what is wanted in it.
#[derive(Clone, Copy)]
pub(super) struct Git<'a> {
    pub wanted: &'a Checkout,
    pub folder: &'a Path,
    pub settings: &'a GitSettings,
    pub access: &'a Access,
    /// Parts of its history may be there and others not.
    pub shared: bool,
}

/// What was fetched.
pub(super) struct Fetched {
    /// All digits.
    pub commit: String,
    /// The name by which it was asked for, as it is kept here.
    pub name: Option<String>,
}

impl Git<'_> {
    /// One call, whatever comes of it.
    pub async fn call(&self, arguments: &[&str], log: &mut Log<'_>) -> Result<Ended, Failure> {
        self.call_with(arguments, &[], None, log).await
    }

    /// The same with more configuration, and other protocols than usual.
    pub async fn call_with(
        &self,
        arguments: &[&str],
        config: &[(String, String)],
        protocols: Option<&str>,
        log: &mut Log<'_>,
    ) -> Result<Ended, Failure> {
        let mut command = Command::new(&self.settings.git);
        command.args(arguments).current_dir(self.folder);
        self.access.apply(&mut command, config, protocols);
        if !brings_large_files(arguments, protocols) {
            command.env("GIT_LFS_SKIP_SMUDGE", "1");
        }
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
    pub async fn must(&self, arguments: &[&str], log: &mut Log<'_>) -> Result<String, Explained> {
        let mut tries = 1;
        loop {
            let ended = self.call(arguments, log).await.map_err(Explained::here)?;
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

    /// Fetches what is wanted.
    pub async fn fetch_wanted(&self, log: &mut Log<'_>) -> Result<Fetched, Explained> {
        let (commit, name) = match &self.wanted.revision {
            Revision::Commit(commit) => (self.fetch_commit(commit, log).await?, None),
            Revision::Tag(tag) => {
                let name = format!("refs/tags/{tag}");
                (self.fetch_name(&name, &name, log).await?, Some(name))
            }
            Revision::Branch(branch) => self.fetch_branch(branch, log).await?,
            Revision::Any(name) => self.fetch_any(name, log).await?,
            Revision::Default => {
                let branch = self.default_branch().await?;
                self.fetch_branch(&branch, log).await?
            }
        };
        Ok(Fetched { commit, name })
    }

    async fn fetch(&self, extra: &[&str], log: &mut Log<'_>) -> Result<String, Explained> {
        let mut arguments = vec!["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"];
        arguments.extend(self.settings.options.fetch_args.iter().map(String::as_str));
        arguments.extend(extra);
        self.must(&arguments, log).await
    }

    /// Fetches these names with their history.
    async fn fetch_history(&self, names: &[&str], log: &mut Log<'_>) -> Result<String, Explained> {
        let mut extra = Vec::new();
        if self.shared {
            // What was fetched without history before would end the search.
            extra.extend(["--depth", WHOLE]);
        }
        extra.push("origin");
        extra.extend(names);
        self.fetch(&extra, log).await
    }

    async fn fetch_commit(&self, commit: &str, log: &mut Log<'_>) -> Result<String, Explained> {
        // A copy that has lost it says so too.
        let missing = || Explained::here(explain::missing_commit(commit, &self.wanted.url));
        if matches!(commit.len(), 40 | 64) {
            match self.fetch(&["--depth", "1", "origin", commit], log).await {
                Ok(_) => return self.resolve(commit).await?.ok_or_else(missing),
                Err(explained) if explained.course != Course::SearchOn => return Err(explained),
                Err(_) => {
                    log("the server does not hand out a single commit: fetching its branches");
                }
            }
        }
        if let Some(branch) = &self.wanted.branch {
            let refspec = format!("+refs/heads/{branch}:refs/remotes/origin/{branch}");
            match self.fetch_history(&[&refspec], log).await {
                Ok(_) => {
                    if let Some(found) = self.resolve(commit).await? {
                        return Ok(found);
                    }
                }
                Err(explained) if explained.course != Course::SearchOn => return Err(explained),
                Err(_) => {}
            }
        }
        let all = [
            "+refs/heads/*:refs/remotes/origin/*",
            "+refs/tags/*:refs/tags/*",
        ];
        self.fetch_history(&all, log).await?;
        self.resolve(commit).await?.ok_or_else(missing)
    }

    async fn fetch_branch(
        &self,
        branch: &str,
        log: &mut Log<'_>,
    ) -> Result<(String, Option<String>), Explained> {
        let ours = format!("refs/remotes/origin/{branch}");
        let commit = self
            .fetch_name(&format!("refs/heads/{branch}"), &ours, log)
            .await?;
        Ok((commit, Some(ours)))
    }

    /// A tag of that name, else a branch, else a commit that begins so.
    async fn fetch_any(
        &self,
        name: &str,
        log: &mut Log<'_>,
    ) -> Result<(String, Option<String>), Explained> {
        let tag = format!("refs/tags/{name}");
        let mut quiet = |_: &str| {};
        match self.fetch_name(&tag, &tag, &mut quiet).await {
            Ok(commit) => return Ok((commit, Some(tag))),
            Err(explained) if explained.course != Course::SearchOn => return Err(explained),
            Err(_) => {}
        }
        let missing = match self.fetch_branch(name, &mut quiet).await {
            Err(explained) if explained.course == Course::SearchOn => explained,
            result => return result,
        };
        if name.len() < 7 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(missing);
        }
        Ok((self.fetch_commit(name, log).await?, None))
    }

    async fn fetch_name(
        &self,
        theirs: &str,
        ours: &str,
        log: &mut Log<'_>,
    ) -> Result<String, Explained> {
        let refspec = format!("+{theirs}:{ours}");
        self.fetch(&["--depth", "1", "origin", &refspec], log)
            .await?;
        self.resolve(ours).await?.ok_or_else(|| {
            let url = &self.wanted.url;
            Explained::by_the_server(Failure::new(format!("{theirs} of {url} names no commit")))
        })
    }

    /// All digits of a commit that is here, or nothing.
    pub async fn resolve(&self, name: &str) -> Result<Option<String>, Explained> {
        let wanted = format!("{name}^{{commit}}");
        let arguments = [
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            &wanted,
        ];
        let ended = self
            .call(&arguments, &mut |_: &str| {})
            .await
            .map_err(Explained::here)?;
        Ok(ended
            .status
            .success()
            .then(|| ended.output.trim().to_owned()))
    }

    /// `master`, else `main`, else what the server calls its head (`features.md` B233).
    async fn default_branch(&self) -> Result<String, Explained> {
        let arguments = [
            "ls-remote",
            "--symref",
            "origin",
            "HEAD",
            "refs/heads/master",
            "refs/heads/main",
        ];
        let listed = self.must(&arguments, &mut |_: &str| {}).await?;
        default_of(&listed).ok_or_else(|| {
            Explained::by_the_server(
                Failure::new(format!("{} has no default branch", self.wanted.url))
                    .hint("is it empty? Set a branch or commit in the task"),
            )
        })
    }
}

/// Files of Git LFS come all at once, with the cache that they have: not one by one while a commit is checked out.
/// Submodules that come straight from their server get theirs with them.
fn brings_large_files(arguments: &[&str], protocols: Option<&str>) -> bool {
    match arguments.first() {
        Some(&"lfs") => true,
        Some(&"submodule") => protocols.is_none(),
        _ => false,
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
