//! Submodules of a checkout, and theirs. An error in one is an error of the task: code that is half there is worse than
//! none.

use std::path::Path;
use std::pin::Pin;

use super::access;
use super::call::Git;
use super::mirror::{Mirrors, Place, Trouble};
use super::{large_files, passed_over};
use crate::exec::failure::Failure;
use crate::exec::plan::{Checkout, Revision};
use crate::exec::tool::Log;

/// How deep submodules are followed by way of the cache.
const DEEPEST: usize = 8;

/// Brings all submodules into the checkout.
pub(super) async fn bring(
    git: &Git<'_>,
    mirrors: Option<&Mirrors>,
    log: &mut Log<'_>,
) -> Result<(), Failure> {
    match mirrors {
        Some(mirrors) => level(git, mirrors, 0, log).await,
        None => straight(git, &[], log).await,
    }
    .map_err(|failure| Failure {
        sentence: format!(
            "a submodule of {} could not be fetched: {}",
            git.wanted.url, failure.sentence
        ),
        hint: failure.hint,
    })
}

/// Straight from the servers; all of them, or those at `paths`.
async fn straight(git: &Git<'_>, paths: &[&str], log: &mut Log<'_>) -> Result<(), Failure> {
    if !git.folder.join(".gitmodules").exists() {
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
    let with = |more: &[&'static str]| {
        let words = update.into_iter().chain(more.iter().copied());
        words
            .chain(["--"])
            .chain(paths.iter().copied())
            .collect::<Vec<&str>>()
    };
    let shallow = with(&["--depth", "1"]);
    if git.call(&shallow, log).await?.status.success() {
        return Ok(());
    }
    log("fetching the submodules with their whole history");
    let whole = with(&[]);
    git.must(&whole, log).await.map(drop).map_err(Failure::from)
}

/// The submodules of one repository by way of the cache, then theirs.
fn level<'a>(
    git: &'a Git<'a>,
    mirrors: &'a Mirrors,
    depth: usize,
    log: &'a mut Log<'_>,
) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>> {
    Box::pin(async move {
        if !git.folder.join(".gitmodules").exists() {
            return Ok(());
        }
        git.must(&["submodule", "--quiet", "init"], log).await?;
        for submodule in listed(git).await? {
            one(git, &submodule, mirrors, depth, log).await?;
        }
        Ok(())
    })
}

async fn one(
    git: &Git<'_>,
    submodule: &Submodule,
    mirrors: &Mirrors,
    depth: usize,
    log: &mut Log<'_>,
) -> Result<(), Failure> {
    let Submodule { path, url, commit } = submodule;
    // Whether such an address may be followed is for git to say, which knows where it came from.
    if depth >= DEEPEST || access::is_local(url) && !access::is_local(&git.wanted.url) {
        return straight(git, &[path], log).await;
    }
    let wanted = Checkout {
        url: url.clone(),
        revision: Revision::Commit(commit.clone()),
        branch: None,
        credentials: None,
    };
    let folder = git.folder.join(path);
    let inner = Git {
        wanted: &wanted,
        folder: &folder,
        ..*git
    };
    match mirrors
        .bring(&inner, Place::Submodule(git, path), log)
        .await
    {
        Ok((_, mirror)) => {
            large_files(&inner, Some(&mirror), log).await?;
            level(&inner, mirrors, depth + 1, log).await
        }
        Err(Trouble::Told(failure)) => Err(failure),
        Err(Trouble::Cache(why)) => {
            log(&passed_over(url, &why));
            straight(git, &[path], log).await
        }
    }
}

/// A submodule that is to be there.
struct Submodule {
    path: String,
    url: String,
    commit: String,
}

/// What `.gitmodules` names, `git submodule init` has taken up and the commit holds.
async fn listed(git: &Git<'_>) -> Result<Vec<Submodule>, Failure> {
    let paths = [
        "config",
        "-z",
        "--file",
        ".gitmodules",
        "--get-regexp",
        r"^submodule\..*\.path$",
    ];
    let Some(paths) = ask(git, &paths).await? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for (key, path) in paths.split('\0').filter_map(|pair| pair.split_once('\n')) {
        // Once: the name of a submodule may end like that itself.
        let Some(name) = key.strip_suffix(".path") else {
            continue;
        };
        let Some(url) = ask(git, &["config", &format!("{name}.url")]).await? else {
            continue;
        };
        let update = ask(git, &["config", &format!("{name}.update")]).await?;
        let staged = ask(git, &["ls-files", "--stage", "--", path])
            .await?
            .unwrap_or_default();
        let commit = staged
            .strip_prefix("160000 ")
            .and_then(|rest| rest.split_whitespace().next());
        let outside = Path::new(path).is_absolute() || path.split('/').any(|part| part == "..");
        if let Some(commit) = commit.filter(|_| !outside)
            && update.is_none_or(|update| update.trim() != "none")
        {
            found.push(Submodule {
                path: path.to_owned(),
                url: url.trim().to_owned(),
                commit: commit.to_owned(),
            });
        }
    }
    Ok(found)
}

/// What git answers, if it has an answer.
async fn ask(git: &Git<'_>, arguments: &[&str]) -> Result<Option<String>, Failure> {
    let ended = git.call(arguments, &mut |_: &str| {}).await?;
    Ok(ended.status.success().then_some(ended.output))
}
