//! PURE: requirements that come from git: found where the task names them, and led to where `prepare` has put them.
//!
//! ```text
//! prepare:  list, lock, project ──wanted──▶ (address, revision) ──▶ a folder on the pod's volume
//! task:     name @ git+https://…@main ──pinned──▶ name @ git+https://…@<commit>    what is recorded, and the cache's key
//!                                      ──on_disk──▶ name @ file:///trainyard/requirements/…    what the installer gets
//! ```

use std::fmt::Write;

use toml::{Table, Value};

use super::list::package_name;
use crate::exec::failure::Failure;
use crate::exec::plan::{Credentials, address};
use crate::pod::Brought;

/// A requirement from git.
#[derive(Debug, Clone)]
pub struct Remote {
    /// The package, where the requirement names it.
    pub name: Option<String>,
    /// Address without user name and password.
    pub url: String,
    /// Branch, tag or commit; empty: the default branch.
    pub revision: String,
    /// What the written address carried.
    pub credentials: Option<Credentials>,
    /// Folder of the package below the repository's root.
    subdirectory: Option<String>,
    /// `name[extra]`, as it stands before the address.
    head: String,
    /// Marker and the like behind the address.
    tail: String,
}

impl PartialEq for Remote {
    fn eq(&self, other: &Self) -> bool {
        self.matches(&other.url, &other.revision)
    }
}

impl Remote {
    /// Reads one line of a requirement list; `None`: it comes from elsewhere.
    pub fn of_line(line: &str) -> Option<Self> {
        let at = line.find("git+")?;
        let head = line[..at].trim().trim_end_matches('@').trim();
        if head.starts_with(['-', '#']) || head.contains([' ', ';']) {
            return None;
        }
        let written = &line[at + "git+".len()..];
        let end = written
            .find(|c: char| c.is_whitespace())
            .unwrap_or(written.len());
        let (written, tail) = written.split_at(end);
        let (written, fragment) = written.split_once('#').unwrap_or((written, ""));
        let mut found = Self::of_address(written)?;
        for (key, value) in fragment.split('&').filter_map(|pair| pair.split_once('=')) {
            match key {
                "subdirectory" => found.subdirectory = inner(value),
                "egg" if head.is_empty() => value.clone_into(&mut found.head),
                _ => {}
            }
        }
        if found.head.is_empty() {
            head.clone_into(&mut found.head);
        }
        found.name = Some(package_name(&found.head)).filter(|name| !name.is_empty());
        tail.trim().clone_into(&mut found.tail);
        Some(found)
    }

    /// `https://host/path@revision`.
    fn of_address(written: &str) -> Option<Self> {
        let path = written
            .find("://")
            .map(|at| at + 3)
            .and_then(|start| Some(start + written[start..].find('/')?))?;
        let (location, revision) = match written[path..].rsplit_once('@') {
            Some((before, revision)) => (&written[..path + before.len()], revision),
            None => (written, ""),
        };
        Self::new(location, revision)
    }

    fn new(location: &str, revision: &str) -> Option<Self> {
        let (url, credentials) = address(location).ok()?;
        Some(Self {
            name: None,
            url,
            revision: revision.to_owned(),
            credentials,
            subdirectory: None,
            head: String::new(),
            tail: String::new(),
        })
    }

    /// Whether it is that repository at that revision.
    fn matches(&self, url: &str, revision: &str) -> bool {
        bare(&self.url) == bare(url) && self.revision == revision
    }

    fn is_brought_as(&self, brought: &Brought) -> bool {
        self.matches(&brought.url, &brought.revision) || self.matches(&brought.url, &brought.commit)
    }

    /// The line with its address replaced.
    fn line(&self, address: &str, fragment: &str) -> String {
        let mut line = String::new();
        if !self.head.is_empty() {
            line += &self.head;
            line += " @ ";
        }
        line += address;
        line += fragment;
        if !self.tail.is_empty() {
            line.push(' ');
            line += &self.tail;
        }
        line
    }

    /// As a requirement of exactly this commit, without secrets.
    fn pinned(&self, commit: &str) -> String {
        let address = if self.url.contains("://") {
            format!("git+{}@{commit}", self.url)
        } else {
            // pip and uv know no other form of `user@host:path`.
            format!("git+ssh://{}@{commit}", self.url.replacen(':', "/", 1))
        };
        let fragment = self.subdirectory.as_ref();
        let fragment = fragment.map(|folder| format!("#subdirectory={folder}"));
        self.line(&address, &fragment.unwrap_or_default())
    }

    fn on_disk(&self, folder: &str) -> String {
        let inner = self.subdirectory.as_ref();
        let inner = inner.map(|inner| format!("/{inner}"));
        self.line(&format!("file://{folder}{}", inner.unwrap_or_default()), "")
    }
}

/// A folder that stays below its root.
fn inner(path: &str) -> Option<String> {
    let path = path.trim_matches('/');
    let stays = !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    stays.then(|| path.to_owned())
}

/// What tells two addresses apart.
fn bare(url: &str) -> &str {
    let url = url.trim_end_matches('/');
    url.strip_suffix(".git").unwrap_or(url)
}

/// The requirements of a list that come from git.
pub fn of_list(text: &str) -> Vec<Remote> {
    distinct(text.lines().filter_map(|line| Remote::of_line(line.trim())))
}

/// Those of a `uv.lock` or `poetry.lock`.
pub fn of_lock(text: &str) -> Vec<Remote> {
    let Ok(lock) = text.parse::<Table>() else {
        return Vec::new();
    };
    let packages = lock.get("package").and_then(Value::as_array);
    distinct(packages.into_iter().flatten().filter_map(of_package))
}

fn of_package(package: &Value) -> Option<Remote> {
    let source = package.get("source")?;
    let text = |key: &str| source.get(key).and_then(Value::as_str);
    let mut found = match text("git") {
        // `https://host/path?rev=main&subdirectory=x#commit`
        Some(written) => {
            let (written, commit) = written.rsplit_once('#')?;
            let (location, query) = written.split_once('?').unwrap_or((written, ""));
            let mut found = Remote::new(location, commit)?;
            found.subdirectory = query
                .split('&')
                .find_map(|pair| inner(pair.strip_prefix("subdirectory=")?));
            found
        }
        None if text("type") == Some("git") => Remote::new(
            text("url")?,
            text("resolved_reference").or(text("reference"))?,
        )?,
        None => return None,
    };
    found.name = package
        .get("name")
        .and_then(Value::as_str)
        .map(package_name);
    Some(found)
}

/// What a `pyproject.toml` takes from git: the package's name, and the line that asks for it.
pub fn of_project(text: &str) -> Vec<(String, String)> {
    let Ok(project) = text.parse::<Table>() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    look(&Value::Table(project), "", &mut found);
    found
}

fn look(value: &Value, name: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::Table(table) => {
            let text = |key: &str| table.get(key).and_then(Value::as_str);
            if let Some(url) = text("git").filter(|_| !name.is_empty()) {
                let revision = ["rev", "tag", "branch"].iter().find_map(|key| text(key));
                let revision = revision.map(|revision| format!("@{revision}"));
                let folder = text("subdirectory").map(|folder| format!("#subdirectory={folder}"));
                let url = if url.contains("://") {
                    url.to_owned()
                } else {
                    format!("ssh://{}", url.replacen(':', "/", 1))
                };
                let (revision, folder) = (revision.unwrap_or_default(), folder.unwrap_or_default());
                found.push((
                    package_name(name),
                    format!("{name} @ git+{url}{revision}{folder}"),
                ));
                return;
            }
            for (key, value) in table {
                look(value, key, found);
            }
        }
        Value::Array(items) => {
            for item in items {
                look(item, name, found);
            }
        }
        Value::String(text) => {
            if let Some(remote) = Remote::of_line(text) {
                found.push((remote.name.unwrap_or_default(), text.clone()));
            }
        }
        _ => {}
    }
}

/// What the files of a package itself ask of git: its author's requirements, which are no task's.
pub fn of_files<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<Remote> {
    let ends = |c: char| matches!(c, '"' | '\'' | '\n' | ',');
    let pieces = texts
        .into_iter()
        .flat_map(|text| text.split(ends).collect::<Vec<&str>>());
    distinct(pieces.filter_map(|piece| Remote::of_line(piece.trim())))
}

fn distinct(found: impl Iterator<Item = Remote>) -> Vec<Remote> {
    let mut kept: Vec<Remote> = Vec::new();
    for remote in found {
        if !kept.contains(&remote) {
            kept.push(remote);
        }
    }
    kept
}

/// The list with the commit of each requirement that was brought, and without secrets; an error is why one was not.
pub fn pinned(text: &str, brought: &[Brought]) -> Result<String, Failure> {
    let mut list = String::new();
    for line in text.lines() {
        let remote = Remote::of_line(line);
        let found = remote.as_ref().and_then(|remote| {
            let found = brought.iter().find(|brought| remote.is_brought_as(brought));
            Some((remote, found?))
        });
        match found {
            Some((
                _,
                Brought {
                    failure: Some(why), ..
                },
            )) if !line.contains(';') => {
                return Err(Failure::new(why.clone()));
            }
            // A marker may say that it is not for this Python; else the installer tries, and fails, by itself.
            None
            | Some((
                _,
                Brought {
                    failure: Some(_), ..
                },
            )) => list += line,
            Some((remote, brought)) => list += &remote.pinned(&brought.commit),
        }
        list.push('\n');
    }
    Ok(list)
}

/// The same with the folders in place of the addresses.
pub fn on_disk(text: &str, brought: &[Brought]) -> String {
    let mut list = String::new();
    for line in text.lines() {
        let remote = Remote::of_line(line);
        let led = remote.and_then(|remote| {
            let there = |brought: &&Brought| brought.failure.is_none();
            let mut brought = brought.iter().filter(there);
            let found = brought.find(|brought| remote.is_brought_as(brought))?;
            Some(remote.on_disk(&found.folder))
        });
        list += led.as_deref().unwrap_or(line);
        list.push('\n');
    }
    list
}

/// A line of what is installed, with the address in place of the folder.
pub fn recorded(line: &str, brought: &[Brought]) -> String {
    let Some((head, path)) = line.split_once(" @ file://") else {
        return line.to_owned();
    };
    let mut there = brought.iter().filter(|brought| brought.failure.is_none());
    let found = there.find_map(|brought| {
        let rest = path.strip_prefix(brought.folder.as_str())?;
        (rest.is_empty() || rest.starts_with('/')).then_some((brought, rest.trim_matches('/')))
    });
    let Some((brought, folder)) = found else {
        return line.to_owned();
    };
    let remote = Remote::new(&brought.url, &brought.revision);
    remote.map_or_else(
        || line.to_owned(),
        |remote| {
            Remote {
                head: head.to_owned(),
                subdirectory: inner(folder),
                ..remote
            }
            .pinned(&brought.commit)
        },
    )
}

/// Requirements of requirements: wherever one asks for such a package, it is this one.
pub fn overrides(brought: &[Brought]) -> String {
    let mut list = String::new();
    for brought in brought.iter().filter(|brought| brought.failure.is_none()) {
        if let Some(name) = &brought.inner {
            let _ = writeln!(list, "{name} @ file://{}", brought.folder);
        }
    }
    list
}

#[cfg(test)]
mod tests;
