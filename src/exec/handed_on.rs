//! The user's `clearml.conf` as the task's container gets it: without the passwords of repositories, which are for the
//! init container alone.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::configuration::MOST;
use super::failure::Failure;
use super::small;
use super::spool::write_shared;
use crate::config::conf::{self, Document, Place};

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

/// The text with another word in place of each password, also of one that a later line overrides; nothing if that cannot
/// be done without changing more.
fn without_passwords(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let before = Document::read(text, variable).ok()?;
    let places = conf::places(text, &is_about_passwords).ok()?;
    let copy = with_masks(text, &places);
    // Nothing of them is left, and everything else is as it was.
    let after = Document::read(&copy, variable).ok()?;
    // A variable may stand before what is written in the file: `git_pass: ${?TOKEN}` below `git_pass: ${word}`.
    let without_variables = Document::read(&copy, &|_| None).ok();
    // Behind backslashes a password is written in other letters than it has.
    let bare = |text: &str| text.replace('\\', "");
    let from_elsewhere = |password: &str| !bare(&copy).contains(&bare(password));
    let is_kept = |password: &Value| match password {
        Value::String(known) => !known.is_empty() && known != MASKED && !from_elsewhere(known),
        // What a variable holds is a text: a number stands in the file, however it is written there.
        Value::Number(_) => true,
        _ => false,
    };
    for document in std::iter::once(&after).chain(&without_variables) {
        // What an overridden line refers to stands in the file under another key.
        let mut referred = places.iter().filter_map(|place| {
            let value = document.get(place.reference.as_deref()?)?;
            Some(placed(&place.path, value))
        });
        if passwords(&document.value).into_iter().any(is_kept)
            || referred.any(|value| passwords(&value).into_iter().any(is_kept))
        {
            return None;
        }
    }
    (blanked(before.value) == blanked(after.value)).then_some(copy)
}

/// The text with another word where a password is written. A reference stays: what it stands for is written elsewhere.
fn with_masks(text: &str, places: &[Place]) -> String {
    let mut copy = String::with_capacity(text.len());
    let mut done = 0;
    let mut reference = None;
    for place in places {
        let written = &text[place.bytes.clone()];
        if place.reference.is_some() {
            reference = Some(&place.bytes);
            continue;
        }
        // Of objects the fields are masked.
        let stays = reference == Some(&place.bytes)
            || place.bytes.start < done
            || written.starts_with('{')
            || ["", "\"\"", "null"].contains(&written);
        if stays || !holds_password(&place.path) {
            continue;
        }
        copy.push_str(&text[done..place.bytes.start]);
        let quote = if written.starts_with('"') { "\"" } else { "" };
        copy.extend([quote, MASKED, quote]);
        done = place.bytes.end;
    }
    copy.push_str(&text[done..]);
    copy
}

/// Whether a key holds passwords, is one, or is above or below one that does.
fn is_about_passwords(path: &str) -> bool {
    [PASSWORD, LOGINS]
        .iter()
        .any(|key| is_within(path, key) || is_within(key, path))
}

/// Whether the key at this path is a password, or a part of one.
fn holds_password(path: &str) -> bool {
    let of_login = || path[LOGINS.len()..].split('.').any(is_password);
    is_within(path, PASSWORD) || (is_within(path, LOGINS) && of_login())
}

fn is_within(path: &str, key: &str) -> bool {
    let below = path.strip_prefix(key);
    below.is_some_and(|below| below.is_empty() || below.starts_with('.'))
}

/// A document with this value at this path, and nothing else.
fn placed(path: &str, value: &Value) -> Value {
    path.rsplit('.')
        .fold(value.clone(), |value, name| json!({ name: value }))
}

/// The passwords of a document, whichever form the logins of several hosts have.
fn passwords(document: &Value) -> Vec<&Value> {
    let mut found = Vec::new();
    if let Some(password) = document.pointer("/agent/git_pass") {
        gather(password, true, &mut found);
    }
    if let Some(logins) = document.pointer("/agent/git/extra_credentials") {
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
            "agent.git_pass: canary-0\nagent.git_pass: \"canary-1\"\n",
            "agent.git_pass: canary-0\nagent { git_pass: ${?PASS} }\nsdk.x: 1\n",
            "agent { git_pass: canary-0, git_user: me }\nagent: 3\n",
            "agent.git.extra_credentials: [{user: u, pass: canary-0}]\nagent.git.extra_credentials: [{user: v, token: canary-2}]\n",
            "agent.git { extra_credentials: [{user: u, pass: canary-0}] }\nagent.git.extra_credentials: null\n",
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
        for text in [
            "p: canary\nagent.git_pass: ${p}\n",
            "agent.git_pass: canary\nsdk.x: ${agent.git_pass}\n",
            // A later line overrides what refers to it.
            "p: canary\nagent.git_pass: ${p}\nagent.git_pass: other\n",
            "p: 7411\nagent.git_pass: ${p}\nagent.git_pass: other\n",
            "base { git_pass: canary }\nagent: ${base}\nagent.git_pass: other\n",
            "logins: [{user: u, pass: canary}]\nagent.git.extra_credentials: ${logins}\nagent.git.extra_credentials: []\n",
        ] {
            assert_eq!(copy(text), None, "{text}");
        }
    }

    #[test]
    fn a_password_goes_however_it_is_written() {
        for (text, expected) in [
            ("agent.git_pass: git_pass\n", "agent.git_pass: masked\n"),
            (
                "agent.git_pass: \"\"\"\ncanary\n\"\"\"\n",
                "agent.git_pass: \"masked\"\n",
            ),
            ("agent.git_pass: ca\\#nary\n", "agent.git_pass: masked\n"),
            ("agent.git_pass: 7.411e3\n", "agent.git_pass: masked\n"),
            ("agent.git_pass=a b // c\n", "agent.git_pass=masked // c\n"),
            ("agent.git_pass: ${PASS}x", "agent.git_pass: masked"),
            (
                "agent.git.extra_credentials: [{user: u, pass: 7.411e3}]\n",
                "agent.git.extra_credentials: [{user: u, pass: masked}]\n",
            ),
        ] {
            assert_eq!(copy(text).as_deref(), Some(expected), "{text}");
        }
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
