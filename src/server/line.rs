//! The lines of a batch body (`protocol.md` §1.9). Pure.
//!
//! Log lines come by the hundred thousand and nearly all in one form, so that form is read without building a document.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::wire::{Doc, Refusal, not_too_deep};

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Line {
    Log(LogLine),
    Other(Doc),
}

/// A log event that has no members but the usual ones.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct LogLine {
    pub(crate) task: String,
    pub(crate) at: Option<i64>,
    pub(crate) unlocked: bool,
    pub(crate) of_model: bool,
    text: Option<String>,
    level: Option<String>,
    worker: Option<String>,
    metric: Option<String>,
    variant: Option<String>,
}

impl LogLine {
    pub(crate) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    pub(crate) fn metric(&self) -> &str {
        self.metric.as_deref().unwrap_or_default()
    }

    /// Whether two lines of one task differ in nothing but moment and text.
    pub(crate) fn shares_with(&self, other: &LogLine) -> bool {
        self.level == other.level
            && self.worker == other.worker
            && self.metric == other.metric
            && self.variant == other.variant
            && self.of_model == other.of_model
    }

    /// What it may share with other lines.
    pub(crate) fn without_text(&self) -> LogLine {
        LogLine {
            text: None,
            at: None,
            ..self.clone()
        }
    }

    /// The same as a document, without moment and text.
    pub(crate) fn shared(&self) -> Doc {
        let mut doc = Doc::new();
        doc.insert("type".into(), "log".into());
        doc.insert("task".into(), self.task.clone().into());
        for (key, value) in [
            ("level", &self.level),
            ("worker", &self.worker),
            ("metric", &self.metric),
            ("variant", &self.variant),
        ] {
            if let Some(value) = value {
                doc.insert(key.into(), value.clone().into());
            }
        }
        doc.insert("model_event".into(), self.of_model.into());
        doc
    }
}

/// The usual form, as it is sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    task: Cow<'a, str>,
    #[serde(default)]
    timestamp: Option<i64>,
    #[serde(default)]
    msg: Option<String>,
    #[serde(default)]
    level: Option<String>,
    #[serde(default)]
    worker: Option<String>,
    #[serde(default)]
    metric: Option<String>,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    allow_locked: Option<bool>,
    #[serde(default)]
    model_event: Option<bool>,
    #[serde(default)]
    #[expect(dead_code, reason = "the SDK's junk member, which is not stored")]
    method: Option<IgnoredAny>,
}

/// The lines of a batch body: each a JSON object, at least one.
pub(crate) fn lines(body: &[u8]) -> Result<Vec<Line>, Refusal> {
    let mut lines = Vec::new();
    for text in body.split(|byte| *byte == b'\n') {
        if text.trim_ascii().is_empty() {
            continue;
        }
        lines.push(line(text)?);
    }
    if lines.is_empty() {
        return Err(Refusal::bad(17, "Batch request contains no items"));
    }
    Ok(lines)
}

fn line(text: &[u8]) -> Result<Line, Refusal> {
    if let Ok(sent) = serde_json::from_slice::<Sent>(text)
        && sent.kind == "log"
    {
        return Ok(Line::Log(LogLine {
            task: sent.task.into_owned(),
            at: sent.timestamp,
            unlocked: sent.allow_locked.unwrap_or(false),
            of_model: sent.model_event.unwrap_or(false),
            text: sent.msg,
            level: sent.level,
            worker: sent.worker,
            metric: sent.metric,
            variant: sent.variant,
        }));
    }
    match serde_json::from_slice(text) {
        Ok(Value::Object(members)) => not_too_deep(members).map(Line::Other),
        Ok(_) => Err(Refusal::bad(0, "A line of the batch is not an object")),
        Err(error) => Err(Refusal::bad(
            0,
            format!("A line of the batch is not JSON: {error}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(text: &str) -> Line {
        lines(text.as_bytes()).unwrap().remove(0)
    }

    #[test]
    fn the_usual_log_line_is_read_without_a_document() {
        let text = r#"{"type":"log","task":"t","msg":"a\nb","level":"INFO","worker":null,"timestamp":5,"method":"get","allow_locked":true}"#;
        let Line::Log(line) = one(text) else {
            panic!("not read as a log line")
        };
        assert_eq!(
            (line.text(), line.at, line.unlocked),
            (Some("a\nb"), Some(5), true)
        );
        assert_eq!(
            Value::Object(line.shared()),
            json!({"type": "log", "task": "t", "level": "INFO", "model_event": false})
        );
    }

    #[test]
    fn whatever_is_unusual_keeps_all_its_members() {
        for text in [
            r#"{"type":"log","task":"t","msg":"a","extra":1}"#,
            r#"{"type":"log","task":"t","msg":1}"#,
            r#"{"type":"log","task":"t","timestamp":1.0}"#,
            r#"{"type":"plot","task":"t"}"#,
            r#"{"task":"t"}"#,
        ] {
            assert_eq!(
                one(text),
                Line::Other(serde_json::from_str(text).unwrap()),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let refused = |text: &str| {
            let refusal = lines(text.as_bytes()).unwrap_err();
            (refusal.code, refusal.subcode)
        };
        assert_eq!(refused(""), (400, 17));
        assert_eq!(refused("\n \n"), (400, 17));
        assert_eq!(refused("{\"type\"\n"), (400, 0));
        assert_eq!(refused("[]"), (400, 0));
    }
}
