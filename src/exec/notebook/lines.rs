//! One cell: which lines are Python, which are IPython's.

/// Cell magics whose cell is Python all the same.
const AROUND_PYTHON: [&str; 6] = ["time", "timeit", "capture", "prun", "python", "python3"];
/// Line magics that are followed by Python.
const BEFORE_PYTHON: [&str; 2] = ["time", "prun"];

/// Converts one cell, keeping its number of lines.
#[derive(Debug, Default)]
pub(super) struct Converter {
    /// What is not run.
    pub(super) left_out: Vec<String>,
    state: State,
}

/// Where in the Python grammar a line begins.
#[derive(Debug, Default)]
struct State {
    /// Open brackets.
    depth: usize,
    /// The quotes of an open triple-quoted text.
    text: Option<[u8; 3]>,
    /// The line before ended in a backslash.
    continued: bool,
    /// The line before was IPython's and goes on.
    of_ipython: bool,
}

impl State {
    fn begins_statement(&self) -> bool {
        self.depth == 0 && self.text.is_none() && !self.continued
    }
}

impl Converter {
    /// The cell as Python.
    pub(super) fn convert(&mut self, source: &str) -> String {
        let mut script = String::with_capacity(source.len() + 16);
        if let Some(magic) = cell_magic(source) {
            let python = AROUND_PYTHON.contains(&magic);
            let mut lines = source.lines();
            if let Some(first) = lines.next() {
                push(&mut script, &format!("# {first}"));
                if !python {
                    self.left_out.push(format!("the cell {}", first.trim()));
                }
            }
            for line in lines {
                if python {
                    self.line(line, &mut script);
                } else {
                    push(&mut script, format!("# {line}").trim_end());
                }
            }
            return script;
        }
        for line in source.lines() {
            self.line(line, &mut script);
        }
        script
    }

    fn line(&mut self, line: &str, script: &mut String) {
        let replaced = if self.state.of_ipython {
            Some(format!("# {}", line.trim()))
        } else if self.state.begins_statement() {
            self.replaced(line)
        } else {
            None
        };
        if let Some(replaced) = replaced {
            self.state.of_ipython = line.trim_end().ends_with('\\') && replaced.contains("# ");
            push(script, &replaced);
        } else {
            self.state.follow(line);
            push(script, line);
        }
    }

    /// What stands in place of a line that is IPython's; nothing if it is Python.
    fn replaced(&mut self, line: &str) -> Option<String> {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        if let Some(magic) = code.strip_prefix('%') {
            let (name, rest) = magic.split_once(char::is_whitespace).unwrap_or((magic, ""));
            let rest = rest.trim();
            if BEFORE_PYTHON.contains(&name) && !rest.is_empty() && !rest.starts_with('-') {
                return Some(format!("{indent}{rest}"));
            }
        }
        let help = code.trim_end().ends_with('?') && is_name(code.trim_end().trim_end_matches('?'));
        if code.starts_with(['%', '!', '?']) || code.starts_with("get_ipython(") || help {
            self.left_out.push(code.trim_end().to_owned());
            return Some(format!("{indent}pass  # {code}"));
        }
        let (target, value) = code.split_once('=')?;
        let value = value.trim_start();
        if is_name(target.trim()) && value.starts_with(['%', '!']) && !value.starts_with("!=") {
            self.left_out.push(code.trim_end().to_owned());
            return Some(format!("{indent}{} = None  # {value}", target.trim()));
        }
        None
    }
}

/// The name behind `%%`, if the cell begins with it.
fn cell_magic(source: &str) -> Option<&str> {
    let first = source.lines().next()?.trim();
    first.strip_prefix("%%")?.split_whitespace().next()
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_alphanumeric() || c == '_' || c == '.' || c == ',')
}

fn push(script: &mut String, line: &str) {
    script.push_str(line);
    script.push('\n');
}

impl State {
    /// Goes over one line of Python.
    fn follow(&mut self, line: &str) {
        let bytes = line.as_bytes();
        let mut at = 0;
        self.continued = false;
        while at < bytes.len() {
            if let Some(quotes) = self.text {
                if bytes[at] == b'\\' {
                    at += 2;
                } else if bytes[at..].starts_with(&quotes) {
                    self.text = None;
                    at += 3;
                } else {
                    at += 1;
                }
                continue;
            }
            match bytes[at] {
                b'#' => return,
                quote @ (b'"' | b'\'') => {
                    if bytes[at..].starts_with(&[quote; 3]) {
                        self.text = Some([quote; 3]);
                        at += 3;
                    } else {
                        at = behind_text(bytes, at);
                    }
                    continue;
                }
                b'(' | b'[' | b'{' => self.depth += 1,
                b')' | b']' | b'}' => self.depth = self.depth.saturating_sub(1),
                b'\\' if at + 1 == bytes.len() => self.continued = true,
                _ => {}
            }
            at += 1;
        }
    }
}

/// The place behind a text in single quotes that begins at `at`; it ends with the line at the latest.
fn behind_text(bytes: &[u8], at: usize) -> usize {
    let quote = bytes[at];
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] != quote {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    end + 1
}
