//! What a task asked for and does not get, in sentences for its log.

/// The most notes that are kept, and the longest of them in bytes: a task's wishes are not ours to bound.
const MOST: usize = 32;
const LONGEST: usize = 300;

/// Sentences for the log of a task.
#[derive(Debug, Default)]
pub(super) struct Notes {
    kept: Vec<String>,
    dropped: usize,
}

impl Notes {
    /// Adds a sentence.
    pub(super) fn add(&mut self, sentence: impl Into<String>) {
        if self.kept.len() == MOST {
            self.dropped += 1;
            return;
        }
        let flat: String = sentence
            .into()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        self.kept.push(shorten(&flat, LONGEST));
    }

    /// All of them.
    pub(super) fn into_lines(mut self) -> Vec<String> {
        if self.dropped > 0 {
            self.kept
                .push(format!("and {} more notes of this kind", self.dropped));
        }
        self.kept
    }
}

/// At most `longest` bytes of `text`, with an ellipsis where something was cut off.
pub(super) fn shorten(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let end = (0..=longest.saturating_sub(3))
        .rev()
        .find(|&end| text.is_char_boundary(end))
        .unwrap_or(0);
    format!("{}...", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_bounded_in_number_length_and_lines() {
        let mut notes = Notes::default();
        for _ in 0..100 {
            notes.add("ä\n".repeat(500));
        }
        let lines = notes.into_lines();
        assert_eq!(lines.len(), MOST + 1);
        assert_eq!(lines[MOST], "and 68 more notes of this kind");
        assert!(
            lines
                .iter()
                .all(|line| line.len() <= LONGEST && !line.contains('\n'))
        );
    }
}
