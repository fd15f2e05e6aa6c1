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
    let first = before.line(LOGINS).unwrap_or(1).saturating_sub(1);
    for password in passwords(before.get(LOGINS)) {
        for line in lines.iter_mut().skip(first) {
            *line = line
                .replace(&format!("\"{password}\""), &format!("\"{MASKED}\""))
                .replace(&format!(": {password}"), &format!(": {MASKED}"))
                .replace(&format!(":{password}"), &format!(":{MASKED}"))
                .replace(&format!("= {password}"), &format!("= {MASKED}"));
        }
    }
    let copy = lines.join("\n") + "\n";
    // Nothing of them is left, and everything else is as it was.
    let after = Document::read(&copy, variable).ok()?;
    // Behind backslashes a password is written in other letters than it has.
    let bare = |text: &str| text.replace('\\', "");
    let from_elsewhere = |password: &String| !bare(text).contains(&bare(password));
    let is_kept = |password: Option<String>| {
        password
            .is_some_and(|known| !known.is_empty() && known != MASKED && !from_elsewhere(&known))
    };
    let after_without_variables = Document::read(&copy, &|_| None).ok();
    if is_kept(after.text(PASSWORD))
        || is_kept(after_without_variables.and_then(|after| after.text(PASSWORD)))
        || passwords(after.get(LOGINS))
            .into_iter()
            .any(|known| is_kept(Some(known)))
    {
        return None;
    }
    (blanked(before.value) == blanked(after.value)).then_some(copy)
}

/// The passwords among logins of several hosts, however they are written.
fn passwords(logins: Option<&Value>) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(logins) = logins {
        gather(logins, false, &mut found);
    }
    found
}

fn gather(value: &Value, of_password: bool, found: &mut Vec<String>) {
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
        Value::String(text) if of_password && !text.is_empty() => found.push(text.clone()),
        Value::Number(number) if of_password => found.push(number.to_string()),
        _ => {}
    }
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
