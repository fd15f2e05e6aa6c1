//! Brings requirements that come from git onto the pod's volume: the task's container has no credentials, and need not
//! have git. What could not be brought is data: whether this Python needs it is only known where it runs.

use std::fs;
use std::path::Path;

use super::failure::Failure;
use super::git::{self, GitSettings};
use super::plan::{Checkout, Plan, Revision};
use super::python::{Remote, from_git, of_files};
use super::tool::Log;
use crate::pod::Brought;

/// Where a repository is until its commit is known.
const NEW: &str = "new";
/// Most repositories that are brought for one task.
const MOST: usize = 64;
/// Largest file of a package that is searched for requirements of its own.
const LARGEST: u64 = 1 << 20;
/// Files of a package that say what it needs and how its version is made.
const FILES: [&str; 3] = ["pyproject.toml", "setup.cfg", "setup.py"];
/// Build tools that read the version from tags and history.
const BY_HISTORY: [&str; 6] = [
    "setuptools_scm",
    "setuptools-scm",
    "hatch-vcs",
    "versioneer",
    "dynamic-versioning",
    "pbr",
];

/// Brings all that the plan's environment asks of git, and what that asks of git in its turn.
pub async fn bring(
    plan: &Plan,
    settings: &GitSettings,
    root: &Path,
    log: &mut Log<'_>,
) -> Vec<Brought> {
    let mut brought: Vec<Brought> = Vec::new();
    let Some(environment) = &plan.environment else {
        return brought;
    };
    let mut waiting: Vec<(Remote, Option<String>)> = from_git(environment, &plan.working_dir)
        .into_iter()
        .map(|remote| (remote, None))
        .collect();
    while !waiting.is_empty() {
        let (remote, asked_by) = waiting.remove(0);
        let known = brought
            .iter()
            .any(|known| known.url == remote.url && known.revision == remote.revision);
        if known {
            continue;
        }
        if brought.len() == MOST {
            log(&format!(
                "more than {MOST} requirements come from git: the rest is left to the installer"
            ));
            break;
        }
        let inner = remote.name.clone().filter(|_| asked_by.is_some());
        // A requirement that no task names may be anybody's: it gets no credentials but on its asker's own host.
        let trusted = asked_by
            .as_ref()
            .is_none_or(|url| host(url) == host(&remote.url));
        let one = one(&remote, inner, trusted, settings, root, log).await;
        if one.failure.is_none() {
            let texts = texts(Path::new(&one.folder));
            let more = of_files(texts.iter().map(String::as_str));
            waiting.extend(
                more.into_iter()
                    .map(|more| (more, Some(remote.url.clone()))),
            );
        }
        brought.push(one);
    }
    // What a failed one has left.
    let _ = fs::remove_dir_all(root.join(NEW));
    brought
}

async fn one(
    remote: &Remote,
    inner: Option<String>,
    trusted: bool,
    settings: &GitSettings,
    root: &Path,
    log: &mut Log<'_>,
) -> Brought {
    let mut brought = Brought {
        url: remote.url.clone(),
        revision: remote.revision.clone(),
        commit: String::new(),
        folder: String::new(),
        failure: None,
        inner,
    };
    let mut settings = settings.clone();
    if !trusted {
        settings.credentials = None;
        settings.options.logins.retain(|login| login.host.is_some());
    }
    match checked_out(remote, &settings, root, log).await {
        Ok((commit, folder)) => {
            brought.commit = commit;
            brought.folder = folder;
        }
        Err(failure) => {
            let what = remote.name.as_deref().unwrap_or(&remote.url);
            let why = format!("requirement {what} could not be brought: {failure}");
            log(&why);
            brought.failure = Some(why);
        }
    }
    brought
}

/// The commit, and the folder that is named after it: what an installer keeps of a path stays true.
async fn checked_out(
    remote: &Remote,
    settings: &GitSettings,
    root: &Path,
    log: &mut Log<'_>,
) -> Result<(String, String), Failure> {
    let revision = Revision::of_name(&remote.revision).map_err(|e| Failure::new(e.to_string()))?;
    let wanted = Checkout {
        url: remote.url.clone(),
        revision,
        branch: None,
        credentials: remote.credentials.clone(),
    };
    let new = root.join(NEW);
    let commit = git::checkout(&wanted, &new, settings, log).await?.commit;
    if texts(&new).iter().any(|text| by_history(text)) {
        git::deepen(&wanted, &new, settings, log).await?;
    }
    let folder = root.join(format!("{}-{commit}", short_name(&remote.url)));
    let failed = |error: std::io::Error| {
        Failure::new(format!("could not write {}: {error}", folder.display()))
    };
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(failed)?;
    }
    fs::rename(&new, &folder).map_err(failed)?;
    Ok((commit, folder.to_string_lossy().into_owned()))
}

/// The last word of an address, as a name for a folder.
fn short_name(url: &str) -> String {
    let url = url.trim_end_matches('/').trim_end_matches(".git");
    let name = url.rsplit(['/', ':']).next().unwrap_or_default();
    let name = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c));
    name.take(40).collect()
}

/// The host of an address, whatever its scheme and user.
fn host(url: &str) -> &str {
    let rest = url.split("://").last().unwrap_or(url);
    let authority = rest.split('/').next().unwrap_or(rest);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    host.split(':').next().unwrap_or(host)
}

fn by_history(text: &str) -> bool {
    BY_HISTORY.iter().any(|tool| text.contains(tool))
}

/// The files of a package that say what it needs; a package below the root is found too, one level deep.
fn texts(folder: &Path) -> Vec<String> {
    let below = fs::read_dir(folder).into_iter().flatten().flatten();
    let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let folders = std::iter::once(folder.to_owned()).chain(below.map(|entry| entry.path()));
    folders
        .flat_map(|folder| FILES.map(|name| folder.join(name)))
        .filter(|file| {
            let found = file.symlink_metadata();
            found.is_ok_and(|found| found.is_file() && found.len() <= LARGEST)
        })
        .filter_map(|file| fs::read_to_string(file).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_names_of_addresses_are_found() {
        for (url, of_host, name) in [
            (
                "https://git.example:8443/team/alpha.git",
                "git.example",
                "alpha",
            ),
            ("ssh://git@git.example/alpha", "git.example", "alpha"),
            ("git@git.example:team/alpha.git", "git.example", "alpha"),
        ] {
            assert_eq!((host(url), short_name(url).as_str()), (of_host, name));
        }
    }
}
