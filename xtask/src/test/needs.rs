//! Which tests need what [`prepare`](super::prepare) brings: the cluster, its programs, uv, the clients' Pythons.

use std::process::Stdio;

use anyhow::{Context, Result, bail};

use super::it;

/// How the paths of these tests begin.
const PARTS: [&str; 7] = [
    "bench::",
    "chart::",
    "clients::",
    "e2e::",
    "exec::",
    "nvml::",
    "python::",
];

fn is_one(test: &str) -> bool {
    PARTS.iter().any(|part| test.starts_with(part))
}

/// Whether one of the tests whose path contains `only` is one of them.
pub fn place(only: &str) -> Result<bool> {
    let output = it()
        .args(["--list", only])
        .stderr(Stdio::inherit())
        .output()
        .context("could not start cargo")?;
    if !output.status.success() {
        bail!("the tests could not be listed ({})", output.status);
    }
    let listed = String::from_utf8_lossy(&output.stdout);
    Ok(listed.lines().any(is_one))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::Path;

    use super::super::place::TOLD;
    use super::*;
    use crate::dirs;

    /// Texts of the modules below `folder`, whose own path is `above`.
    fn modules(folder: &Path, above: &str, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).expect("a folder of tests is readable") {
            let path = entry.expect("an entry of tests is readable").path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let module = match (above, &*name) {
                (_, "mod") => above.to_owned(),
                ("", name) => name.to_owned(),
                (above, name) => format!("{above}::{name}"),
            };
            if path.is_dir() {
                modules(&path, &module, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a test is readable");
                found.insert(module, text);
            }
        }
    }

    fn above(module: &str) -> &str {
        module.rsplit_once("::").map_or("", |(above, _)| above)
    }

    /// The module that a path in `module` leads to: of `super::world::World` in `e2e::limits` it is `e2e::world`.
    fn named<'a>(path: &str, module: &str, texts: &'a BTreeMap<String, String>) -> Option<&'a str> {
        let (first, mut rest) = path.split_once("::")?;
        let mut base = match first {
            "crate" => "",
            "self" => module,
            "super" => above(module),
            _ => return None,
        };
        while let Some(further) = rest.strip_prefix("super::") {
            (base, rest) = (above(base), further);
        }
        let whole = format!("{base}::{rest}");
        let mut whole = whole.trim_matches(':');
        while !whole.is_empty() {
            if let Some((known, _)) = texts.get_key_value(whole) {
                return Some(known);
            }
            whole = above(whole);
        }
        None
    }

    /// Modules that name a variable by which only [`with`](super::super::with) tells a test where things are, and
    /// those that import from one.
    fn users(texts: &BTreeMap<String, String>) -> BTreeSet<&str> {
        let names = TOLD.map(|(name, _)| format!("{name:?}"));
        let direct = texts
            .iter()
            .filter(|(_, text)| names.iter().any(|name| text.contains(name)));
        let mut users: BTreeSet<&str> = direct.map(|(module, _)| module.as_str()).collect();
        loop {
            let imports = |module: &str, text: &str| {
                text.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
                    .filter_map(|word| named(word, module, texts))
                    .any(|import| import != module && users.contains(import))
            };
            let more: Vec<&str> = texts
                .iter()
                .filter(|(module, _)| !users.contains(module.as_str()))
                .filter(|(module, text)| imports(module, text))
                .map(|(module, _)| module.as_str())
                .collect();
            if more.is_empty() {
                return users;
            }
            users.extend(more);
        }
    }

    #[test]
    fn whoever_uses_what_is_brought_is_named_and_nobody_else() {
        let mut texts = BTreeMap::new();
        modules(&dirs::repository().join("tests/it"), "", &mut texts);
        let users: Vec<String> = users(&texts)
            .iter()
            .map(|module| format!("{module}::"))
            .collect();
        let missing: Vec<&String> = users.iter().filter(|path| !is_one(path)).collect();
        assert!(missing.is_empty(), "`PARTS` lacks {missing:?}");
        for part in PARTS {
            let used = users.iter().any(|path| path.starts_with(part));
            assert!(used, "`PARTS` names {part:?} in vain");
        }
    }

    #[test]
    fn an_import_is_followed_to_its_module() {
        let texts = ["e2e", "e2e::world", "e2e::s39::scan", "python::fixture"]
            .map(|module| (module.to_owned(), String::new()));
        let texts = BTreeMap::from(texts);
        for (path, module, wanted) in [
            ("super::world::World", "e2e::limits", Some("e2e::world")),
            ("super::", "e2e::limits", Some("e2e")),
            (
                "super::super::world::",
                "e2e::s39::scan",
                Some("e2e::world"),
            ),
            ("self::scan::scan", "e2e::s39", Some("e2e::s39::scan")),
            (
                "crate::python::fixture::uv",
                "exec::build",
                Some("python::fixture"),
            ),
            ("crate::git::served", "exec::build", None),
            ("std::path::Path", "exec::build", None),
        ] {
            assert_eq!(named(path, module, &texts), wanted, "{path} in {module}");
        }
    }
}
