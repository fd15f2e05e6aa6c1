//! Job, pod and events → what is the matter, in a sentence that its user understands. Pure.
//!
//! ```text
//! no pod yet, or one that does not start ──waiting──▶ Waiting   { category, sentence, remedy, refused }
//! a Job that has ended ───────────────────ended────▶ Diagnosis { category, fault, sentence, evidence, remedy }
//! ```
//!
//! The words of Kubernetes are kept as evidence; the sentence says what they mean. What the executor itself says in
//! its termination message goes before everything that can be guessed from outside.

mod announced;
mod ended;
mod facts;
mod image;
mod patience;
mod waiting;

pub use announced::{warning_is_missing, warnings_in_status};
pub use ended::{Diagnosis, Fault, Outcome, ended};
pub use patience::{Patience, patience};
pub use waiting::{Waiting, waiting};

pub use crate::pod::Category;

/// An Event of Kubernetes about a Job or its pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub reason: String,
    pub message: String,
    /// Of type `Warning`.
    pub warning: bool,
    /// Name of the container that it speaks of, if it speaks of one.
    pub container: Option<String>,
}

/// Name of the container in the field path of an Event's object, such as `spec.containers{task}`.
pub fn container_of(field_path: &str) -> Option<&str> {
    let (_, name) = field_path.split_once('{')?;
    name.strip_suffix('}')
}

/// A sentence and the words of others behind it, if there are any; without their full stop.
fn quoting(sentence: impl AsRef<str>, words: &str) -> String {
    let words = one_line(words);
    let words = words.trim_end_matches('.');
    if words.is_empty() {
        sentence.as_ref().to_owned()
    } else {
        format!("{}: {words}", sentence.as_ref())
    }
}

/// A sentence and, where there is one, the remedy behind it.
fn with_remedy(sentence: &str, remedy: Option<&str>) -> String {
    match remedy {
        Some(remedy) => format!("{sentence} (hint: {remedy})"),
        None => sentence.to_owned(),
    }
}

/// At most 600 bytes of one line: words of others go into messages of ours.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 600;
    let line: String = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if line.len() <= LONGEST {
        return line;
    }
    let end = (0..=LONGEST)
        .rev()
        .find(|&end| line.is_char_boundary(end))
        .unwrap_or(0);
    format!("{}...", &line[..end])
}
