//! PURE: a command line as people type it -> words, by the quoting rules of a POSIX shell.

/// Splits `text` at white space, honouring quotes and backslashes; `None` if a quote stays open.
pub fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        match character {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next()? {
                        '\'' => break,
                        quoted => word.push(quoted),
                    }
                }
            }
            '"' => double_quoted(&mut rest, word.get_or_insert_default())?,
            '\\' => word.get_or_insert_default().push(rest.next()?),
            space if space.is_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Some(words)
}

fn double_quoted(rest: &mut std::str::Chars<'_>, word: &mut String) -> Option<()> {
    loop {
        match rest.next()? {
            '"' => return Some(()),
            '\\' => match rest.next()? {
                escaped @ ('"' | '\\' | '$' | '`') => word.push(escaped),
                other => word.extend(['\\', other]),
            },
            quoted => word.push(quoted),
        }
    }
}

/// Puts the values of `$NAME` and `${NAME}` in; an unknown variable stays as written, as Python's `expandvars` does.
pub fn expand(word: &str, variable: &dyn Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::new();
    let mut rest = word;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let braced = after
            .strip_prefix('{')
            .and_then(|braced| braced.split_once('}'));
        let (name, used) = if let Some((name, _)) = braced {
            (name, name.len() + 2)
        } else {
            let is_end = |c: char| !c.is_ascii_alphanumeric() && c != '_';
            let end = after.find(is_end).unwrap_or(after.len());
            (&after[..end], end)
        };
        match variable(name).filter(|_| !name.is_empty()) {
            Some(value) => expanded.push_str(&value),
            None => expanded.push_str(&rest[at..=at + used]),
        }
        rest = &after[used..];
    }
    expanded + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_words_together() {
        let words = split(r#"train.py --name "a b" 'c "d' e\ f """#).unwrap();
        assert_eq!(words, ["train.py", "--name", "a b", "c \"d", "e f", ""]);
        assert_eq!(split("  "), Some(vec![]));
    }

    #[test]
    fn an_open_quote_is_no_command_line() {
        assert_eq!(split("train.py 'a"), None);
        assert_eq!(split("train.py \"a"), None);
        assert_eq!(split("train.py \\"), None);
    }

    #[test]
    fn variables_are_put_in_and_unknown_ones_kept() {
        let variable = |name: &str| (name == "RUN").then(|| "7".to_owned());
        assert_eq!(
            expand("a-$RUN-${RUN}b-$OTHER-$", &variable),
            "a-7-7b-$OTHER-$"
        );
        assert_eq!(expand("${}$", &variable), "${}$");
    }
}
