//! PURE: what uv or pip printed -> one sentence that names the requirement.

use crate::exec::failure::{Failure, masked, one_line};

/// Explains a failed installation.
pub(super) fn explain(output: &str) -> Failure {
    let lines: Vec<&str> = output
        .lines()
        .map(bare)
        .filter(|line| !line.is_empty())
        .collect();
    full(&lines)
        .or_else(|| mismatched(&lines))
        .or_else(|| unsatisfiable(&lines))
        .or_else(|| unreachable(&lines))
        .or_else(|| unreadable(&lines))
        .or_else(|| unbuildable(&lines))
        .unwrap_or_else(|| {
            Failure::new(format!(
                "the Python environment could not be made: {}",
                first_words(output)
            ))
            .hint("the installer's output is in the task's log")
        })
}

/// What a full disk is called.
const FULL: &str = "no space is left for the Python environment";

/// Whether it was the disk.
pub(super) fn is_full(failure: &Failure) -> bool {
    failure.sentence.starts_with(FULL)
}

/// A disk that is full.
pub(super) fn no_space() -> Failure {
    Failure::new(FULL).hint("raise environment.cache.sizeLimit of the binding")
}

/// Whatever else failed for it.
fn full(lines: &[&str]) -> Option<Failure> {
    let told = ["No space left on device", "Disk quota exceeded"];
    let is_full = |line: &&str| told.iter().any(|words| line.contains(*words));
    lines.iter().any(is_full).then(no_space)
}

/// The first line that reports an error, without secrets.
pub(super) fn first_words(output: &str) -> String {
    let lines: Vec<&str> = output
        .lines()
        .map(bare)
        .filter(|line| !line.is_empty())
        .collect();
    let error = lines
        .iter()
        .find(|line| line.starts_with("error:") || line.starts_with("ERROR:"));
    let line = error.or(lines.last()).copied().unwrap_or("no reason given");
    masked(&one_line(
        line.trim_start_matches("error: ")
            .trim_start_matches("ERROR: "),
    ))
}

/// A line without the marks that uv draws around it.
fn bare(line: &str) -> &str {
    line.trim_start_matches(|c: char| c.is_whitespace() || "×╰─▶├│".contains(c))
        .trim_end()
}

fn after<'a>(lines: &[&'a str], before: &str) -> Option<&'a str> {
    lines
        .iter()
        .find_map(|line| line.find(before).map(|at| &line[at + before.len()..]))
}

fn quoted(text: &str) -> Option<&str> {
    text.split('`').nth(1)
}

const CHANGE: &str =
    "change the version in the task's requirements, or the package index of the binding";

/// A file that is not the one whose hash was recorded.
fn mismatched(lines: &[&str]) -> Option<Failure> {
    let line = lines
        .iter()
        .find(|line| line.to_ascii_lowercase().contains("hash mismatch"))?;
    let requirement = quoted(line).unwrap_or("of the list");
    Some(
        Failure::new(format!(
            "requirement {requirement} is refused: the file at the index has another hash than the one recorded"
        ))
        .hint("lock again, or check the index"),
    )
}

fn unsatisfiable(lines: &[&str]) -> Option<Failure> {
    if let Some(requirement) = after(lines, "No matching distribution found for ") {
        // Where pip read it is a path of ours.
        let requirement = requirement.split(" (from ").next().unwrap_or_default();
        return Some(
            Failure::new(format!(
                "requirement {requirement} cannot be satisfied: no such version"
            ))
            .hint(CHANGE),
        );
    }
    if lines
        .iter()
        .any(|line| line.contains("ResolutionImpossible"))
    {
        return Some(Failure::new("the requirements contradict each other").hint(CHANGE));
    }
    let start = lines.iter().position(|line| line.contains("Because "))?;
    let text = one_line(
        &lines[start..]
            .iter()
            .take_while(|line| !line.starts_with("hint:"))
            .copied()
            .collect::<Vec<_>>()
            .join(" "),
    );
    let text = text.strip_prefix("cause: ").unwrap_or(&text);
    let (reason, _) = text.split_once(", we can conclude").unwrap_or((text, ""));
    let reason = reason.trim_start_matches("Because ");
    if text.contains("And because ") {
        return Some(
            Failure::new(format!("the requirements contradict each other: {text}")).hint(CHANGE),
        );
    }
    // "there is no version of six==99 and you require six==99", or the other way round.
    let Some((cause, requirement)) = reason.rsplit_once(" and you require ") else {
        let both = reason.strip_prefix("you require ").unwrap_or(reason);
        return Some(
            Failure::new(format!("the requirements contradict each other: {both}")).hint(CHANGE),
        );
    };
    Some(
        Failure::new(format!(
            "requirement {requirement} cannot be satisfied: {cause}"
        ))
        .hint(CHANGE),
    )
}

fn unreachable(lines: &[&str]) -> Option<Failure> {
    let address = after(lines, "Failed to fetch: ")
        .or_else(|| after(lines, "error sending request for url ("))?;
    let address = masked(address.trim_matches(['`', ')', '(']));
    let refused = ["401 Unauthorized", "403 Forbidden"]
        .iter()
        .find(|status| lines.iter().any(|line| line.contains(*status)));
    if let Some(status) = refused {
        return Some(
            Failure::new(format!("the package index refuses {address}: {status}"))
                .hint("check the credentials of the index"),
        );
    }
    let why = lines
        .iter()
        .rev()
        .find_map(|line| line.strip_prefix("cause: "))
        .unwrap_or("no answer");
    Some(
        Failure::new(format!("{address} cannot be fetched: {}", masked(why)))
            .hint("set environment.indexUrl of the binding to a package index that pods can reach"),
    )
}

fn unreadable(lines: &[&str]) -> Option<Failure> {
    if let Some(at) = lines
        .iter()
        .position(|line| line.contains("Couldn't parse requirement"))
    {
        let why = lines
            .get(at + 1)
            .copied()
            .unwrap_or_default()
            .trim_start_matches("cause: ");
        let line = lines.get(at + 2).copied().unwrap_or_default();
        return Some(Failure::new(format!(
            "requirement {line:?} cannot be read: {why}"
        )));
    }
    if let Some(path) = after(lines, "Distribution not found at: ") {
        return Some(
            Failure::new(format!("requirement {path} is not there"))
                .hint("is it committed to the repository?"),
        );
    }
    let missing = lines
        .iter()
        .find(|line| line.contains("No such file or directory") && line.contains("failed to read"));
    if let Some(file) = missing.and_then(|line| quoted(line)) {
        return Some(
            Failure::new(format!("the requirement file {file} is not there"))
                .hint("is it committed to the repository?"),
        );
    }
    None
}

/// Begins the line of uv that names a source which it could not build.
fn is_unbuilt(line: &str) -> bool {
    line.contains("Failed to download and build") || line.contains("Failed to build")
}

/// The requirement whose source was there, and whose own build failed.
pub(super) fn unbuilt(output: &str) -> Option<&str> {
    if !output.contains("The build backend returned an error") {
        return None;
    }
    quoted(output.lines().find(|line| is_unbuilt(line))?)
}

fn unbuildable(lines: &[&str]) -> Option<Failure> {
    let line = lines.iter().find(|line| is_unbuilt(line))?;
    let requirement = masked(quoted(line).unwrap_or("of the list"));
    if lines
        .iter()
        .any(|line| line.contains("Git executable not found"))
    {
        return Some(
            Failure::new(format!(
                "requirement {requirement} comes from git, which the image does not have"
            ))
            .hint("use an image with git, or a released version of the package"),
        );
    }
    if lines
        .iter()
        .any(|line| line.contains("Git operation failed"))
    {
        let said = after(lines, "fatal: ").unwrap_or("no reason given");
        return Some(Failure::new(format!(
            "requirement {requirement} could not be fetched by git: {}",
            masked(said)
        )));
    }
    Some(
        Failure::new(format!("requirement {requirement} could not be built in this image"))
            .hint("take a version that has a wheel for this Python, or an image with the compilers it needs"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_names_the_requirement() {
        let missing = "error: No solution found when resolving dependencies\n  cause: Because nosuch was not found in \
            the package registry and you require nosuch==9.9, we can conclude that your requirements are unsatisfiable.";
        let boxed = "  × No solution found when resolving dependencies:\n  ╰─▶ Because only six<=1.17 is available and\n      \
            you require six==99, we can conclude that your requirements are unsatisfiable.";
        let conflict = "  cause: Because you require six==1.16 and six==1.17, we can conclude that your requirements \
            are unsatisfiable.";
        let deep = "  cause: Because a==1 depends on b>=2 and you require a==1, we can conclude that you require b>=2. \
            And because you require b<2, we can conclude that your requirements are unsatisfiable.";
        let offline = "error: Request failed after 3 retries in 10.8s\n  cause: Failed to fetch: \
            http://u:p@127.0.0.1:9/simple/six/\n  cause: client error (Connect)\n  cause: Connection refused (os error 111)";
        let parse = "error: Couldn't parse requirement in `-` at position 0\n  cause: no such comparison operator \
            \"=\"\n         six=1\n            ^^";
        let full = "error: Failed to download `six==1`\n  cause: Failed to fetch: https://pypi.example/six.whl\n  \
            cause: failed to write to file `/cache/.tmp/six`: No space left on device (os error 28)";
        let build =
            "error: Failed to build `pandas==0.13.1`\n  cause: The build backend returned an error";
        let git = "error: Failed to download and build `foo @ git+https://git.example/x.git@abc`\n  cause: Git operation \
            failed\n  cause: Git executable not found. Ensure that Git is installed and available.";
        for (output, expected) in [
            (
                missing,
                "requirement nosuch==9.9 cannot be satisfied: nosuch was not found in the package registry",
            ),
            (
                boxed,
                "requirement six==99 cannot be satisfied: only six<=1.17 is available",
            ),
            (
                conflict,
                "the requirements contradict each other: six==1.16 and six==1.17",
            ),
            (
                "ERROR: No matching distribution found for six==99",
                "requirement six==99 cannot be satisfied: no such version",
            ),
            (
                offline,
                "http://***@127.0.0.1:9/simple/six/ cannot be fetched: Connection refused (os error 111)",
            ),
            (
                parse,
                "requirement \"six=1\" cannot be read: no such comparison operator \"=\"",
            ),
            (
                build,
                "requirement pandas==0.13.1 could not be built in this image",
            ),
            (
                git,
                "requirement foo @ git+https://git.example/x.git@abc comes from git, which the image does not have",
            ),
            (full, FULL),
            (
                "error: Distribution not found at: file:///x",
                "requirement file:///x is not there",
            ),
            (
                "error: strange",
                "the Python environment could not be made: strange",
            ),
        ] {
            assert_eq!(explain(output).sentence, expected);
        }
        assert_eq!(unbuilt(build), Some("pandas==0.13.1"));
        assert_eq!(unbuilt(git), None, "its source is not there");
        assert_eq!(unbuilt(missing), None);
        assert!(
            explain(deep)
                .sentence
                .starts_with("the requirements contradict each other: Because a==1")
        );
    }
}
