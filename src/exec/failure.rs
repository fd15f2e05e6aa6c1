//! Why code or environment could not be prepared, as the task's user reads it.

use std::fmt;

/// One clear sentence (what, where), and what to do about it. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub sentence: String,
    pub hint: Option<String>,
}

impl Failure {
    /// A failure that explains itself.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self {
            sentence: one_line(&sentence.into()),
            hint: None,
        }
    }

    /// The same with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(one_line(&hint.into()));
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)?;
        match &self.hint {
            Some(hint) => write!(f, "; hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// Longest text that is worth a status message.
const MAX: usize = 600;

/// `text` on one line, white space collapsed, cut at [`MAX`] characters.
pub fn one_line(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(MAX) {
        line.truncate(end);
        line.push('…');
    }
    line
}

/// A line without user names and passwords in addresses.
pub fn masked(line: &str) -> String {
    let mut masked = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        let is_end = |c: char| c == '/' || c.is_whitespace() || "'\"<>".contains(c);
        let (authority, after) = after.split_at(after.find(is_end).unwrap_or(after.len()));
        let over_http = before.ends_with("http://") || before.ends_with("https://");
        masked.push_str(before);
        match authority.rsplit_once('@') {
            Some((user, host)) if over_http || user.contains(':') => {
                masked.push_str("***@");
                masked.push_str(host);
            }
            _ => masked.push_str(authority),
        }
        rest = after;
    }
    masked + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_with_its_hint() {
        let failure = Failure::new("could not\n  clone").hint("look\tthere");
        assert_eq!(failure.to_string(), "could not clone; hint: look there");
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        assert_eq!(one_line(&"ä".repeat(MAX + 5)).chars().count(), MAX + 1);
    }

    #[test]
    fn addresses_lose_their_secrets() {
        for (line, expected) in [
            (
                "Submodule 'x' (https://a:b@h/x) registered",
                "Submodule 'x' (https://***@h/x) registered",
            ),
            ("fetch https://token@h/x", "fetch https://***@h/x"),
            ("ssh://u:p@h/x", "ssh://***@h/x"),
            ("ssh://git@h/x and git@h:x", "ssh://git@h/x and git@h:x"),
        ] {
            assert_eq!(masked(line), expected);
        }
    }
}
