//! Which packages: the task's own list, or the repository's files (§3.2, §7.6, §7.7).

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::{MAX_REQUIREMENTS, PlanError, bounded};

/// Where the requirements of a task come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirements {
    /// The task's list, as written.
    Listed(String),
    /// The `requirements.txt` of each of these folders, if there is one; the root comes first.
    Repository(Vec<PathBuf>),
}

/// The lines that ask for something: neither empty nor a comment.
pub fn effective_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The task's own list, whether the SDK wrote it as text or an executor as a list of lines.
pub(super) fn listed(requirements: &Map<String, Value>) -> Result<Option<String>, PlanError> {
    let text = match requirements.get("pip") {
        None | Some(Value::Null) => String::new(),
        Some(value) => text_of(value).ok_or_else(|| PlanError::Unusable {
            field: "requirements.pip",
            value: super::clipped(&value.to_string()),
            why: "it is neither a text nor a list of texts",
        })?,
    };
    bounded("requirements.pip", &text, MAX_REQUIREMENTS)?;
    let empty = effective_lines(&text).next().is_none();
    Ok((!empty).then_some(text))
}

/// The task's own list for conda, as the SDK records it of a conda environment.
pub(super) fn conda(requirements: &Map<String, Value>) -> Option<String> {
    let text = requirements.get("conda").and_then(text_of)?;
    let asks = text.len() <= MAX_REQUIREMENTS && effective_lines(&text).next().is_some();
    asks.then_some(text)
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(lines) => {
            let lines: Option<Vec<&str>> = lines.iter().map(Value::as_str).collect();
            Some(lines?.join("\n"))
        }
        _ => None,
    }
}

/// The body member `requirements` of `tasks.set_requirements` after an installation (§7.7): what is installed as a
/// list; the user's text moves to `org_pip` the first time only.
pub fn written_back(before: &Map<String, Value>, installed: &[String]) -> Map<String, Value> {
    let mut after = before.clone();
    let original = before.get("pip").and_then(text_of).unwrap_or_default();
    if !before.contains_key("org_pip") && !original.trim().is_empty() {
        after.insert("org_pip".to_owned(), Value::String(original));
    }
    after.insert(
        "pip".to_owned(),
        installed.iter().cloned().map(Value::String).collect(),
    );
    after
        .entry("conda")
        .or_insert_with(|| Value::String(String::new()));
    after
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn text_and_list_are_the_same_and_comments_alone_are_nothing() {
        let list = |value| listed(&object(value)).unwrap();
        assert_eq!(
            list(json!({"pip": "# Python 3.11\n\nattrs==1\n"})).as_deref(),
            Some("# Python 3.11\n\nattrs==1\n")
        );
        assert_eq!(
            list(json!({"pip": ["attrs==1", "six"]})).as_deref(),
            Some("attrs==1\nsix")
        );
        assert_eq!(list(json!({"pip": "# Python 3.11\n\n"})), None);
        assert_eq!(list(json!({"pip": null})), None);
        assert_eq!(list(json!({})), None);
        assert!(listed(&object(json!({"pip": {"a": 1}}))).is_err());
    }

    #[test]
    fn a_list_for_conda_is_found() {
        assert_eq!(
            conda(&object(json!({"conda": "# c\nnumpy=1"}))).as_deref(),
            Some("# c\nnumpy=1")
        );
        assert_eq!(conda(&object(json!({"conda": ""}))), None);
    }

    #[test]
    fn the_users_text_is_kept_the_first_time_only() {
        let installed = ["attrs==26.1.0".to_owned()];
        let first = written_back(&object(json!({"pip": "attrs\n", "conda": ""})), &installed);
        assert_eq!(
            Value::Object(first.clone()),
            json!({"pip": ["attrs==26.1.0"], "conda": "", "org_pip": "attrs\n"})
        );
        let second = written_back(&first, &["attrs==27".to_owned()]);
        assert_eq!(second["org_pip"], "attrs\n");
        assert_eq!(second["pip"], json!(["attrs==27"]));
        assert!(!written_back(&Map::new(), &installed).contains_key("org_pip"));
    }
}
