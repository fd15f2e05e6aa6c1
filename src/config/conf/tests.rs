use proptest::prelude::*;
use serde_json::json;

use super::*;

fn read(text: &str) -> Result<Document, ConfError> {
    Document::read(text, &|name| (name == "HOME").then(|| "/root".to_owned()))
}

fn value(text: &str) -> Value {
    read(text).unwrap().value
}

fn error(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

#[test]
fn a_file_as_clearml_init_writes_it_is_read() {
    let text = r#"
# ClearML SDK configuration file
api {
    # Notice: 'host' is the api server (default port 8008), not the web server.
    api_server: http://localhost:8008
    web_server: http://localhost:8080   // comment
    files_server: "http://localhost:8081"
    # Credentials are generated using the webapp, http://localhost:8080/settings
    credentials {"access_key": "EGRTCO8JMSIGI6S39GTP43NFWXDQOW", "secret_key": "x!XTov_G-#vspE*Y(h$Anm&DIc5Ou-F)jsl$PdOyj5wG1&E!Z8"}
}
sdk {
    storage { cache { default_base_dir: "~/.clearml/cache" , size: { min_used_bytes: -1 } } }
    metrics { file_history_size: 100, matplotlib_untitled_history_size: 100 }
    network { metrics.file_upload_threads: 4 }
    google.storage {
        # credentials = [ { bucket: "my-bucket" } ]
    }
    aws.s3.credentials: [
        { bucket: "a", key: "b" }
        { bucket: "c" },   # no comma before
    ]
    development.vcs_repo_detect_async: True
}
"#;
    let document = read(text).unwrap();
    assert_eq!(
        document.text("api.api_server").unwrap(),
        "http://localhost:8008"
    );
    assert_eq!(
        document.text("api.web_server").unwrap(),
        "http://localhost:8080"
    );
    assert_eq!(
        document.text("api.credentials.secret_key").unwrap(),
        "x!XTov_G-#vspE*Y(h$Anm&DIc5Ou-F)jsl$PdOyj5wG1&E!Z8"
    );
    assert_eq!(
        document.get("sdk.storage.cache.size.min_used_bytes"),
        Some(&json!(-1))
    );
    assert_eq!(
        document.get("sdk.network.metrics.file_upload_threads"),
        Some(&json!(4))
    );
    assert_eq!(
        document
            .get("sdk.aws.s3.credentials")
            .unwrap()
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(document.get("sdk.google.storage"), Some(&json!({})));
    assert_eq!(
        document.get("sdk.development.vcs_repo_detect_async"),
        Some(&json!(true))
    );
    assert_eq!(document.line("api.web_server"), Some(6));
}

#[test]
fn keys_may_have_dots_and_quotes_and_any_sign_behind_them() {
    let expected = json!({ "a": { "b": 1, "c.d": 2, "e": { "f": 3 } }, "two words": 4 });
    assert_eq!(
        value("a.b = 1\na.\"c.d\": 2, a { e {f=3} }\ntwo words: 4"),
        expected
    );
}

#[test]
fn objects_given_twice_are_merged_and_else_the_last_one_wins() {
    assert_eq!(
        value("a { b: 1, c: 1 }\na { c: 2 }\na.d = 3"),
        json!({ "a": { "b": 1, "c": 2, "d": 3 } })
    );
    assert_eq!(value("a: 1\na: [2]"), json!({ "a": [2] }));
    assert_eq!(
        value("a: {b: 1}\na: 2\na: {c: 3}"),
        json!({ "a": { "c": 3 } })
    );
}

#[test]
fn words_without_quotes_are_what_they_look_like() {
    assert_eq!(
        value("a: 1\nb: -1.5\nc: True\nd: null\ne: 0123\nf: 1e3\ng: two words \nh: 10s\ni:"),
        json!({ "a": 1, "b": -1.5, "c": true, "d": null, "e": "0123", "f": 1e3, "g": "two words", "h": "10s", "i": "" })
    );
    assert_eq!(
        value("a: https://user@host:1/x?y=z&w#gone"),
        json!({ "a": "https://user@host:1/x?y=z&w" })
    );
}

#[test]
fn comments_begin_at_the_beginning_of_a_word() {
    assert_eq!(
        value("// all\na: b//c // d\n#e\nf: g#h"),
        json!({ "a": "b//c", "f": "g" })
    );
}

#[test]
fn triple_quotes_keep_everything() {
    assert_eq!(
        value("a: \"\"\"one\n\"two\" \\n ${x}\"\"\"\nb: \"\"\"q\"\"\"\""),
        json!({ "a": "one\n\"two\" \\n ${x}", "b": "q\"" })
    );
}

#[test]
fn quotes_know_backslashes() {
    assert_eq!(value(r#"a: "x\n\t\"\\\=é""#), json!({ "a": "x\n\t\"\\=é" }));
    // As in pyhocon: what a backslash makes nothing of keeps it, so that Windows' paths and patterns stand as they are.
    assert_eq!(
        value(r#"a: "C:\Users\u\/\d", b: C:\Users\\me, c: x\#y"#),
        json!({ "a": r"C:\Users\u\/\d", "b": r"C:\Users\me", "c": "x#y" })
    );
}

#[test]
fn a_backslash_at_the_end_of_a_line_continues_it() {
    assert_eq!(
        value("a: one \\\n  two\\\r\n\tthree \nb: 1"),
        json!({ "a": "one twothree", "b": 1 })
    );
}

#[test]
fn a_brace_or_a_sign_may_stand_below_its_key() {
    assert_eq!(
        value("a\n# comment\n{\n b\n = 1 }"),
        json!({ "a": { "b": 1 } })
    );
}

#[test]
fn words_beside_others_stand_as_they_are_written() {
    assert_eq!(
        value("a: 3.10 and true, b: +5, c: .5, d: -.5, e: +x, f: ."),
        json!({ "a": "3.10 and true", "b": 5, "c": 0.5, "d": -0.5, "e": "+x", "f": "." })
    );
}

#[test]
fn a_whole_number_that_is_too_long_to_be_counted_loses_no_digit() {
    let long = "12345678901234567890123";
    assert_eq!(
        value(&format!("a: {long}, b: -{long}, c: 18446744073709551615")),
        json!({ "a": long, "b": format!("-{long}"), "c": u64::MAX })
    );
}

#[test]
fn references_mean_keys_then_environment_variables() {
    assert_eq!(
        value(
            "dir: ${HOME}/data\nsub: ${dir}\"/x y\"\nnone: ${?NOPE}\nlist: [${?NOPE}, ${dir}]\nlater: ${last}\nlast: 3"
        ),
        json!({
            "dir": "/root/data",
            "sub": "/root/data/x y",
            "list": ["/root/data"],
            "later": 3,
            "last": 3,
        })
    );
    assert_eq!(
        value("a { b: 1 }\nc: ${a} { d: 2 }"),
        json!({ "a": { "b": 1 }, "c": { "b": 1, "d": 2 } })
    );
}

#[test]
fn a_reference_to_itself_means_the_value_before() {
    assert_eq!(value("a: x\na: ${a}:y"), json!({ "a": "x:y" }));
    assert_eq!(
        value("a: [1]\na += 2\na: ${a} [3]\na += [4, 5]"),
        json!({ "a": [1, 2, 3, 4, 5] })
    );
    assert_eq!(value("b.a += 1"), json!({ "b": { "a": [1] } }));
    assert_eq!(
        value("b { a: [1] }\nb { a += 2 }"),
        json!({ "b": { "a": [1, 2] } })
    );
    assert_eq!(value("a: ${?a}x"), json!({ "a": "x" }));
    assert_eq!(
        value("HOME: ${HOME}/x"),
        json!({ "HOME": "/root/x" }),
        "before it is the variable"
    );
}

#[test]
fn a_reference_to_nothing_leaves_the_value_before() {
    assert_eq!(
        value("a: d\na: ${?NOPE}\nb: d\nb: ${?HOME}\nc: ${a}"),
        json!({ "a": "d", "b": "/root", "c": "d" })
    );
    assert_eq!(
        value("b { a: [1] }\nb { a: ${?NOPE} ${?NEITHER} }\nb.a += 2"),
        json!({ "b": { "a": [1, 2] } })
    );
    assert_eq!(
        value("a { b: 1 }\na: ${?NOPE}\na { c: 2 }"),
        json!({ "a": { "b": 1, "c": 2 } })
    );
    assert_eq!(value("a: ${?NOPE}\na: ${?NEITHER}"), json!({}));
}

#[test]
fn objects_lie_over_what_the_ones_before_refer_to() {
    assert_eq!(
        value(
            "base { i: 1, t: x, deep { k: 1 } }\nd: ${base}\nd { t: y, own: ${d.i} }\nd.deep.l: 2\ne: ${d.i}${d.t}${d.deep.k}"
        ),
        json!({
            "base": { "i": 1, "t": "x", "deep": { "k": 1 } },
            "d": { "i": 1, "t": "y", "own": 1, "deep": { "k": 1, "l": 2 } },
            "e": "1y1",
        })
    );
    assert_eq!(
        value("base: 1\na { b: 1 }\na: ${base}"),
        json!({ "base": 1, "a": 1 })
    );
}

#[test]
fn every_error_names_its_line() {
    for (text, expected) in [
        ("a: 1\nb", "line 2: expected :, = or { behind the key \"b\""),
        (
            "a {\n b: 1\n",
            "line 1: the object that begins here is not closed by }",
        ),
        (
            "a: [1,\n2",
            "line 1: the list that begins here is not closed by ]",
        ),
        (
            "\n\na: \"x\nb: 1",
            "line 3: the text that begins here is not closed by a quote",
        ),
        ("a: 1\n}\n", "line 2: expected a key"),
        (
            "a: 1\n[api]\nb = 2",
            "line 2: a key cannot begin with [: a section is written as name { ... }",
        ),
        (
            "{a: 1}\nb: 2",
            "line 2: 'b' stands behind the end of the object",
        ),
        (
            "a: ${x}",
            "line 1: ${x} is neither a key of the file nor an environment variable",
        ),
        (
            "a: ${b}\nb: ${a}",
            "line 2: ${a} refers to itself in a circle",
        ),
        (
            "a: ${b",
            "line 1: the ${ that begins here is not closed by }",
        ),
        (
            "a: 1\ninclude required(\"x\")",
            "line 2: the required file \"x\" cannot be read",
        ),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
}

#[test]
fn depth_and_growth_are_bounded() {
    assert!(
        error(&"a {".repeat(10_000)).contains("nested deeper"),
        "objects"
    );
    assert!(
        error(&format!("a: {}", "[".repeat(10_000))).contains("nested deeper"),
        "lists"
    );
    assert!(
        error(&format!("a: x\n{}", "a: ${a}${a}\n".repeat(60)))
            .contains("refers to itself too often")
    );
    let laughs = (1..40).fold(String::new(), |text, i| {
        text + &format!("a{i}: ${{a{}}}${{a{}}}\n", i - 1, i - 1)
    });
    assert!(error(&format!("a0: haha\n{laughs}")).contains("larger than"));
    let merged = "b { a: ${b.a}${b.a} }\n".repeat(60);
    assert!(error(&format!("b {{ a: x }}\n{merged}")).contains("refers to itself too often"));
    // Nothing, asked for twice as often with each line.
    assert!(error(&laughs.replace("${", "${?")).contains("larger than"));
    assert!(error(&"#".repeat(2 << 20)).contains("longer than"));
}

proptest! {
    #[test]
    fn reading_never_panics(text in "(?s).{0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn reading_never_panics_on_what_looks_like_a_file(
        words in proptest::collection::vec(
            prop_oneof![
                Just("a"), Just("b"), Just("."), Just(":"), Just("="), Just("+="), Just("{"), Just("}"), Just("["), Just("]"),
                Just(","), Just("\n"), Just("\""), Just("\"\"\""), Just("${a}"), Just("${?b}"), Just("${a.b}"), Just("//"),
                Just("#"), Just(" "), Just("\\"), Just("ä"),
            ],
            0..60,
        )
    ) {
        let _ = read(&words.concat());
    }

    #[test]
    fn json_is_read_as_it_is(text in "[a-z0-9 \"\\\\/{}:,#\\$]{0,20}", number in any::<i32>()) {
        let written = json!({ "text": text, "list": [number, { "deep": text }], "none": null, "yes": true });
        prop_assert_eq!(value(&written.to_string()), written);
    }
}

#[test]
fn other_files_stand_where_they_are_included() {
    let include = |name: &str| {
        let text = match name {
            "a.conf" => "x: 2\ny { z: ${x} }\ninclude \"b.conf\"",
            "b.conf" => "deep: yes",
            "me.conf" => "include \"me.conf\"",
            "bad.conf" => "a {",
            "locked.conf" => return Err("permission denied".to_owned()),
            _ => return Ok(None),
        };
        Ok(Some(text.to_owned()))
    };
    let read = |text: &str| Document::read_with(text, &|_| None, &include);
    let document = read("x: 1\ninclude \"a.conf\"\ny.w: 3\ninclude \"gone.conf\"\n").unwrap();
    assert_eq!(
        document.value,
        json!({"x": 2, "y": {"z": 2, "w": 3}, "deep": "yes"})
    );
    assert_eq!(document.line("y.z"), Some(2));
    let inside = read("s { include file(\"b.conf\") }").unwrap();
    assert_eq!(inside.value, json!({"s": {"deep": "yes"}}));
    assert!(
        read("include \"me.conf\"")
            .unwrap_err()
            .to_string()
            .contains("include each other")
    );
    assert_eq!(
        read("a: 1\ninclude \"locked.conf\"")
            .unwrap_err()
            .to_string(),
        "line 2: the included file \"locked.conf\" cannot be read: permission denied"
    );
    assert_eq!(
        read("a: 1\ninclude \"bad.conf\"").unwrap_err().to_string(),
        "line 2: \"bad.conf\", which is included here: line 1: the object that begins here is not closed by }"
    );
}

#[test]
fn files_include_no_more_than_a_hundred_in_all() {
    let include = |name: &str| -> Result<Option<String>, String> {
        let text = match name {
            "wide.conf" => "include \"b.conf\"\n".repeat(60),
            "b.conf" => "deep: yes".to_owned(),
            _ => return Ok(None),
        };
        Ok(Some(text))
    };
    let read = |text: &str| Document::read_with(text, &|_| None, &include);
    let wide = "include \"wide.conf\"\n";
    let gone = "include \"gone.conf\"\n";
    assert!(read(&format!("{wide}{}", gone.repeat(39))).is_ok());
    let error = read(&format!("{wide}{}", gone.repeat(40))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 41: more than 100 files are included"
    );
    let error = read(&wide.repeat(2)).unwrap_err().to_string();
    assert_eq!(
        error,
        "line 2: \"wide.conf\", which is included here: line 39: more than 100 files are included"
    );
}

#[test]
fn places_are_those_of_every_value_of_a_key_also_of_one_that_does_not_count() {
    let text = "\u{feff}a.b: \"one\" # first\na { c: 1, b = two words  }\na.b: x${d}\nl: [{ b: 3 }, { b: ${d} }]\na: 1";
    let wanted = |path: &str| path == "a.b" || path == "l.b";
    let found = places(text, &wanted).unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|place| {
            let written = &text[place.bytes.clone()];
            (place.path.as_str(), written, place.reference.as_deref())
        })
        .collect();
    assert_eq!(
        found,
        [
            ("a.b", "\"one\"", None),
            ("a.b", "two words", None),
            ("a.b", "${d}", Some("d")),
            ("a.b", "x${d}", None),
            ("l.b", "3", None),
            ("l.b", "${d}", Some("d")),
            ("l.b", "${d}", None),
        ]
    );
}
