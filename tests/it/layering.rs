//! Holds the direction of imports: every `crate::` path in `src/` is reduced to an edge between top-level modules and
//! compared with the table in `docs/architecture.md`, which this test reads. The same table says which module alone may
//! name a crate of the outside world, pure files name neither clock, files, network nor processes, and few files read the
//! environment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::sources::{root, shipped};

/// One row of the table: module, what it may import, crates that only these modules may name.
#[derive(Debug, Default)]
struct Rules {
    may_import: BTreeMap<String, BTreeSet<String>>,
    owners: BTreeMap<String, BTreeSet<String>>,
}

/// Files that must stay pure wherever their module stands.
const PURE: [&str; 14] = [
    "task.rs",
    "pod.rs",
    "pod/",
    "crd",
    "config/conf/",
    "claim/",
    "render/",
    "capacity/",
    "diagnose/",
    "exec/plan",
    "exec/output.rs",
    "exec/outcome",
    "stats/report.rs",
    "server/rules",
];

/// What a pure file must not name.
const EFFECTS: [&str; 9] = [
    "tokio::",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "Timestamp::now",
    "Instant::now",
    "SystemTime::now",
    "reqwest::",
];

/// Files that read the environment, and why.
const READERS: [(&str, &str); 2] = [
    ("config/env.rs", "names all that is read, for the reference"),
    (
        "exec/settings.rs",
        "hands a pod's variables on to the user's process",
    ),
];

fn words(cell: &str) -> BTreeSet<String> {
    cell.split(',')
        .map(|word| word.trim().trim_matches('`').to_owned())
        .filter(|word| !word.is_empty() && word != "–")
        .collect()
}

fn rules() -> Rules {
    let text = fs::read_to_string(root().join("docs/architecture.md"))
        .expect("docs/architecture.md is readable");
    let mut rules = Rules::default();
    let rows = text
        .lines()
        .skip_while(|line| !line.starts_with("| module | may import"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        for module in words(cells[0]) {
            rules.may_import.insert(module.clone(), words(cells[1]));
            for name in words(cells[2]) {
                rules.owners.entry(name).or_default().insert(module.clone());
            }
        }
    }
    assert!(
        rules.may_import.len() > 10,
        "the layering table of docs/architecture.md was not found"
    );
    rules
}

/// The path below `src`, and its lines up to the inline test module, without comments.
fn files() -> Vec<(String, Vec<(usize, String)>)> {
    let src = root().join("src");
    shipped("src")
        .into_iter()
        .map(|path| {
            let name = path
                .strip_prefix(&src)
                .expect("a source lies below src")
                .display()
                .to_string();
            let text = fs::read_to_string(&path).expect("a source is readable");
            let lines = text
                .lines()
                .enumerate()
                .take_while(|(_, line)| line.trim() != "mod tests {")
                .map(|(number, line)| {
                    (
                        number + 1,
                        line.split("//").next().unwrap_or_default().to_owned(),
                    )
                })
                .collect();
            (name, lines)
        })
        .collect()
}

fn module_of(file: &str) -> &str {
    file.split('/')
        .next()
        .map_or("", |first| first.trim_end_matches(".rs"))
}

/// Every module named after `crate::`, also inside braces: `crate::{api::Client, task::{A, B}}`.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &text[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => found.push(std::mem::take(&mut name)),
                    c if depth == 0 => name.push(c),
                    _ => {}
                }
            }
            found.push(name);
        } else {
            found.push(rest.to_owned());
        }
    }
    found
        .into_iter()
        .map(|name| {
            name.trim()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect::<String>()
        })
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn imports_point_downwards_only() {
    let rules = rules();
    let mut faults = Vec::new();
    for (file, lines) in files() {
        let module = module_of(&file);
        if ["lib", "main"].contains(&module) {
            continue;
        }
        let Some(allowed) = rules.may_import.get(module) else {
            faults.push(format!("src/{file}: module `{module}` is not in the table"));
            continue;
        };
        let text = lines
            .iter()
            .map(|(_, line)| line.as_str())
            .collect::<Vec<_>>()
            .join("\n");
        for import in imports(&text) {
            let known = rules.may_import.contains_key(&import);
            if known && import != module && !allowed.contains(&import) && !allowed.contains("all") {
                faults.push(format!("src/{file}: `{module}` may not import `{import}`"));
            }
        }
    }
    assert!(
        faults.is_empty(),
        "layering (docs/architecture.md):\n{}",
        faults.join("\n")
    );
}

#[test]
fn outside_crates_are_named_by_their_owners_only() {
    let rules = rules();
    let mut faults = Vec::new();
    for (file, lines) in files() {
        let module = module_of(&file);
        for (name, owners) in &rules.owners {
            let path = format!("{}::", name.replace('-', "_"));
            for (number, line) in &lines {
                let named = line.match_indices(&path).any(|(at, _)| {
                    !line[..at]
                        .chars()
                        .next_back()
                        .is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
                });
                if named && !owners.contains(module) && !["lib", "main"].contains(&module) {
                    faults.push(format!(
                        "src/{file}:{number}: only {owners:?} may name `{name}`"
                    ));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn pure_files_name_no_effects() {
    let mut faults = Vec::new();
    for (file, lines) in files() {
        if !PURE.iter().any(|pure| file.starts_with(pure)) {
            continue;
        }
        for (number, line) in &lines {
            for effect in EFFECTS {
                if line.contains(effect) {
                    faults.push(format!("src/{file}:{number}: a pure file names `{effect}`"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_environment_is_read_where_it_is_said() {
    let readers: BTreeSet<String> = files()
        .into_iter()
        .filter(|(_, lines)| lines.iter().any(|(_, line)| line.contains("env::var")))
        .map(|(file, _)| file)
        .collect();
    let said = BTreeSet::from(READERS.map(|(file, _)| file.to_owned()));
    assert_eq!(readers, said, "allowed are {READERS:?}");
}

#[test]
fn what_is_listed_is_there() {
    let files = files();
    for pure in PURE {
        assert!(
            files.iter().any(|(file, _)| file.starts_with(pure)),
            "no file of src begins with {pure:?}: `PURE` names it in vain"
        );
    }
    let rules = rules();
    for (module, imported) in &rules.may_import {
        assert!(
            files.iter().any(|(file, _)| module_of(file) == module),
            "docs/architecture.md has a row of `{module}`, which is no module of src"
        );
        for name in imported {
            assert!(
                name == "all" || rules.may_import.contains_key(name),
                "docs/architecture.md lets `{module}` import `{name}`, which has no row"
            );
        }
    }
}

#[test]
fn an_import_inside_braces_is_seen() {
    let text = "use crate::{api::Client, task::{TaskId, QueueId}};\nlet x = crate::render::job();";
    assert_eq!(imports(text), ["api", "task", "render"]);
}
