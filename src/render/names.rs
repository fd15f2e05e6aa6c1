//! Names of Kubernetes things as types: a value is right by construction.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::task::{Attempt, TaskId};

/// Name of the Job of one attempt: `ty-<task id>-<attempt>`. A function of both, so it is a lock (claim rule 1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobName(String);

impl JobName {
    /// The name of the Job of this attempt.
    pub fn of(task: &TaskId, attempt: Attempt) -> Self {
        Self(format!("ty-{task}-{attempt}"))
    }

    /// Task and attempt, if `name` was made by [`JobName::of`].
    pub fn parse(name: &str) -> Option<(TaskId, Attempt)> {
        let (task, attempt) = name.strip_prefix("ty-")?.split_once('-')?;
        let number = attempt
            .parse()
            .ok()
            .filter(|_| !attempt.starts_with(['0', '+']))?;
        Some((task.parse().ok()?, Attempt(number)))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value that a label may have: at most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelValue(String);

const LONGEST: usize = 63;

impl LabelValue {
    /// `text` itself if a label may have it, else a readable beginning of it and a hash of the whole: different
    /// texts stay different.
    pub fn of(text: &str) -> Self {
        if is_label_value(text) {
            return Self(text.to_owned());
        }
        let hash = short_hash(text.as_bytes());
        let kept: String = text
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                    c
                } else {
                    '_'
                }
            })
            .take(LONGEST - hash.len() - 1)
            .collect();
        let start = kept.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        Self(if start.is_empty() {
            hash
        } else {
            format!("{start}-{hash}")
        })
    }

    /// The value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LabelValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_label_value(text: &str) -> bool {
    let alphanumeric = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= LONGEST
        && alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

/// Ten hexadecimal digits of the SHA-256 of `bytes`.
pub(super) fn short_hash(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest[..5]
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn job_name_is_made_from_task_and_attempt_and_read_back() {
        let task: TaskId = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let name = JobName::of(&task, Attempt(u32::MAX));
        assert!(name.as_str().len() <= 63);
        assert_eq!(
            JobName::parse(name.as_str()),
            Some((task, Attempt(u32::MAX)))
        );
    }

    #[test]
    fn a_foreign_name_is_no_job_name() {
        let id = "0123456789abcdef0123456789abcdef";
        for name in [
            String::new(),
            format!("ty-{id}"),
            format!("ty-{id}-"),
            format!("ty-{id}-01"),
            format!("ty-{id}-+1"),
            format!("tz-{id}-1"),
            format!("ty-{}-1", &id[1..]),
        ] {
            assert_eq!(JobName::parse(&name), None, "{name}");
        }
    }

    #[test]
    fn what_a_label_may_have_stays_as_it_is() {
        for text in ["", "gpu", "0123456789abcdef0123456789abcdef", "a.b_c-d"] {
            assert_eq!(LabelValue::of(text).as_str(), text);
        }
    }

    proptest! {
        #[test]
        fn every_text_becomes_a_label_value(text in "\\PC{0,100}") {
            prop_assert!(is_label_value(LabelValue::of(&text).as_str()), "{}", LabelValue::of(&text));
        }

        #[test]
        fn different_texts_stay_different(a in "[ab/]{60,70}", b in "[ab/]{60,70}") {
            prop_assert_eq!(a == b, LabelValue::of(&a) == LabelValue::of(&b));
        }
    }
}
