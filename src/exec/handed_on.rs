//! The user's `clearml.conf` as the task's container gets it: without the passwords of repositories, which are for the
//! init container alone.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::configuration::MOST;
use super::failure::Failure;
use super::small;
use super::spool::write_shared;
use crate::config::conf::Document;

/// What stands in place of a password.
const MASKED: &str = "masked";
const PASSWORD: &str = "agent.git_pass";
const LOGINS: &str = "agent.git.extra_credentials";

/// Writes the copy, if there is a file. One whose passwords cannot be told from the rest is an error: it is not handed
/// on.
pub fn hand_on(
    from: &Path,
    to: &Path,
    inherited: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    if !from.is_file() {
        return Ok(());
    }
    let failed = |why: &str| {
        Failure::new(format!("{}: {why}", from.display()))
            .hint("move the passwords into the Secret of environment.git.credentialsSecretRef")
    };
    let text = small::text(from, MOST).map_err(|error| failed(&error.to_string()))?;
    let variable = |name: &str| inherited.get(name).cloned();
    let copy = without_passwords(&text, &variable).ok_or_else(|| {
        failed("the passwords of repositories in it cannot be kept from the task's container")
    })?;
    write_shared(to, copy.as_bytes())
        .map_err(|error| Failure::new(format!("{} cannot be written: {error}", to.display())))
}

/// The text with another word in place of each password; nothing if that cannot be done without changing more.
fn without_passwords(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let before = Document::read(text, variable).ok()?;
    // A variable may stand before what is written in the file: `git_pass: ${?TOKEN}` below `git_pass: word`.
    let without_variables = Document::read(text, &|_| None).ok();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for document in std::iter::once(&before).chain(&without_variables) {
        let (Some(password), Some(last)) = (document.text(PASSWORD), document.line(PASSWORD))
        else {
            continue;
        };
        if password.is_empty() {
            continue;
        }
        let escaped = password.replace('\\', r"\\").replace('"', "\\\"");
        let named = lines.iter_mut().take(last);
        for line in named.filter(|line| line.contains("git_pass")) {
            *line = line.replace(&escaped, MASKED).replace(&password, MASKED);
        }
    }
    for document in std::iter::once(&before).chain(&without_variables) {
        let first = document.line(LOGINS).unwrap_or(1).saturating_sub(1);
        for password in passwords(document.get(LOGINS)) {
            let password = written(password);
            for line in lines.iter_mut().skip(first) {
                *line = line
                    .replace(&format!("\"{password}\""), &format!("\"{MASKED}\""))
                    .replace(&format!(": {password}"), &format!(": {MASKED}"))
                    .replace(&format!(":{password}"), &format!(":{MASKED}"))
                    .replace(&format!("= {password}"), &format!("= {MASKED}"));
            }
        }
    }
    let copy = lines.join("\n") + "\n";
    // Nothing of them is left, and everything else is as it was.
    let after = Document::read(&copy, variable).ok()?;
    // Behind backslashes a password is written in other letters than it has.
    let bare = |text: &str| text.replace('\\', "");
    let from_elsewhere = |password: &str| !bare(text).contains(&bare(password));
    let is_kept = |password: &Value| match password {
        Value::String(known) => !known.is_empty() && known != MASKED && !from_elsewhere(known),
        // What a variable holds is a text: a number stands in the file, however it is written there.
        Value::Number(_) => true,
        _ => false,
    };
    let after_without_variables = Document::read(&copy, &|_| None).ok();
    for document in std::iter::once(&after).chain(&after_without_variables) {
        let of_all = passwords(document.get(LOGINS)).into_iter();
        if of_all.chain(document.get(PASSWORD)).any(is_kept) {
            return None;
        }
    }
    (blanked(before.value) == blanked(after.value)).then_some(copy)
}

/// The passwords among logins of several hosts, whichever form those have.
fn passwords(logins: Option<&Value>) -> Vec<&Value> {
    let mut found = Vec::new();
    if let Some(logins) = logins {
        gather(logins, false, &mut found);
    }
    found
}

fn gather<'v>(value: &'v Value, of_password: bool, found: &mut Vec<&'v Value>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                gather(value, of_password || is_password(name), found);
            }
        }
        Value::Array(all) => {
            for value in all {
                gather(value, of_password, found);
            }
        }
        Value::String(text) if of_password && !text.is_empty() => found.push(value),
        Value::Number(_) if of_password => found.push(value),
        _ => {}
    }
}

/// A password as it stands in a file, most likely.
fn written(password: &Value) -> String {
    let text = password.as_str().map(str::to_owned);
    text.unwrap_or_else(|| password.to_string())
}

fn is_password(name: &str) -> bool {
    name.contains("pass") || name.contains("token")
}

/// The document with nothing in the places of passwords.
fn blanked(mut document: Value) -> Value {
    if let Some(password) = document.pointer_mut("/agent/git_pass") {
        *password = Value::Null;
    }
    if let Some(logins) = document.pointer_mut("/agent/git/extra_credentials") {
        blank(logins);
    }
    document
}

fn blank(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if is_password(name) {
                    *value = Value::Null;
                } else {
                    blank(value);
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(blank),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn copy(text: &str) -> Option<String> {
        without_passwords(text, &|name| {
            (name == "PASS").then(|| "canary-env".to_owned())
        })
    }

    #[test]
    fn passwords_of_repositories_go_and_everything_else_stays() {
        for text in [
            "agent.git_user: me\nagent.git_pass: \"canary-1\" # mine\nsdk.aws.s3.secret: canary-1x\n",
            "agent {\n  git_pass = canary-1\n  package_manager.type: uv\n}\n",
            "agent { git_user: me, git_pass: canary-1, python_binary: python3 }\n",
            "agent.git.extra_credentials: [\n  {host: a, user: u, pass: \"canary-1\"}\n  {host: b, token: canary-2}\n]\n",
            "agent.git.extra_credentials: [{host: a, user: u, pass: 7411}]\nsdk.x: 1\n",
            "agent.git.extra_credentials: {host: a, user: u, pass: canary-3}\n",
            "agent.git.extra_credentials { one { host: a, user: u, pass: 7411 } }\n",
            "agent.git.extra_credentials: [{user: u, pass: 741112345678901234567890}]\n",
            "agent.git_pass: 741112345678901234567890\n",
            "agent.git.extra_credentials: [{user: u, pass: canary-4, pass: ${?PASS}}]\n",
            "sdk.development.worker: 3\n",
            "agent.git_pass: \"\"\n",
            "agent.git_pass: \"canary\\\"1\\\\2\"\n",
            "agent { git_pass: canary-1 }\nagent.git_pass: ${?NONE}\n",
            "agent { git_pass: canary-1 }\nagent.git_pass: ${?PASS}\n",
        ] {
            let copy = copy(text).unwrap_or_else(|| panic!("{text}"));
            let kept = copy.replace("canary-1x", "");
            let is_left = kept.contains("canary") || kept.contains("7411");
            assert!(!is_left, "{text}: {copy}");
            assert_eq!(copy.lines().count(), text.lines().count());
        }
    }

    #[test]
    fn what_comes_from_a_variable_stands_in_no_file() {
        let text = "agent.git_pass: ${PASS}\n";
        assert_eq!(copy(text).as_deref(), Some(text));
    }

    #[test]
    fn a_file_whose_passwords_cannot_be_told_from_the_rest_is_not_handed_on() {
        // The password is the key's own name.
        assert_eq!(copy("agent.git_pass: git_pass\n"), None);
        assert_eq!(copy("agent.git_pass: \"\"\"\ncanary\n\"\"\"\n"), None);
        // Behind a backslash it has other letters.
        assert_eq!(copy("agent.git_pass: ca\\#nary\n"), None);
        // A number is not read as it is written.
        assert_eq!(copy("agent.git_pass: 7.411e3\n"), None);
        let logins = "agent.git.extra_credentials: [{user: u, pass: 7.411e3}]\n";
        assert_eq!(copy(logins), None);
    }

    #[test]
    fn without_a_file_there_is_nothing_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a"), folder.path().join("b"));
        hand_on(&from, &to, &BTreeMap::new()).unwrap();
        assert!(!to.exists());
        fs::write(&from, "agent.git_pass: canary-1\nsdk.x: 1\n").unwrap();
        hand_on(&from, &to, &BTreeMap::new()).unwrap();
        assert_eq!(
            fs::read_to_string(&to).unwrap(),
            "agent.git_pass: masked\nsdk.x: 1\n"
        );
    }

    #[test]
    fn a_file_that_is_too_long_is_not_handed_on() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a"), folder.path().join("b"));
        let blank = "\n".repeat(usize::try_from(MOST).unwrap());
        fs::write(&from, format!("sdk.x: 1{blank}")).unwrap();
        let failure = hand_on(&from, &to, &BTreeMap::new()).unwrap_err();
        let told = format!("it is longer than {MOST} bytes");
        assert!(failure.sentence.contains(&told), "{failure}");
        assert!(!to.exists());
    }
}
