//! The docker arguments that a task asks for → fields of the pod, or a note that says why not.
//!
//! Source: `task.container.arguments` (protocol.md §3.2). Values are never repeated in notes: they may be secrets.

use super::notes::Notes;
use crate::crd::{Quantity, QueueBindingSpec};

/// What is honoured of a task's docker arguments.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    /// `--env`: name and value, in order.
    pub(super) env: Vec<(String, String)>,
    /// `--shm-size` in bytes.
    pub(super) shm_size: Option<u64>,
}

/// Docker flags that take no value; every other flag takes one, behind `=` or as the next word.
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
    ('d', "detach"),
    ('i', "interactive"),
    ('t', "tty"),
];

/// Reads docker arguments; what is refused becomes a note.
pub(super) fn read(arguments: &str, spec: &QueueBindingSpec, notes: &mut Notes) -> Arguments {
    let mut honoured = Arguments::default();
    let words = match split_words(arguments) {
        Ok(words) => words,
        Err(reason) => {
            notes.add(format!("container arguments are not honoured: {reason}"));
            return honoured;
        }
    };
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let Some((flag, inline)) = flag_of(&word) else {
            notes.add("a word of the container arguments belongs to no flag and is not honoured");
            continue;
        };
        let bare = BARE_FLAGS.contains(&flag.as_str());
        let value = match inline {
            Some(value) => Some(value),
            None if bare => None,
            None => words.next_if(|next| !next.starts_with('-')),
        };
        let allowed = spec.overrides.container_arguments.contains(&flag);
        match (flag.as_str(), value) {
            (_, _) if !allowed => notes.add(format!(
                "container argument --{flag} is refused \
                 (hint: the binding's overrides.containerArguments lists what a task may ask for)"
            )),
            ("env", Some(value)) => add_variable(&value, &mut honoured, notes),
            ("shm-size", Some(value)) => match bytes(&value) {
                Some(size) => honoured.shm_size = Some(size),
                None => notes.add("container argument --shm-size is not honoured: its value is no size such as 8g"),
            },
            ("env" | "shm-size", None) => {
                notes.add(format!("container argument --{flag} is not honoured: it has no value"));
            }
            _ => notes.add(format!("container argument --{flag} is not supported yet")),
        }
    }
    honoured
}

fn add_variable(assignment: &str, honoured: &mut Arguments, notes: &mut Notes) {
    let Some((name, value)) = assignment.split_once('=') else {
        notes.add(format!(
            "container argument --env {assignment:?} is not honoured: it has no value, and there is no host to take it from"
        ));
        return;
    };
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
        notes.add("container argument --env is not honoured: its name is no name of an environment variable");
    } else if name.starts_with("TRAINYARD_") {
        notes.add(format!(
            "container argument --env {name} is refused: TRAINYARD_ is the executor's own prefix"
        ));
    } else {
        honoured.env.push((name.to_owned(), value.to_owned()));
    }
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
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    let value = (!rest.is_empty() && !BARE_FLAGS.contains(flag)).then(|| rest.to_owned());
    Some(((*flag).to_owned(), value))
}

/// A size as docker reads it: `8g`, `512m`, `64k`, `1073741824b`; powers of 1024.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let number = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match &lower[number.len()..] {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(factor)
        .filter(|size| *size > 0)
}

/// A size in bytes as Kubernetes writes it.
pub(super) fn as_quantity(bytes: u64) -> String {
    i64::try_from(bytes).map_or_else(
        |_| bytes.to_string(),
        |bytes| Quantity::whole(bytes).to_string(),
    )
}

/// Splits as a shell does: blanks, single and double quotes, backslashes; nothing is expanded.
fn split_words(text: &str) -> Result<Vec<String>, &'static str> {
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
    use proptest::prelude::*;

    use super::*;

    fn allowing(flags: &[&str]) -> QueueBindingSpec {
        serde_json::from_value(serde_json::json!({
            "queues": [{ "name": "gpu" }],
            "overrides": { "containerArguments": flags },
        }))
        .unwrap()
    }

    fn read_with(flags: &[&str], arguments: &str) -> (Arguments, Vec<String>) {
        let mut notes = Notes::default();
        let honoured = read(arguments, &allowing(flags), &mut notes);
        (honoured, notes.into_lines())
    }

    #[test]
    fn every_spelling_of_env_is_understood() {
        let spellings = "-e A=1 -eB=2 --env C=3 --env=D=x=y -e 'E=two words' --env \"F=\"";
        let (honoured, notes) = read_with(&["env"], spellings);
        let expected = [
            ("A", "1"),
            ("B", "2"),
            ("C", "3"),
            ("D", "x=y"),
            ("E", "two words"),
            ("F", ""),
        ];
        assert_eq!(
            honoured.env,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert_eq!(notes, Vec::<String>::new());
    }

    #[test]
    fn shm_size_is_read_as_docker_reads_it() {
        for (typed, size) in [
            ("8g", 8 << 30),
            ("512M", 512 << 20),
            ("64kb", 64 << 10),
            ("1024", 1024),
        ] {
            assert_eq!(
                read_with(&["shm-size"], &format!("--shm-size={typed}"))
                    .0
                    .shm_size,
                Some(size)
            );
        }
        assert_eq!(as_quantity(8 << 30), "8Gi");
    }

    #[test]
    fn what_is_not_allowed_is_refused_by_name_and_without_its_value() {
        let (honoured, notes) = read_with(
            &[],
            "-e TOKEN=canary --shm-size 8g --privileged -v /canary:/x",
        );
        assert_eq!(honoured, Arguments::default());
        let flags: Vec<&str> = notes
            .iter()
            .map(|note| note.split(' ').nth(2).unwrap())
            .collect();
        assert_eq!(flags, ["--env", "--shm-size", "--privileged", "--volume"]);
        assert!(!notes.concat().contains("canary"), "{notes:?}");
    }

    #[test]
    fn allowed_and_not_supported_is_told_apart() {
        let (_, notes) = read_with(&["ipc"], "--ipc=host");
        assert_eq!(notes, ["container argument --ipc is not supported yet"]);
    }

    #[test]
    fn the_executor_keeps_its_own_variables() {
        let (honoured, notes) = read_with(&["env"], "-e TRAINYARD_TASK_ID=x");
        assert_eq!(honoured.env, []);
        assert_eq!(notes.len(), 1);
    }

    #[test]
    fn an_open_quote_spoils_all_of_them_and_says_so() {
        let (honoured, notes) = read_with(&["env"], "-e A=1 -e 'B=2");
        assert_eq!(honoured, Arguments::default());
        assert_eq!(
            notes,
            ["container arguments are not honoured: a quote is not closed"]
        );
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,80}") {
            let _ = read_with(&["env", "shm-size"], &text);
        }
    }
}
