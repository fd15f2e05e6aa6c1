//! Whatever can be pressed, chosen, filled in or called by a key on the page is used by one of its tests: the names that
//! stand in the page's sources are looked for in what these tests press and select.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use regex::Regex;

use crate::sources::{below, root};

/// Controls of a file that carry no name there: it comes from data, from an argument, or from a table whose entries are
/// looked at themselves. A further one wants a test first, and then a larger number here.
const NAMELESS: [(&str, usize); 7] = [
    ("dom.js", 2),
    ("execution.js", 2),
    ("log.js", 1),
    ("queues.js", 1),
    ("task.js", 2),
    ("tasks.js", 4),
    ("ui.js", 4),
];

/// Helpers of these tests whose texts are names of what they use.
const USES: &str = r"\b(press_button|press_menu|pick|change|only|sorts_by|shows|range|press)\s*\(";

/// Keys as WebDriver writes them.
const KEYS: [(&str, &str); 2] = [("Home", r"\u{E011}"), ("End", r"\u{E010}")];

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap()
}

/// All that a pattern's groups hold in a text.
fn found(pattern: &Regex, text: &str) -> Vec<String> {
    let groups = pattern.captures_iter(text).filter_map(|found| {
        let mut groups = found.iter().skip(1).flatten();
        groups.next().map(|group| group.as_str().to_owned())
    });
    groups.collect()
}

/// What an object of JavaScript holds, from behind its opening brace up to the closing one.
fn object(text: &str) -> &str {
    let mut depth = 1;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    text
}

/// The same without what lies deeper, such as listeners; places of a template (`${…}`) stay.
fn own(object: &str) -> String {
    let mut own = String::new();
    let mut are_templates = Vec::new();
    let mut before = ' ';
    for c in object.chars() {
        if c == '{' {
            are_templates.push(before == '$');
        }
        if are_templates.iter().all(|is_template| *is_template) {
            own.push(c);
        }
        if c == '}' {
            are_templates.pop();
        }
        before = c;
    }
    own
}

/// A control and the names by any of which a test may use it. A field may go by `[name=…]`, a key by `key …`.
struct Control {
    file: String,
    names: Vec<String>,
}

/// Finds names, and how a test refers to each.
type Named = (Regex, fn(String) -> String);

/// What finds the controls of a source.
struct Finder {
    element: Regex,
    member: Regex,
    field: Regex,
    words_behind: Regex,
    /// Whatever has its name in one place, and how a test refers to it.
    plain: Vec<Named>,
    confirm: Regex,
    word: Regex,
    choice: Regex,
    option: Regex,
}

impl Finder {
    fn new() -> Self {
        let as_it_is: fn(String) -> String = |name| name;
        let as_field: fn(String) -> String = |name| format!("[name={name}]");
        let as_key: fn(String) -> String = |name| {
            let known = KEYS.iter().find(|(key, _)| *key == name);
            format!("key {}", known.map_or(name.as_str(), |(_, typed)| *typed))
        };
        Self {
            element: regex(r"(?:\b(button)\(|'(button|a|input|select|textarea)',\s*)\{"),
            member: regex(r"(?:'aria-label'|\blabel|\btext|\btitle): (?:'([^']+)'|`([^`]+)`)"),
            field: regex(r"\bname: '(\w+)'"),
            words_behind: regex(r"^\}\s*,\s*(?:icon\('\w+'\),\s*)?'([^']+)'"),
            plain: vec![
                // Rows of tables: actions, tabs, places, columns that sort.
                (
                    regex(r"\{ id: '[^']+', text: '([^']+)', [^\n]*\b(?:act|draw|key|order):"),
                    as_it_is,
                ),
                (regex(r"\bitem\((?:[^,]*\? )?'([^']+)'"), as_it_is),
                (regex(r"link: \{ [^\n]*text: '([^']+)'"), as_it_is),
                (regex(r"'summary', \{\}, '([^']+)'"), as_it_is),
                (regex(r"\btick\('(\w+)'"), as_field),
                (regex(r"\bbind\('([^']+)'"), as_key),
            ],
            confirm: regex(r"\bconfirm: ([^\n]*)"),
            word: regex("'([^']+)'"),
            choice: regex(r"\bchoice\('[^']+', \[\[(.*?)\]\]"),
            option: regex("'[^']*', '([^']+)'"),
        }
    }

    /// The controls of a source, and how many have no name in it.
    fn controls(&self, file: &str, text: &str) -> (Vec<Control>, usize) {
        let mut all = Vec::new();
        let mut nameless = 0;
        for found_element in self.element.captures_iter(text) {
            let begin = found_element.get(0).map_or(0, |whole| whole.end());
            let kind = found_element.get(1).or(found_element.get(2));
            let kind = kind.map_or("", |kind| kind.as_str());
            let inside = object(&text[begin..]);
            let members = own(inside);
            let mut names = found(&self.member, &members);
            if !["button", "a"].contains(&kind) {
                let fields = found(&self.field, &members);
                names.extend(fields.iter().map(|name| format!("[name={name}]")));
            }
            names.extend(found(&self.words_behind, &text[begin + inside.len()..]));
            if names.is_empty() {
                nameless += usize::from(kind != "a");
            } else {
                all.push(names);
            }
        }
        for (pattern, refer) in &self.plain {
            all.extend(
                found(pattern, text)
                    .into_iter()
                    .map(|name| vec![refer(name)]),
            );
        }
        for (within, name) in [(&self.confirm, &self.word), (&self.choice, &self.option)] {
            for part in found(within, text) {
                all.extend(found(name, &part).into_iter().map(|name| vec![name]));
            }
        }
        let controls = all.into_iter().map(|names| Control {
            file: file.to_owned(),
            names,
        });
        (controls.collect(), nameless)
    }
}

/// Texts in a call of Rust, from behind its opening parenthesis, as they are written.
fn texts(call: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut text = String::new();
    let (mut is_within, mut is_escaped) = (false, false);
    let mut depth = 1;
    for c in call.chars() {
        match c {
            '"' if is_within && !is_escaped => {
                texts.push(std::mem::take(&mut text));
                is_within = false;
            }
            _ if is_within => {
                is_escaped = c == '\\' && !is_escaped;
                text.push(c);
            }
            '"' => is_within = true,
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    texts
}

/// All names by which the tests of the page use a control.
fn used() -> BTreeSet<String> {
    let (call, selector) = (
        regex(USES),
        regex(r"(?:aria-label|title)=(?:'([^']+)'|(\w+)\])"),
    );
    let field = regex(r"(\[name=\w+\])");
    let mut used = BTreeSet::new();
    for path in below("tests/it/page") {
        if path.ends_with("controls.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for found in call.captures_iter(&text) {
            let begin = found.get(0).map_or(0, |whole| whole.end());
            let words = texts(&text[begin..]);
            match &found[1] {
                "press" => used.extend(words.iter().map(|key| format!("key {key}"))),
                "pick" => {
                    used.extend(words.first().map(|list| format!("[name={list}]")));
                    used.extend(words);
                }
                _ => used.extend(words),
            }
        }
        used.extend(found(&selector, &text));
        used.extend(found(&field, &text));
    }
    used
}

/// A name in which `${…}` stands for anything.
fn pattern(name: &str) -> Regex {
    let mut pattern = String::from("^");
    let mut rest = name;
    while let Some((before, after)) = rest.split_once("${") {
        pattern += &regex::escape(before);
        pattern += ".+";
        rest = after.split_once('}').map_or("", |(_, behind)| behind);
    }
    pattern += &regex::escape(rest);
    pattern.push('$');
    regex(&pattern)
}

fn sources() -> BTreeMap<String, String> {
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let folder = fs::read_dir(root().join("src/server/page")).unwrap();
    let files = folder.map(|entry| entry.unwrap().path());
    let scripts = files.filter(|path| path.extension().is_some_and(|end| end == "js"));
    scripts
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, read(&path))
        })
        .collect()
}

#[test]
fn every_control_of_the_page_is_used_by_a_test() {
    let finder = Finder::new();
    let mut controls = Vec::new();
    let mut nameless = Vec::new();
    for (file, text) in sources() {
        let (of_file, without) = finder.controls(&file, &text);
        controls.extend(of_file);
        if without > 0 {
            nameless.push((file, without));
        }
    }
    assert!(controls.len() > 150, "only {} were found", controls.len());

    let used = used();
    let unused: Vec<String> = controls
        .iter()
        .filter(|control| {
            let mut patterns = control.names.iter().map(|name| pattern(name));
            !patterns.any(|pattern| used.iter().any(|name| pattern.is_match(name)))
        })
        .map(|control| format!("{}: {}", control.file, control.names.join(" or ")))
        .collect();
    assert!(
        unused.is_empty(),
        "no test of the page uses these: {unused:#?}"
    );
    let expected = NAMELESS.map(|(file, count)| (file.to_owned(), count));
    assert_eq!(nameless, expected, "controls without a name in the source");
}

#[test]
fn controls_are_found_in_a_source_and_their_uses_in_a_test() {
    let source = "
        button({ icon: 'close', label: `Remove ${name}`, on: { click: () => ask({ title: 'Sure?' }) } }, act);
        h('a', { href: to(['tasks']) }, 'All tasks');
        h('select', { name: 'queue', required: true });
        h('button', { on: { click: () => go({ text: 'deeper' }) } }, words);
        choice('Time', [['1h', '1 hour'], ['6h', '6 hours']], range);
        bind('Home', 'First line', first);";
    let (controls, nameless) = Finder::new().controls("x.js", source);
    let names: Vec<String> = controls.into_iter().flat_map(|one| one.names).collect();
    assert_eq!(
        names,
        [
            "Remove ${name}",
            "All tasks",
            "[name=queue]",
            r"key \u{E011}",
            "1 hour",
            "6 hours"
        ]
    );
    assert_eq!(nameless, 1);
    assert!(pattern("Remove ${name}").is_match("Remove lr"));
    assert!(!pattern("Remove ${name}").is_match("Remove "));
    assert_eq!(
        texts(r#"&format!("a (b) {c}"), "d \" e") + other("f")"#),
        ["a (b) {c}", r#"d \" e"#]
    );
}
