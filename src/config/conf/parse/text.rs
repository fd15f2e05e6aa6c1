//! Texts of a file: in quotes, in three quotes, or words without any.

use serde_json::{Number, Value};

use super::{ENDS, Parser};
use crate::config::conf::ConfError;

impl Parser<'_> {
    /// A text in quotes, or in triple quotes where nothing is special.
    pub(super) fn quoted(&mut self) -> Result<String, ConfError> {
        let opened = self.line;
        let open = ConfError::new(opened, "the text that begins here is not closed by a quote");
        if self.take("\"\"\"") {
            let mut end = self.rest.find("\"\"\"").ok_or(open)?;
            // Quotes before the closing three belong to the text.
            while self.rest[end + 3..].starts_with('"') {
                end += 1;
            }
            let text = self.rest[..end].to_owned();
            self.advance(end + 3);
            return Ok(text);
        }
        self.advance(1);
        let mut text = String::new();
        loop {
            let letter = self
                .peek()
                .filter(|letter| *letter != '\n')
                .ok_or_else(|| open.clone())?;
            self.advance(letter.len_utf8());
            match letter {
                '"' => return Ok(text),
                '\\' => text.push(self.escaped()),
                letter => text.push(letter),
            }
        }
    }

    /// A word without quotes, up to a blank or a sign that means something.
    pub(super) fn word(&mut self) -> Result<Value, ConfError> {
        let begun = self.rest;
        let mut text = String::new();
        while let Some(letter) = self.peek() {
            let continued = self.rest.starts_with("\\\n") || self.rest.starts_with("\\\r\n");
            if letter.is_whitespace()
                || ENDS.contains(letter)
                || self.rest.starts_with("${")
                || continued
            {
                break;
            }
            self.advance(letter.len_utf8());
            text.push(if letter == '\\' {
                self.escaped()
            } else {
                letter
            });
        }
        let word = &begun[..begun.len() - self.rest.len()];
        if word.is_empty() {
            let letter = self.peek().unwrap_or(' ');
            return Err(self.error(format!("{letter:?} cannot stand here")));
        }
        Ok(scalar(word).unwrap_or(Value::String(text)))
    }

    /// What the backslash before this place means, as pyhocon reads it: where it makes nothing of the next letter it
    /// stands for itself, as in `C:\Users` and `\d+`.
    fn escaped(&mut self) -> char {
        let meant = match self.peek() {
            Some('n') => '\n',
            Some('t') => '\t',
            Some('r') => '\r',
            Some(letter @ ('\\' | '"' | '=' | '#' | '!')) => letter,
            _ => return '\\',
        };
        self.advance(1);
        meant
    }
}

/// What a word means that is no text: true, false, null, a number.
fn scalar(word: &str) -> Option<Value> {
    match word.to_ascii_lowercase().as_str() {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        "null" => return Some(Value::Null),
        _ => {}
    }
    // JSON knows neither `+5` nor `.5`.
    let (sign, digits) = match word.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", word.strip_prefix('+').unwrap_or(word)),
    };
    let zero = if digits.starts_with('.') { "0" } else { "" };
    let number = format!("{zero}{digits}");
    let plain = number.starts_with(|c: char| c.is_ascii_digit())
        && (number == "0" || !number.starts_with('0') || number.starts_with("0."));
    if !plain {
        return None;
    }
    let number = serde_json::from_str::<Number>(&format!("{sign}{number}")).ok()?;
    // A whole one that is longer than any that is counted may be a password: it keeps each of its digits.
    let is_whole = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
    let is_too_long = number.is_f64() && digits != "0" && is_whole(digits);
    (!is_too_long).then_some(Value::Number(number))
}
