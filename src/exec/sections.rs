//! The sections `environment` and `files` of `clearml.conf`, and the task's own variables: laid over the container before
//! anything of the task runs (`protocol.md` §8.2).

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::failure::Failure;
use super::settings::OWN_PREFIX;
use super::tool::Log;
use crate::config::agent::Agent;
use crate::task::Task;

/// The section of parameters that are environment variables.
const PARAMETERS: &str = "Environment";
/// Largest file that is written.
const LARGEST: usize = 16 << 20;

/// The container's variables with those of the configuration, and of the task where the configuration allows it.
pub fn variables(
    agent: &Agent,
    task: &Task,
    inherited: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut variables = inherited.clone();
    if agent.flag("agent.apply_environment") {
        set(&mut variables, &agent.environment);
    }
    if agent.flag("agent.enable_task_env")
        && let Some(section) = task.hyperparams.get(PARAMETERS).and_then(Value::as_object)
    {
        let values = section
            .iter()
            .filter_map(|(name, parameter)| Some((name.clone(), parameter.get("value")?.clone())));
        set(&mut variables, &values.collect());
    }
    variables
}

fn set(variables: &mut BTreeMap<String, String>, section: &Map<String, Value>) {
    for (name, value) in section {
        let usable = !name.is_empty() && !name.contains(['=', '\0']);
        let text = text_of(value);
        if usable && !name.starts_with(OWN_PREFIX) && !text.contains('\0') {
            variables.insert(name.clone(), text);
        }
    }
}

/// As Python writes it, which is what a variable of the reference holds.
fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Writes the files of the configuration. One that cannot be written is the task's failure: its user counts on it.
pub fn write_files(
    agent: &Agent,
    variables: &BTreeMap<String, String>,
    log: &mut Log<'_>,
) -> Result<(), Failure> {
    if !agent.flag("agent.apply_files") {
        return Ok(());
    }
    for (name, file) in &agent.files {
        let failed = |why: &str| {
            Failure::new(format!(
                "files.{name} of clearml.conf cannot be written: {why}"
            ))
            .hint("mend it, or set agent.apply_files to false")
        };
        let file = file
            .as_object()
            .ok_or_else(|| failed("it is no section with path and contents"))?;
        let path = file
            .get("path")
            .and_then(Value::as_str)
            .filter(|path| !path.is_empty())
            .ok_or_else(|| failed("it names no path"))?;
        let path = expanded(path, variables);
        let overwrite = file.get("overwrite").is_none_or(|value| *value != false);
        if path.exists() && !overwrite {
            log(&format!(
                "files.{name}: {} is there and is kept",
                path.display()
            ));
            continue;
        }
        let bytes = contents(file).map_err(|why| failed(&why))?;
        let mode = mode(file.get("mode")).map_err(|why| failed(&why))?;
        write(&path, &bytes, mode)
            .map_err(|error| failed(&format!("{}: {error}", path.display())))?;
        log(&format!(
            "files.{name} of clearml.conf is written to {}",
            path.display()
        ));
    }
    Ok(())
}

/// `~` and `$NAME` as a shell reads them.
fn expanded(path: &str, variables: &BTreeMap<String, String>) -> PathBuf {
    let home = variables.get("HOME").map_or("/", String::as_str);
    let mut text = match path.strip_prefix("~/") {
        Some(rest) => format!("{}/{rest}", home.trim_end_matches('/')),
        None => path.to_owned(),
    };
    // The longest name first: `$HOME_DIR` is not `$HOME` with a tail.
    let mut names: Vec<&String> = variables.keys().collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    for name in names {
        for form in [format!("${{{name}}}"), format!("${name}")] {
            text = text.replace(&form, &variables[name]);
        }
    }
    PathBuf::from(text)
}

fn contents(file: &Map<String, Value>) -> Result<Vec<u8>, String> {
    let option = |key: &str| file.get(key).and_then(Value::as_str).unwrap_or("string");
    let value = file.get("contents").ok_or("it has no contents")?;
    let decoded = match (value, option("format")) {
        (Value::String(text), "base64") => STANDARD
            .decode(text.split_whitespace().collect::<String>())
            .map_err(|error| format!("its contents are no base64: {error}"))?,
        (Value::String(text), _) => text.clone().into_bytes(),
        (other, _) => other.to_string().into_bytes(),
    };
    if decoded.len() > LARGEST {
        return Err(format!("it is longer than {LARGEST} bytes"));
    }
    let parsed = || match value {
        Value::String(_) => serde_json::from_slice(&decoded)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&decoded).into_owned())),
        other => other.clone(),
    };
    match option("target_format") {
        // JSON is YAML.
        "json" | "yaml" | "yml" => {
            serde_json::to_vec_pretty(&parsed()).map_err(|error| error.to_string())
        }
        "string" | "bytes" => Ok(decoded),
        other => Err(format!(
            "target_format {other:?} is none of json, yaml, bytes"
        )),
    }
}

/// `600`, `"0600"` and `0o600` all mean the same.
fn mode(value: Option<&Value>) -> Result<Option<u32>, String> {
    let text = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    u32::from_str_radix(text.trim_start_matches("0o"), 8)
        .map(Some)
        .map_err(|_| format!("mode {text:?} is no octal number"))
}

fn write(path: &Path, bytes: &[u8], mode: Option<u32>) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = fs::File::create(path)?;
    if let Some(mode) = mode {
        // Before the content: a secret must not be readable for a moment.
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::conf::Document;
    use crate::config::env::Environment;

    fn agent(text: &str) -> Agent {
        let document = Document::read(text, &|_| None).unwrap();
        Agent::resolve(
            &[("/clearml.conf".to_owned(), document)],
            &Environment::of([]),
        )
    }

    fn task(hyperparams: &Value) -> Task {
        let id = "0123456789abcdef0123456789abcdef";
        serde_json::from_value(json!({"id": id, "hyperparams": hyperparams})).unwrap()
    }

    fn home(folder: &Path) -> BTreeMap<String, String> {
        [("HOME".to_owned(), folder.display().to_string())].into()
    }

    #[test]
    fn variables_of_the_configuration_are_set_and_ours_are_not() {
        let text = "environment { A: 1, B: \"two words\", C: true, TRAINYARD_WORKER: x }";
        let inherited = [("A", "0"), ("TRAINYARD_WORKER", "w")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let own = task(&json!({"Environment": {"D": {"value": "of the task"}}}));
        let set = variables(&agent(text), &own, &inherited);
        assert_eq!(set["A"], "1");
        assert_eq!(set["B"], "two words");
        assert_eq!(set["C"], "True");
        assert_eq!(set["TRAINYARD_WORKER"], "w");
        assert!(!set.contains_key("D"), "the task's are not asked for");
        let set = variables(&agent("agent.enable_task_env: true"), &own, &inherited);
        assert_eq!(set["D"], "of the task");
        let off = format!("{text}\nagent.apply_environment: false");
        assert_eq!(variables(&agent(&off), &own, &inherited), inherited);
    }

    #[test]
    fn files_are_written_in_their_form_and_mode() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept");
        fs::write(&kept, "mine").unwrap();
        let text = "files {\n\
            a { path: \"~/deep/a.txt\", contents: \"plain\", mode: \"0600\" }\n\
            b { path: \"$HOME/b\", contents: \"YQBi\", format: base64, target_format: bytes }\n\
            c { path: \"${HOME}/c.json\", contents: { x: [1, 2] }, target_format: json }\n\
            d { path: \"~/kept\", contents: \"new\", overwrite: false }\n}";
        let text = text.replace("${HOME}", "~");
        let mut said = String::new();
        write_files(&agent(&text), &home(folder.path()), &mut |line| {
            said.push_str(line);
        })
        .unwrap();
        let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
        assert_eq!(read("deep/a.txt"), b"plain");
        let mode = folder.path().join("deep/a.txt").metadata().unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        assert_eq!(read("b"), b"a\0b");
        let json: Value = serde_json::from_slice(&read("c.json")).unwrap();
        assert_eq!(json, json!({"x": [1, 2]}));
        assert_eq!(read("kept"), b"mine");
        assert!(said.contains("is there and is kept"), "{said}");
        assert!(!said.contains("plain"), "no content is told");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        for (text, expected) in [
            ("files { a { contents: x } }", "it names no path"),
            ("files { a { path: \"/x/y\" } }", "it has no contents"),
            (
                "files { a { path: \"/proc/nothing/y\", contents: x } }",
                "/proc/nothing/y",
            ),
            (
                "files { a { path: \"/x/y\", contents: \"%\", format: base64 } }",
                "no base64",
            ),
        ] {
            let failure = write_files(&agent(text), &BTreeMap::new(), &mut |_| {}).unwrap_err();
            assert!(
                failure.sentence.starts_with("files.a of clearml.conf"),
                "{failure}"
            );
            assert!(failure.sentence.contains(expected), "{failure}");
        }
    }
}
