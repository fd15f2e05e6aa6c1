//! Reader of `clearml.conf`: HOCON as pyhocon reads it, into a JSON value.
//!
//! ```text
//! text ──parse──▶ tree of values, some of them with ${...} ──resolve──▶ Document { value, line of each key }
//! ```
//!
//! What real files use is understood: comments with `#` and `//`, quotes left out (also around URLs), nested objects,
//! dotted keys, `=`, `:` or nothing before `{`, lists, triple quotes, `${x}` and `${?x}` (also from environment
//! variables), `+=`, `include`, and keys given twice (objects are merged, else the last one wins). Every error names its
//! line. `tests/fixtures/conf/` compares with the reference parser; where this one is meant to differ is told in
//! `docs/compatibility.md`.
//! A file can be anybody's: depth, size, the number of files and what substitutions may grow to are bounded.

mod parse;
mod resolve;
mod tree;

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;

/// The longest file that is read, in bytes.
const LONGEST: usize = 1 << 20;
/// How deep objects and lists may be nested.
const DEEPEST: usize = 64;

/// What is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ConfError {
    pub line: usize,
    pub message: String,
}

impl ConfError {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Self {
            line,
            message: message.into(),
        }
    }
}

/// The text of an included file, by the name that stands in the file.
type Include<'i> = dyn Fn(&str) -> Result<Option<String>, String> + 'i;

/// Which keys are asked for, by their dotted paths.
type Wanted<'w> = dyn Fn(&str) -> bool + 'w;

/// A value as it stands in a file, whether it counts or one behind it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The dotted path of its key; what stands in a list has that of the list.
    pub path: String,
    /// Where in the text.
    pub bytes: Range<usize>,
    /// What it refers to, if it is `${...}`; such a one stands before the value that it is, or is a part of.
    pub reference: Option<String>,
}

/// All places of the keys that are wanted, the inner ones of an object before it. Included files are not looked into.
pub fn places(text: &str, wanted: &Wanted<'_>) -> Result<Vec<Place>, ConfError> {
    not_too_long(text)?;
    Ok(parse::parse(text, &|_| Ok(None), wanted)?.places)
}

fn not_too_long(text: &str) -> Result<(), ConfError> {
    if text.len() <= LONGEST {
        return Ok(());
    }
    let message = format!("the file is longer than {LONGEST} bytes");
    Err(ConfError::new(1, message))
}

/// A file that was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Document {
    /// All of it.
    pub value: Value,
    /// Line on which each key was last set, by its dotted path.
    lines: BTreeMap<String, usize>,
}

impl Document {
    /// Reads a file; `variable` answers `${NAME}` where the file has no such key.
    pub fn read(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfError> {
        Self::read_with(text, variable, &|_| Ok(None))
    }

    /// The same; `include` gives the text of a file that this one includes, by its path from this one, nothing if there is no
    /// such file, or why it cannot be read.
    pub fn read_with(
        text: &str,
        variable: &dyn Fn(&str) -> Option<String>,
        include: &Include<'_>,
    ) -> Result<Self, ConfError> {
        not_too_long(text)?;
        let parsed = parse::parse(text, include, &|_| false)?;
        let value = resolve::resolve(&parsed.fields, variable)?;
        Ok(Self {
            value,
            lines: parsed.lines,
        })
    }

    /// The value at a dotted path; null counts as absent.
    pub fn get(&self, path: &str) -> Option<&Value> {
        path.split('.')
            .try_fold(&self.value, |value, name| value.get(name))
            .filter(|value| !value.is_null())
    }

    /// The text at a dotted path; numbers and true or false as they are written.
    pub fn text(&self, path: &str) -> Option<String> {
        match self.get(path)? {
            Value::String(text) => Some(text.clone()),
            value @ (Value::Number(_) | Value::Bool(_)) => Some(value.to_string()),
            _ => None,
        }
    }

    /// Line on which the key at a dotted path was last set.
    pub fn line(&self, path: &str) -> Option<usize> {
        self.lines.get(path).copied()
    }
}

#[cfg(test)]
mod tests;
