//! `clearml.conf` as people have it: each file of `tests/fixtures/conf` has the values that the reference parser gives it,
//! which `expected.py` beside them has written down, but for those that are named here.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use trainyard::config::conf::Document;

/// What `expected.py` sets.
const VARIABLES: [(&str, &str); 4] = [
    ("HOME", "/home/me"),
    ("CLEARML_DOMAIN", "clear.example"),
    ("CLEARML_API_HOST", "https://api.clear.example"),
    ("GIT_TOKEN", "t0ken"),
];

/// What the reference parser refuses, and so do we: the file, and what we say.
const REFUSED: [(&str, &str); 2] = [
    (
        "ini",
        "line 1: a key cannot begin with [: a section is written as name { ... }",
    ),
    (
        "required-variable",
        "line 9: ${NOT_SET_SECRET_KEY} is neither a key of the file nor an environment variable",
    ),
];

/// A value that is meant to be another one here.
struct Different {
    file: &'static str,
    /// A JSON pointer; empty where the reference parser refuses the file.
    key: &'static str,
    ours: Value,
    why: &'static str,
}

/// `docs/compatibility.md` tells the same.
fn different() -> Vec<Different> {
    let row = |file, key, ours, why| Different {
        file,
        key,
        ours,
        why,
    };
    vec![
        row(
            "appends",
            "/agent/sites",
            json!(["a", "b"]),
            "+= appends, also within braces, where the reference parser forgets what was there",
        ),
        row(
            "appends",
            "/agent/ports",
            json!([1, 2]),
            "+= with a number appends it, where the reference parser puts it in place of the list",
        ),
        row(
            "byte-order-mark",
            "",
            json!({ "agent": { "worker_name": "box" } }),
            "a byte order mark is no part of the first key",
        ),
        row(
            "duration-at-the-end",
            "/agent/venv_update/after",
            json!("10s"),
            "10s is a text wherever it stands, not only before the end of the file",
        ),
        row(
            "lists",
            "/agent/package_manager/optional",
            json!(["kept"]),
            "a reference to nothing leaves no hole in its list",
        ),
        row(
            "lists",
            "/agent/package_manager/blank",
            json!(["", "x"]),
            "an empty text stays in its list",
        ),
        row(
            "refused",
            "",
            json!({
                "agent": {
                    "git_ssh": "git@github.com:org/repo.git",
                    "extra_index_url": ["https://user:p@ss@pypi.example/simple?x=1&y=2"],
                    "packages": { "first": ["cython"] },
                    "package_manager": { "type": "uv" },
                    "venvs": { "dir": "C:/venvs", "size": 3 },
                    "quoted.part": { "key": 1 },
                },
                "packages": ["cython", "numpy"],
                "path": "/home/me/bin",
            }),
            "what can mean but one thing is read",
        ),
        row(
            "words",
            "/zeros/a",
            json!("0118"),
            "a number with zeros before it is a text: it may be a password",
        ),
        row(
            "words",
            "/zeros/d",
            json!("007"),
            "a number with zeros before it is a text: it may be a password",
        ),
        row(
            "words",
            "/texts/d",
            json!("true story"),
            "true, false and null beside other words are words",
        ),
        row(
            "words",
            "/texts/l",
            json!("Friday 3.10"),
            "a number behind other words keeps its zeros",
        ),
        row(
            "words",
            "/tabs/a",
            json!("one\ttwo"),
            "a tab in a text stays one",
        ),
    ]
}

/// Where two values differ: JSON pointer, theirs, ours.
fn differences(at: &str, theirs: &Value, ours: &Value, found: &mut Vec<(String, Value, Value)>) {
    let (Value::Object(in_theirs), Value::Object(in_ours)) = (theirs, ours) else {
        if theirs != ours {
            found.push((at.to_owned(), theirs.clone(), ours.clone()));
        }
        return;
    };
    let absent = json!("(absent)");
    let names: BTreeSet<&String> = in_theirs.keys().chain(in_ours.keys()).collect();
    for name in names {
        let value =
            |fields: &serde_json::Map<String, Value>| fields.get(name).unwrap_or(&absent).clone();
        let escaped = name.replace('~', "~0").replace('/', "~1");
        let at = format!("{at}/{escaped}");
        differences(&at, &value(in_theirs), &value(in_ours), found);
    }
}

/// The files with their ending taken off.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".conf").map(str::to_owned))
        .collect();
    names.sort();
    names
}

#[test]
fn s53_real_files_have_the_values_of_the_reference_parser() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/conf");
    let names = names(&folder);
    assert!(names.len() >= 15, "{names:?}");
    let variable = |name: &str| {
        let found = VARIABLES.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let mut different = different();
    let mut faults = Vec::new();
    for name in &names {
        let text = fs::read_to_string(folder.join(format!("{name}.conf"))).unwrap();
        let answer = fs::read(folder.join(format!("{name}.json"))).unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_ne!(
            answer["value"].is_object(),
            answer["refused"].is_string(),
            "{name}: what expected.py wrote"
        );
        let include = |other: &str| Ok(fs::read_to_string(folder.join(other)).ok());
        let document = match Document::read_with(&text, &variable, &include) {
            Ok(document) => document,
            Err(error) => {
                let said = error.to_string();
                let meant = REFUSED.contains(&(name.as_str(), said.as_str()));
                if !meant || !answer["refused"].is_string() {
                    faults.push(format!("{name}.conf, {said}"));
                }
                continue;
            }
        };
        if REFUSED.iter().any(|(file, _)| *file == name) {
            faults.push(format!("{name}.conf is read"));
        }
        let mut found = Vec::new();
        differences("", &answer["value"], &document.value, &mut found);
        for (key, theirs, ours) in found {
            let meant = different
                .iter()
                .position(|row| row.file == name && row.key == key && row.ours == ours);
            match meant {
                Some(row) => drop(different.remove(row)),
                None => faults.push(format!("{name}.conf, {key}: {ours}, and not {theirs}")),
            }
        }
    }
    for row in different {
        faults.push(format!(
            "{}.conf, {} is not {}, though {}",
            row.file, row.key, row.ours, row.why
        ));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
