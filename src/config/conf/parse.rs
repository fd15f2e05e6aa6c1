//! Text → tree of values. What a `${...}` stands for is left open.

mod include;
mod text;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::tree::{Fields, Node, Reference, joined_path};
use super::{ConfError, DEEPEST, Include, Place, Wanted};

/// What stands in a file.
pub(super) struct Parsed {
    pub(super) fields: Fields,
    /// Line on which each key was last set.
    pub(super) lines: BTreeMap<String, usize>,
    /// Where the values of the wanted keys stand.
    pub(super) places: Vec<Place>,
}

/// Reads a whole file: an object, its braces left out or not.
pub(super) fn parse(
    text: &str,
    include: &Include<'_>,
    wanted: &Wanted<'_>,
) -> Result<Parsed, ConfError> {
    parse_in(text, include, wanted, Path::new(""), 0, &Cell::new(0))
}

/// The same of a file among others: `include` gives the text of another one; the names of files begin in `folder`.
fn parse_in(
    text: &str,
    include: &Include<'_>,
    wanted: &Wanted<'_>,
    folder: &Path,
    files: usize,
    included: &Cell<usize>,
) -> Result<Parsed, ConfError> {
    let length = text.len();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser {
        include,
        wanted,
        folder,
        files,
        included,
        length,
        rest: text,
        line: 1,
        lines: BTreeMap::new(),
        places: Vec::new(),
        budget: 4 * text.len() + 1024,
    };
    parser.skip_blank_lines();
    let braces = parser.take("{");
    let fields = parser.fields("", braces, 0)?;
    parser.skip_blank_lines();
    if let Some(letter) = parser.peek() {
        return Err(parser.error(format!("{letter:?} stands behind the end of the object")));
    }
    Ok(Parsed {
        fields,
        lines: parser.lines,
        places: parser.places,
    })
}

struct Parser<'t> {
    include: &'t Include<'t>,
    wanted: &'t Wanted<'t>,
    /// Where the file lies, seen from the first one.
    folder: &'t Path,
    /// How many files include this one.
    files: usize,
    /// How many were included in all.
    included: &'t Cell<usize>,
    /// Bytes of the whole text.
    length: usize,
    rest: &'t str,
    line: usize,
    lines: BTreeMap<String, usize>,
    places: Vec<Place>,
    /// How much self-references may still copy.
    budget: usize,
}

/// Letters that end a text without quotes.
const ENDS: &str = "{}[]\",#\n\r";

impl Parser<'_> {
    fn error(&self, message: impl Into<String>) -> ConfError {
        ConfError::new(self.line, message)
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// Goes past `bytes` bytes.
    fn advance(&mut self, bytes: usize) {
        let (passed, rest) = self.rest.split_at(bytes);
        self.line += passed.matches('\n').count();
        self.rest = rest;
    }

    /// Notes what was read since `begun`, a value of the key at `path`, if that is wanted.
    fn note(&mut self, path: &str, begun: &str, reference: Option<String>) {
        if (self.wanted)(path) {
            let begin = self.length - begun.len();
            let written = begun[..begun.len() - self.rest.len()].trim_end();
            self.places.push(Place {
                path: path.to_owned(),
                bytes: begin..begin + written.len(),
                reference,
            });
        }
    }

    fn take(&mut self, expected: &str) -> bool {
        let found = self.rest.starts_with(expected);
        if found {
            self.advance(expected.len());
        }
        found
    }

    /// Goes past spaces, not past the end of the line; says whether there were any.
    fn skip_spaces(&mut self) -> bool {
        let trimmed = self
            .rest
            .trim_start_matches(|c: char| c.is_whitespace() && c != '\n');
        let skipped = self.rest.len() - trimmed.len();
        self.advance(skipped);
        skipped > 0
    }

    /// A comment begins here; `//` inside of a word (a URL) is never asked about.
    fn at_comment(&self) -> bool {
        self.rest.starts_with('#') || self.rest.starts_with("//")
    }

    fn skip_comment(&mut self) {
        let end = self.rest.find('\n').unwrap_or(self.rest.len());
        self.advance(end);
    }

    /// Goes past blanks, line ends and comments; says whether a line ended.
    fn skip_blank_lines(&mut self) -> bool {
        let line = self.line;
        loop {
            self.skip_spaces();
            if self.at_comment() {
                self.skip_comment();
            } else if !self.take("\n") {
                return self.line > line;
            }
        }
    }

    fn fields(&mut self, path: &str, braces: bool, depth: usize) -> Result<Fields, ConfError> {
        if depth > DEEPEST {
            return Err(self.error(format!(
                "objects and lists are nested deeper than {DEEPEST}"
            )));
        }
        let opened = self.line;
        let mut fields = Fields::default();
        loop {
            self.skip_blank_lines();
            while self.take(",") {
                self.skip_blank_lines();
            }
            match self.peek() {
                None if braces => {
                    return Err(ConfError::new(
                        opened,
                        "the object that begins here is not closed by }",
                    ));
                }
                None => return Ok(fields),
                Some('}') if braces => {
                    self.advance(1);
                    return Ok(fields);
                }
                Some(_) => self.field(path, &mut fields, depth)?,
            }
            let ended = self.skip_blank_lines();
            match self.peek() {
                None | Some('}' | ',') => {}
                Some(_) if ended => {}
                Some(letter) => {
                    return Err(self.error(format!(
                        "expected a line end, a comma or }} before {letter:?}"
                    )));
                }
            }
        }
    }

    /// One `key: value`, `key = value`, `key += value` or `key { ... }`.
    fn field(&mut self, parent: &str, fields: &mut Fields, depth: usize) -> Result<(), ConfError> {
        let line = self.line;
        let names = self.key()?;
        let path = names
            .iter()
            .fold(parent.to_owned(), |path, name| joined_path(&path, name));
        self.skip_spaces();
        if let [name] = names.as_slice()
            && (name == "include" || name.starts_with("include "))
            && self.peek() == Some('"')
        {
            let required = name.contains("required");
            return self.included(parent, fields, required);
        }
        self.skip_blank_lines();
        let append = self.take("+=");
        if !append && !self.take(":") && !self.take("=") && self.peek() != Some('{') {
            let message = format!("expected :, = or {{ behind the key {:?}", names.join("."));
            return Err(ConfError::new(line, message));
        }
        self.skip_blank_lines();
        let begun = self.rest;
        let mut value = self.value(&path, depth + 1)?;
        self.note(&path, begun, None);
        if append {
            let before = Reference {
                path: path.clone(),
                optional: true,
                line,
            };
            // A list is put behind the one before; all else becomes its last item.
            let added = match value {
                list @ Node::List(_) => list,
                item => Node::List(vec![item]),
            };
            value = Node::Joined(vec![Node::Reference(before), added]);
        }
        self.lines.insert(path.clone(), line);
        let (last, parents) = names
            .split_last()
            .ok_or_else(|| self.error("expected a key"))?;
        let wrapped = parents
            .iter()
            .rev()
            .fold((last.clone(), value), |(name, node), parent| {
                (parent.clone(), Node::Object(Fields(vec![(name, node)])))
            });
        let first_path = joined_path(parent, &wrapped.0);
        let set = fields.set(&wrapped.0, &first_path, wrapped.1, &mut self.budget);
        self.unless_too_often(set)
    }

    fn unless_too_often(&self, set: Result<(), String>) -> Result<(), ConfError> {
        set.map_err(|path| self.error(format!("{path:?} refers to itself too often")))
    }

    /// A key: words between dots, each in quotes or not.
    fn key(&mut self) -> Result<Vec<String>, ConfError> {
        let mut names = Vec::new();
        loop {
            self.skip_spaces();
            let name = if self.rest.starts_with('"') {
                self.quoted()?
            } else {
                let stops = |c: char| ":=.+".contains(c) || ENDS.contains(c) || c == '$';
                let end = self.rest.find(stops).unwrap_or(self.rest.len());
                let name = self.rest[..end].trim().to_owned();
                self.advance(end);
                name
            };
            if name.is_empty() {
                return Err(self.error(if self.peek() == Some('[') {
                    // As files of other programs begin.
                    "a key cannot begin with [: a section is written as name { ... }"
                } else {
                    "expected a key"
                }));
            }
            names.push(name);
            if names.len() > DEEPEST {
                return Err(self.error(format!("the key has more than {DEEPEST} parts")));
            }
            self.skip_spaces();
            if !self.take(".") {
                return Ok(names);
            }
        }
    }

    /// A value: one thing, or several side by side on a line.
    fn value(&mut self, path: &str, depth: usize) -> Result<Node, ConfError> {
        let mut parts: Vec<Node> = Vec::new();
        let mut written = String::new();
        let mut gap = false;
        // Words that are more than a text, as they are written.
        let mut words: Vec<(usize, &str)> = Vec::new();
        self.skip_line_ends_that_continue();
        loop {
            if self.peek().is_none_or(|letter| "\n,}]".contains(letter)) || self.at_comment() {
                break;
            }
            if gap && !parts.is_empty() {
                parts.push(Node::Scalar(Value::String(written.clone())));
            }
            let begun = self.rest;
            let part = self.part(path, depth)?;
            if matches!(&part, Node::Scalar(value) if !value.is_string()) {
                words.push((parts.len(), &begun[..begun.len() - self.rest.len()]));
            }
            parts.push(part);
            let before = self.rest;
            gap = self.skip_spaces();
            before[..before.len() - self.rest.len()].clone_into(&mut written);
            self.skip_line_ends_that_continue();
        }
        match parts.len() {
            0 => Ok(Node::Scalar(Value::String(String::new()))),
            1 => Ok(parts.swap_remove(0)),
            _ => {
                // Beside others they are text: `3.10 and more` holds no number.
                for (index, word) in words {
                    parts[index] = Node::Scalar(Value::String(word.to_owned()));
                }
                Ok(Node::Joined(parts))
            }
        }
    }

    /// Goes past backslashes that end their line: the value goes on in the next one.
    fn skip_line_ends_that_continue(&mut self) {
        while self.take("\\\n") || self.take("\\\r\n") {
            self.skip_spaces();
        }
    }

    fn part(&mut self, path: &str, depth: usize) -> Result<Node, ConfError> {
        if self.take("{") {
            return Ok(Node::Object(self.fields(path, true, depth)?));
        }
        if self.take("[") {
            return self.list(path, depth);
        }
        if self.rest.starts_with('"') {
            return Ok(Node::Scalar(Value::String(self.quoted()?)));
        }
        if self.rest.starts_with("${") {
            return self.reference(path);
        }
        Ok(Node::Scalar(self.word()?))
    }

    fn list(&mut self, path: &str, depth: usize) -> Result<Node, ConfError> {
        if depth > DEEPEST {
            return Err(self.error(format!(
                "objects and lists are nested deeper than {DEEPEST}"
            )));
        }
        let opened = self.line;
        let mut items = Vec::new();
        loop {
            self.skip_blank_lines();
            while self.take(",") {
                self.skip_blank_lines();
            }
            match self.peek() {
                None => {
                    return Err(ConfError::new(
                        opened,
                        "the list that begins here is not closed by ]",
                    ));
                }
                Some(']') => {
                    self.advance(1);
                    return Ok(Node::List(items));
                }
                Some('}') => return Err(self.error("expected a value or ], found }")),
                Some(_) => items.push(self.value(path, depth + 1)?),
            }
        }
    }

    fn reference(&mut self, key: &str) -> Result<Node, ConfError> {
        let (begun, line) = (self.rest, self.line);
        let end = self
            .rest
            .find('}')
            .filter(|end| !self.rest[..*end].contains('\n'));
        let end = end.ok_or_else(|| self.error("the ${ that begins here is not closed by }"))?;
        let inside = self.rest[2..end].trim();
        let (optional, path) = match inside.strip_prefix('?') {
            Some(path) => (true, path.trim()),
            None => (false, inside),
        };
        if path.is_empty() {
            return Err(self.error("${} names no key"));
        }
        let path = path.replace('"', "");
        self.advance(end + 1);
        self.note(key, begun, Some(path.clone()));
        Ok(Node::Reference(Reference {
            path,
            optional,
            line,
        }))
    }
}
