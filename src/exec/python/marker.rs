//! PURE: environment markers (PEP 508): does a requirement count for this Python on this machine?

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::version::{Version, allows};

/// What a marker may ask about: `python_version` → `3.11`, and so on.
pub type Facts = BTreeMap<String, String>;

/// Whether the marker holds; `None` if it cannot be read. `extras` are those that were asked for.
pub fn holds(marker: &str, facts: &Facts, extras: &BTreeSet<String>) -> Option<bool> {
    let words = words(marker)?;
    let mut reader = Reader {
        words: &words,
        facts,
        extras,
    };
    let result = reader.any()?;
    reader.words.is_empty().then_some(result)
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Name(String),
    Text(String),
    Sign(String),
}

fn words(marker: &str) -> Option<Vec<Word>> {
    let mut words = Vec::new();
    let mut rest = marker.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, length) = match first {
            '(' | ')' => (Word::Sign(first.to_string()), 1),
            '\'' | '"' => {
                let end = rest[1..].find(first)?;
                (Word::Text(rest[1..=end].to_owned()), end + 2)
            }
            '=' | '<' | '>' | '!' | '~' => {
                let end = rest.find(|c| !"=<>!~".contains(c)).unwrap_or(rest.len());
                (Word::Sign(rest[..end].to_owned()), end)
            }
            c if c.is_alphanumeric() || c == '_' => {
                let end = rest
                    .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'))
                    .unwrap_or(rest.len());
                (Word::Name(rest[..end].to_owned()), end)
            }
            _ => return None,
        };
        words.push(word);
        rest = rest[length..].trim_start();
    }
    Some(words)
}

struct Reader<'a> {
    words: &'a [Word],
    facts: &'a Facts,
    extras: &'a BTreeSet<String>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<&'a Word> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn take(&mut self, name: &str) -> bool {
        let found = matches!(self.words.first(), Some(Word::Name(word)) if word == name);
        if found {
            self.words = &self.words[1..];
        }
        found
    }

    fn any(&mut self) -> Option<bool> {
        let mut result = self.all()?;
        while self.take("or") {
            // Both sides are read, whatever the first one says.
            result |= self.all()?;
        }
        Some(result)
    }

    fn all(&mut self) -> Option<bool> {
        let mut result = self.one()?;
        while self.take("and") {
            result &= self.one()?;
        }
        Some(result)
    }

    fn one(&mut self) -> Option<bool> {
        if self.words.first() == Some(&Word::Sign("(".to_owned())) {
            self.words = &self.words[1..];
            let result = self.any()?;
            return (self.next()? == &Word::Sign(")".to_owned())).then_some(result);
        }
        let left = self.next()?;
        let operator = match self.next()? {
            Word::Sign(sign) => sign.clone(),
            Word::Name(word) if word == "in" => "in".to_owned(),
            Word::Name(word) if word == "not" && self.take("in") => "not in".to_owned(),
            _ => return None,
        };
        let right = self.next()?;
        self.compare(left, &operator, right)
    }

    fn compare(&self, left: &Word, operator: &str, right: &Word) -> Option<bool> {
        if let (Word::Name(name), Word::Text(value)) = (left, right)
            && name == "extra"
        {
            let asked = self
                .extras
                .contains(&value.to_ascii_lowercase().replace(['_', '.'], "-"));
            return match operator {
                "==" => Some(asked),
                "!=" => Some(!asked),
                _ => None,
            };
        }
        let (left, right) = (self.value(left)?, self.value(right)?);
        match operator {
            "in" => return Some(right.contains(&left)),
            "not in" => return Some(!right.contains(&left)),
            _ => {}
        }
        if let Ok(version) = left.parse::<Version>()
            && let Some(result) = allows(&format!("{operator}{right}"), &version)
        {
            return Some(result);
        }
        let order = left.cmp(&right);
        match operator {
            "==" | "===" => Some(order == Ordering::Equal),
            "!=" => Some(order != Ordering::Equal),
            "<" => Some(order == Ordering::Less),
            "<=" => Some(order != Ordering::Greater),
            ">" => Some(order == Ordering::Greater),
            ">=" => Some(order != Ordering::Less),
            _ => None,
        }
    }

    fn value(&self, word: &Word) -> Option<String> {
        match word {
            Word::Text(text) => Some(text.clone()),
            // An unknown fact is an empty one: `platform_release` of a Python that does not tell.
            Word::Name(name) if name.contains('_') || name.contains('.') => {
                let name = name.replace('.', "_");
                let name = if name == "python_implementation" {
                    "platform_python_implementation"
                } else {
                    &name
                };
                Some(self.facts.get(name).cloned().unwrap_or_default())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        [
            ("python_version", "3.11"),
            ("python_full_version", "3.11.7"),
            ("sys_platform", "linux"),
            ("platform_machine", "x86_64"),
            ("platform_python_implementation", "CPython"),
            ("os_name", "posix"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    #[test]
    fn markers_hold_or_do_not() {
        let extras = BTreeSet::from(["socks".to_owned()]);
        for (marker, expected) in [
            ("python_version >= '3.8'", true),
            (
                "python_version < \"3.9\" and sys_platform == 'linux'",
                false,
            ),
            ("python_version < '3.9' or sys_platform == 'linux'", true),
            (
                "(python_version < '3.9' or os_name == 'nt') and platform_machine == 'x86_64'",
                false,
            ),
            ("sys_platform in 'linux darwin'", true),
            ("platform_machine not in 'aarch64 arm64'", true),
            ("extra == 'socks'", true),
            ("extra == 'other'", false),
            ("python_full_version == '3.11.*'", true),
            ("platform_python_implementation != 'PyPy'", true),
            ("'3.10' < python_version", true),
            ("sys.platform == 'linux'", true),
        ] {
            assert_eq!(holds(marker, &facts(), &extras), Some(expected), "{marker}");
        }
        for wrong in [
            "",
            "python_version",
            "python_version >= ",
            "(a_b == 'c'",
            "x == 'y'",
        ] {
            assert_eq!(holds(wrong, &facts(), &extras), None, "{wrong}");
        }
    }
}
