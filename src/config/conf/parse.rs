//! Text → tree of values. What a `${...}` stands for is left open.

use std::collections::BTreeMap;

use serde_json::{Number, Value};

use super::tree::{Fields, Node, Reference, joined_path};
use super::{ConfError, DEEPEST, Include};

/// How deep files may include others.
const MOST_FILES: usize = 8;

/// Reads a whole file: an object, its braces left out or not. Also the line of each key. `include` gives the text of
/// another file.
pub(super) fn parse(
    text: &str,
    include: &Include<'_>,
    files: usize,
) -> Result<(Fields, BTreeMap<String, usize>), ConfError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser {
        include,
        files,
        rest: text,
        line: 1,
        lines: BTreeMap::new(),
        budget: 4 * text.len() + 1024,
    };
    parser.skip_blank_lines();
    let braces = parser.take("{");
    let fields = parser.fields("", braces, 0)?;
    parser.skip_blank_lines();
    if let Some(letter) = parser.peek() {
        return Err(parser.error(format!("{letter:?} stands behind the end of the object")));
    }
    Ok((fields, parser.lines))
}

struct Parser<'t> {
    include: &'t Include<'t>,
    /// How many files include this one.
    files: usize,
    rest: &'t str,
    line: usize,
    lines: BTreeMap<String, usize>,
    /// Values that self-references may still copy; `a = ${a}${a}` doubles with each line.
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
        let append = self.take("+=");
        if !append && !self.take(":") && !self.take("=") && self.peek() != Some('{') {
            return Err(self.error(format!(
                "expected :, = or {{ behind the key {:?}",
                names.join(".")
            )));
        }
        self.skip_blank_lines();
        let mut value = self.value(&path, depth + 1)?;
        if append {
            let before = Reference {
                path: path.clone(),
                optional: true,
                line,
            };
            value = Node::Joined(vec![Node::Reference(before), Node::List(vec![value])]);
        }
        self.spend(&value, &path, fields, &names)?;
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
        fields.set(&wrapped.0, &first_path, wrapped.1);
        Ok(())
    }

    /// `include "other.conf"`, `include file("other.conf")`, `include required("other.conf")`: what the other file says stands
    /// here. One that is not there is passed over unless it is required, as pyhocon does; one that is there counts.
    fn included(
        &mut self,
        parent: &str,
        fields: &mut Fields,
        required: bool,
    ) -> Result<(), ConfError> {
        let line = self.line;
        let name = self.quoted()?;
        while self.take(")") {}
        if self.files >= MOST_FILES {
            return Err(self.error(format!(
                "{name:?} is included by files that include each other"
            )));
        }
        let text = (self.include)(&name).map_err(|why| {
            self.error(format!("the included file {name:?} cannot be read: {why}"))
        })?;
        let Some(text) = text else {
            let message = format!("the required file {name:?} cannot be read");
            return if required {
                Err(self.error(message))
            } else {
                Ok(())
            };
        };
        if text.len() > super::LONGEST {
            return Err(self.error(format!(
                "the file {name:?} is longer than {} bytes",
                super::LONGEST
            )));
        }
        let (included, lines) = parse(&text, self.include, self.files + 1)
            .map_err(|error| self.error(format!("{name:?}, which is included here: {error}")))?;
        for path in lines.into_keys() {
            self.lines.insert(joined_path(parent, &path), line);
        }
        fields.merge(included, parent);
        Ok(())
    }

    /// Refuses a file whose self-references would copy more than it could ever mean.
    fn spend(
        &mut self,
        value: &Node,
        path: &str,
        fields: &Fields,
        names: &[String],
    ) -> Result<(), ConfError> {
        fn size(node: &Node) -> usize {
            1 + match node {
                Node::Object(fields) => fields.0.iter().map(|(_, node)| size(node)).sum(),
                Node::List(nodes) | Node::Joined(nodes) => nodes.iter().map(size).sum(),
                Node::Scalar(Value::String(text)) => text.len(),
                Node::Scalar(_) | Node::Reference(_) => 0,
            }
        }
        let Node::Joined(parts) = value else {
            return Ok(());
        };
        let copies = parts
            .iter()
            .filter(|part| matches!(part, Node::Reference(to) if to.path == path))
            .count();
        let (first, others) = match names.split_first() {
            Some(split) if copies > 0 => split,
            _ => return Ok(()),
        };
        let before = others
            .iter()
            .try_fold(fields.get(first), |node, name| match node {
                Some(Node::Object(fields)) => Some(fields.get(name)),
                _ => None,
            });
        let cost = copies * before.flatten().map_or(0, size);
        self.budget = self
            .budget
            .checked_sub(cost)
            .ok_or_else(|| self.error(format!("{path:?} refers to itself too often")))?;
        Ok(())
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
                return Err(self.error("expected a key"));
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
        loop {
            if self.peek().is_none_or(|letter| "\n,}]".contains(letter)) || self.at_comment() {
                break;
            }
            if gap && !parts.is_empty() {
                parts.push(Node::Scalar(Value::String(written.clone())));
            }
            parts.push(self.part(path, depth)?);
            let before = self.rest;
            gap = self.skip_spaces();
            before[..before.len() - self.rest.len()].clone_into(&mut written);
        }
        match parts.len() {
            0 => Ok(Node::Scalar(Value::String(String::new()))),
            1 => Ok(parts.swap_remove(0)),
            _ => Ok(Node::Joined(parts)),
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
            return self.reference();
        }
        let mut end = self.rest.len();
        for (index, letter) in self.rest.char_indices() {
            if letter.is_whitespace()
                || ENDS.contains(letter)
                || (index > 0 && self.rest[index..].starts_with("${"))
            {
                end = index;
                break;
            }
        }
        if end == 0 {
            let letter = self.peek().unwrap_or(' ');
            return Err(self.error(format!("{letter:?} cannot stand here")));
        }
        let word = &self.rest[..end];
        let scalar = scalar(word);
        self.advance(end);
        Ok(Node::Scalar(scalar))
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

    /// A text in quotes, or in triple quotes where nothing is special.
    fn quoted(&mut self) -> Result<String, ConfError> {
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
                '\\' => text.push(self.escaped()?),
                letter => text.push(letter),
            }
        }
    }

    /// The letter that stands behind a backslash.
    fn escaped(&mut self) -> Result<char, ConfError> {
        let letter = self
            .peek()
            .ok_or_else(|| self.error("the file ends behind a backslash"))?;
        self.advance(letter.len_utf8());
        Ok(match letter {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'u' => {
                let digits = self
                    .rest
                    .get(..4)
                    .ok_or_else(|| self.error("\\u needs four hexadecimal digits"))?;
                let code = u32::from_str_radix(digits, 16).map_err(|_| {
                    self.error(format!("\\u needs four hexadecimal digits, not {digits:?}"))
                })?;
                self.advance(4);
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            other => other,
        })
    }

    fn reference(&mut self) -> Result<Node, ConfError> {
        let line = self.line;
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
        Ok(Node::Reference(Reference {
            path,
            optional,
            line,
        }))
    }
}

/// What a word without quotes means: true, false, null, a number, else a text.
fn scalar(word: &str) -> Value {
    match word.to_ascii_lowercase().as_str() {
        "true" => return Value::Bool(true),
        "false" => return Value::Bool(false),
        "null" => return Value::Null,
        _ => {}
    }
    let digits = word.strip_prefix('-').unwrap_or(word);
    let plain = digits.starts_with(|c: char| c.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0') || digits.starts_with("0."));
    let number = plain
        .then(|| serde_json::from_str::<Number>(word).ok())
        .flatten();
    number.map_or_else(|| Value::String(word.to_owned()), Value::Number)
}
