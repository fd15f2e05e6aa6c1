//! A line of docker arguments as flags with their values.

use std::iter::Peekable;
use std::vec::IntoIter;

/// Docker flags that take no value but behind `=`; every other flag takes one, behind `=` or as the next word.
const BARE_FLAGS: &[&str] = &[
    "privileged",
    "init",
    "rm",
    "detach",
    "interactive",
    "tty",
    "read-only",
    "publish-all",
    "no-healthcheck",
    "oom-kill-disable",
    "quiet",
    "sig-proxy",
];

/// Short flags and their long names.
const SHORT_FLAGS: &[(char, &str)] = &[
    ('e', "env"),
    ('v', "volume"),
    ('p', "publish"),
    ('P', "publish-all"),
    ('u', "user"),
    ('w', "workdir"),
    ('m', "memory"),
    ('h', "hostname"),
    ('l', "label"),
    ('c', "cpu-shares"),
    ('a', "attach"),
    ('d', "detach"),
    ('i', "interactive"),
    ('t', "tty"),
    ('q', "quiet"),
];

/// One flag by its long name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flag {
    pub(super) name: String,
    pub(super) value: Option<String>,
}

/// What stands in the arguments, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    Flag(Flag),
    /// A word that belongs to no flag.
    Stray,
}

/// Reads the arguments, or says why they cannot be read.
pub(super) fn items(arguments: &str) -> Result<Vec<Item>, &'static str> {
    let mut words = split(arguments)?.into_iter().peekable();
    let mut items = Vec::new();
    while let Some(word) = words.next() {
        items.push(item(&word, &mut words));
    }
    Ok(items)
}

fn item(word: &str, words: &mut Peekable<IntoIter<String>>) -> Item {
    let Some((name, inline)) = flag_of(word) else {
        return Item::Stray;
    };
    let value = match inline {
        Some(value) => Some(value),
        None if BARE_FLAGS.contains(&name.as_str()) => None,
        // A value may begin with a dash: `--memory-swap -1`.
        None => words.next_if(|next| !next.starts_with('-') || next.parse::<f64>().is_ok()),
    };
    // The old name of --network.
    let name = if name == "net" {
        "network".to_owned()
    } else {
        name
    };
    Item::Flag(Flag { name, value })
}

/// Long name of the flag in `word`, and the value that is written into the same word.
fn flag_of(word: &str) -> Option<(String, Option<String>)> {
    if let Some(long) = word.strip_prefix("--") {
        let (flag, value) = match long.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (long, None),
        };
        let known = !flag.is_empty()
            && flag
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        return known.then(|| (flag.to_owned(), value));
    }
    let mut letters = word.strip_prefix('-')?.chars();
    let letter = letters.next()?;
    let (_, flag) = SHORT_FLAGS.iter().find(|(short, _)| *short == letter)?;
    let rest = letters.as_str();
    if BARE_FLAGS.contains(flag) {
        // `-it`: several bare flags in one word say nothing that the first does not.
        return Some(((*flag).to_owned(), None));
    }
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    let value = (!rest.is_empty()).then(|| rest.to_owned());
    Some(((*flag).to_owned(), value))
}

/// Splits as a shell does: blanks, single and double quotes, backslashes; nothing is expanded.
fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (Some('"') | None, '\\') => {
                let next = letters.next().ok_or("they end with a backslash")?;
                word.get_or_insert_default().push(next);
            }
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, _) if letter.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, Option<String>)> {
        items(text)
            .unwrap()
            .into_iter()
            .map(|item| match item {
                Item::Flag(flag) => (flag.name, flag.value),
                Item::Stray => ("stray".to_owned(), None),
            })
            .collect()
    }

    #[test]
    fn flags_are_read_in_all_their_spellings() {
        let text = "-it --rm -m=8g -eA=1 --net host --memory-swap -1 --privileged --gpus '\"device=0,1\"' word";
        let pair = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
        assert_eq!(
            read(text),
            [
                pair("interactive", None),
                pair("rm", None),
                pair("memory", Some("8g")),
                pair("env", Some("A=1")),
                pair("network", Some("host")),
                pair("memory-swap", Some("-1")),
                pair("privileged", None),
                pair("gpus", Some("\"device=0,1\"")),
                pair("stray", None),
            ]
        );
    }

    #[test]
    fn a_flag_without_its_value_does_not_swallow_the_next_flag() {
        assert_eq!(read("--memory --rm")[0], ("memory".to_owned(), None));
        assert_eq!(items("-e 'open"), Err("a quote is not closed"));
        assert_eq!(items("-e open\\"), Err("they end with a backslash"));
    }
}
