//! The lines of a requirement file: what each of them is, and what it names on the disk.

use std::path::Path;

/// What a line of a requirement file is.
pub(super) enum Line<'a> {
    File(&'a str),
    Constraints(&'a str),
    Editable(&'a str),
    EditableGit(&'a str),
    Path(&'a str),
    Reference(&'a str, &'a str),
    Other,
}

impl<'a> Line<'a> {
    pub(super) fn of(line: &'a str) -> Self {
        let remote = |path: &str| path.contains("://") && !path.starts_with("file:");
        if let Some(file) = argument(line, "-r", "--requirement").filter(|file| !remote(file)) {
            return Self::File(file);
        }
        if let Some(file) = argument(line, "-c", "--constraint").filter(|file| !remote(file)) {
            return Self::Constraints(file);
        }
        if let Some(source) = argument(line, "-e", "--editable") {
            return if source.starts_with("git+") {
                Self::EditableGit(source)
            } else {
                Self::Editable(source)
            };
        }
        if is_path(line) || line == "." {
            return Self::Path(line);
        }
        match line.split_once('@') {
            Some((package, path)) if !remote(path.trim()) && is_path(path.trim()) => {
                Self::Reference(package.trim(), path.trim())
            }
            _ => Self::Other,
        }
    }
}

fn is_path(text: &str) -> bool {
    ["./", "../", "/", "file:"]
        .iter()
        .any(|start| text.starts_with(start))
}

/// What follows an option in any of its spellings.
fn argument<'a>(line: &'a str, short: &str, long: &str) -> Option<&'a str> {
    let rest = match line.strip_prefix(long) {
        Some(rest) if rest.starts_with(['=', ' ', '\t']) => rest,
        _ => line
            .strip_prefix(short)
            .filter(|_| !line.starts_with("--"))?,
    };
    Some(rest.trim_start_matches('=').trim()).filter(|value| !value.is_empty())
}

/// The file or folder of a requirement, without `file://`, extras and markers.
fn place(path: &str) -> &str {
    let path = path
        .strip_prefix("file://")
        .or(path.strip_prefix("file:"))
        .unwrap_or(path);
    path.split(['[', ';', '#']).next().unwrap_or(path).trim()
}

pub(super) fn there(folder: &Path, path: &str) -> bool {
    folder.join(place(path)).exists()
}

pub(super) fn absolute(folder: &Path, path: &str) -> String {
    let place = place(path);
    let rest = path.split_once(place).map_or("", |(_, rest)| rest);
    let joined = folder.join(place);
    let joined = joined.canonicalize().unwrap_or(joined);
    format!("{}{rest}", joined.display())
}

/// Lines with their continuations, without comments.
pub(super) fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = String::new();
    for line in text.lines() {
        let line = line.trim();
        let line = line.split(" #").next().unwrap_or(line).trim_end();
        if line.starts_with('#') {
            continue;
        }
        if let Some(begun) = line.strip_suffix('\\') {
            open.push_str(begun.trim_end());
            open.push(' ');
            continue;
        }
        open.push_str(line);
        if !open.trim().is_empty() {
            lines.push(open.trim().to_owned());
        }
        open.clear();
    }
    if !open.trim().is_empty() {
        lines.push(open.trim().to_owned());
    }
    lines
}

/// An editable git checkout as a plain one: `name @ git+https://…`.
pub(super) fn plain_git(source: &str) -> String {
    match source.split_once("#egg=") {
        Some((address, name)) => {
            format!("{} @ {address}", name.split('&').next().unwrap_or(name))
        }
        None => source.to_owned(),
    }
}
