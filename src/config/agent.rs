//! The configuration of an agent as `clearml.conf` and its variables give it (`protocol.md` §8), each value with its
//! origin.
//!
//! ```text
//! default ◀─ files, in their order ◀─ CLEARML_AGENT__<PATH> ◀─ a variable of the key's own      (the later wins)
//! ```
//!
//! Variables may begin with `TRAINS_` or `JARVIS_` instead of `CLEARML_`. A key of the section `agent` that nobody knows
//! is named once: it is a typing error more often than not.

mod keys;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde_json::{Map, Value};

use super::conf::Document;
use super::env::Environment;
pub use keys::{Key, Use};

/// Begins a variable that sets any key.
const ANY_KEY: &str = "CLEARML_AGENT__";
/// What stands in place of a secret.
const MASKED: &str = "****";

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    Default,
    File { path: String, line: Option<usize> },
    Variable(String),
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File {
                path,
                line: Some(line),
            } => write!(f, "{path}, line {line}"),
            Self::File { path, line: None } => f.write_str(path),
            Self::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// All known keys with their values, and what is not known.
#[derive(Clone, Default)]
pub struct Agent {
    values: BTreeMap<&'static str, (Value, From)>,
    /// Keys of the section `agent` that mean nothing, with where they stand.
    pub unknown: Vec<(String, From)>,
    /// The section `environment`: variables for the task's process.
    pub environment: Map<String, Value>,
    /// The section `files`: what is written before the task runs.
    pub files: Map<String, Value>,
}

/// Values may be secrets.
impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Agent({} keys)", self.values.len())
    }
}

impl Agent {
    /// Resolves files (path and content, the later wins) and variables.
    pub fn resolve(files: &[(String, Document)], environment: &Environment) -> Self {
        let mut agent = Self::default();
        for key in keys::ALL {
            let default = serde_json::from_str(key.default).unwrap_or(Value::Null);
            agent.values.insert(key.path, (default, From::Default));
        }
        for (path, document) in files {
            agent.file(path, document);
        }
        for (name, text) in environment.with_prefix(ANY_KEY) {
            let path = name[ANY_KEY.len()..]
                .to_ascii_lowercase()
                .replace("__", ".");
            let from = From::Variable(name.to_owned());
            match agent.values.get_mut(path.as_str()) {
                Some(slot) => *slot = (read(text), from),
                None if keys::is_free(&path) => {}
                None => agent.unknown.push((path, from)),
            }
        }
        for key in keys::ALL {
            for (variable, fixed) in key.variables {
                let Some((name, text)) = environment.alias(variable) else {
                    continue;
                };
                let value = match fixed {
                    // A switch that means one value, as CLEARML_AGENT_FORCE_UV does.
                    Some(fixed) if is_true(&read(text)) => Value::String((*fixed).to_owned()),
                    Some(_) => continue,
                    // A text stands as it is: signs that mean something in a file may be part of a password.
                    None => match read(text) {
                        Value::String(_) => Value::String(text.trim().to_owned()),
                        // So does a number that would be told in other digits, as `7.50` and `1e5` would.
                        Value::Number(number) if number.to_string() != text.trim() => {
                            Value::String(text.trim().to_owned())
                        }
                        value => value,
                    },
                };
                agent.values.insert(key.path, (value, From::Variable(name)));
            }
        }
        agent
    }

    /// An agent of which these keys are set; those that are not known are dropped.
    pub fn of_values(values: BTreeMap<String, Value>) -> Self {
        let mut agent = Self::resolve(&[], &Environment::of([]));
        for (path, value) in values {
            if let Some(slot) = agent.values.get_mut(path.as_str()) {
                *slot = (value, From::Variable(path));
            }
        }
        agent
    }

    /// The keys that somebody has set.
    pub fn set(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        let set = self.values.iter().filter(|(path, _)| self.is_set(path));
        set.map(|(path, (value, _))| (*path, value))
    }

    fn file(&mut self, path: &str, document: &Document) {
        for key in keys::ALL {
            if let Some(value) = document.get(key.path) {
                let from = From::File {
                    path: path.to_owned(),
                    line: document.line(key.path),
                };
                self.values.insert(key.path, (value.clone(), from));
            }
        }
        for (name, section) in [
            ("environment", &mut self.environment),
            ("files", &mut self.files),
        ] {
            if let Some(Value::Object(values)) = document.get(name) {
                section.extend(values.clone());
            }
        }
        let Some(section) = document.get("agent") else {
            return;
        };
        let mut leaves = Vec::new();
        leaf_paths("agent", section, &mut leaves);
        for leaf in leaves {
            let known = keys::ALL.iter().any(|key| {
                leaf == key.path
                    || leaf.starts_with(key.path) && leaf[key.path.len()..].starts_with('.')
            });
            if !known && !keys::is_free(&leaf) {
                let line = document.line(&leaf);
                let from = From::File {
                    path: path.to_owned(),
                    line,
                };
                self.unknown.push((leaf, from));
            }
        }
    }

    /// The value of a known key; null counts as absent.
    pub fn get(&self, path: &str) -> Option<&Value> {
        self.values
            .get(path)
            .map(|(value, _)| value)
            .filter(|value| !value.is_null())
    }

    /// Where the value of a key came from.
    pub fn origin(&self, path: &str) -> &From {
        self.values
            .get(path)
            .map_or(&From::Default, |(_, from)| from)
    }

    /// Whether somebody has set it.
    pub fn is_set(&self, path: &str) -> bool {
        self.get(path).is_some() && *self.origin(path) != From::Default
    }

    /// Keys of the section `agent` that somebody has set to no effect: key, origin, why.
    pub fn idle(&self) -> impl Iterator<Item = (&'static str, &From, &'static str)> {
        keys::ALL.iter().filter_map(|key| match key.effect() {
            Use::Nothing(why) if key.path.starts_with("agent.") && self.is_set(key.path) => {
                Some((key.path, self.origin(key.path), why))
            }
            Use::Nothing(_) | Use::Effect => None,
        })
    }

    pub fn text(&self, path: &str) -> Option<String> {
        let text = match self.get(path)? {
            Value::String(text) => text.clone(),
            value @ (Value::Number(_) | Value::Bool(_)) => value.to_string(),
            _ => return None,
        };
        Some(text).filter(|text| !text.trim().is_empty())
    }

    pub fn flag(&self, path: &str) -> bool {
        self.get(path).is_some_and(is_true)
    }

    /// A list, also where one text stands for a list of one, or for words.
    pub fn list(&self, path: &str) -> Vec<String> {
        match self.get(path) {
            Some(Value::Array(items)) => items
                .iter()
                .filter_map(|item| match item {
                    Value::String(text) => Some(text.clone()),
                    Value::Number(number) => Some(number.to_string()),
                    _ => None,
                })
                .filter(|text| !text.trim().is_empty())
                .collect(),
            Some(Value::String(text)) => text.split_whitespace().map(str::to_owned).collect(),
            Some(Value::Number(number)) => vec![number.to_string()],
            _ => Vec::new(),
        }
    }

    /// One line for each key; secrets are masked.
    pub fn show(&self, origins: bool) -> String {
        let mut text = String::new();
        for key in keys::ALL {
            let Some((value, from)) = self.values.get(key.path) else {
                continue;
            };
            let shown = if key.secret && !value.is_null() && value.as_str() != Some("") {
                format!("{MASKED:?}")
            } else {
                masked(&value.to_string())
            };
            let _ = write!(text, "{} = {shown}", key.path);
            if origins {
                let _ = write!(text, "  # {from}");
                if let Use::Nothing(why) = key.effect()
                    && *from != From::Default
                {
                    let _ = write!(text, "; without effect: {why}");
                }
            }
            text.push('\n');
        }
        for (path, from) in &self.unknown {
            let _ = writeln!(text, "# unknown key {path} ({from})");
        }
        text
    }
}

/// The reference of all keys, in Markdown.
pub fn reference() -> String {
    let mut text = String::from(
        "# Configuration of an agent\n\n\
         Generated from `src/config/agent/keys.rs`; do not edit. These keys of `clearml.conf` are known; any other of the \
         section `agent` is named in the task's log. `CLEARML_AGENT__<PATH>` sets each of them, `__` standing for the dot. \
         Sections `environment` and `files` are read as well.\n\n\
         | key | default | variables | here |\n|---|---|---|---|\n",
    );
    for key in keys::ALL {
        let variables: Vec<String> = key
            .variables
            .iter()
            .map(|(name, fixed)| match fixed {
                Some(word) => format!("`{name}` (`{word}`)"),
                None => format!("`{name}`"),
            })
            .collect();
        let here = match key.effect() {
            Use::Effect => "read".to_owned(),
            Use::Nothing(why) => format!("no effect: {why}"),
        };
        let default = key.default.replace('|', "\\|");
        let _ = writeln!(
            text,
            "| `{}` | `{default}` | {} | {here} |",
            key.path,
            variables.join(", ")
        );
    }
    text
}

/// The value of a variable: as it would stand in a file, else as a text.
fn read(text: &str) -> Value {
    let one = Document::read(&format!("value = {text}"), &|_| None).ok();
    one.and_then(|document| document.get("value").cloned())
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => {
            ["1", "true", "yes", "on", "y"].contains(&text.to_ascii_lowercase().as_str())
        }
        _ => false,
    }
}

fn leaf_paths(path: &str, value: &Value, leaves: &mut Vec<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                leaf_paths(&format!("{path}.{name}"), value, leaves);
            }
        }
        _ => leaves.push(path.to_owned()),
    }
}

/// Passwords in addresses.
fn masked(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        let end = after
            .find(|c: char| c == '/' || c == '"' || c.is_whitespace())
            .unwrap_or(after.len());
        shown.push_str(before);
        match after[..end].rsplit_once('@') {
            Some((_, host)) => {
                shown.push_str(MASKED);
                shown.push('@');
                shown.push_str(host);
            }
            None => shown.push_str(&after[..end]),
        }
        rest = &after[end..];
    }
    shown + rest
}

#[cfg(test)]
mod tests;
