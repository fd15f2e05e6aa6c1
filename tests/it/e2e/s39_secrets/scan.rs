//! PURE: looks for secret values in texts, plain and in base64, whatever stands before them.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// A value that is looked for, and what it is called.
pub(super) struct Canary {
    name: &'static str,
    forms: Vec<String>,
}

/// A text, and where it stands.
pub(super) struct Text {
    pub place: String,
    pub text: String,
}

/// A canary that was found.
#[derive(Debug)]
pub(super) struct Leak {
    pub canary: &'static str,
    pub place: String,
}

impl Canary {
    pub(super) fn new(name: &'static str, value: &str) -> Self {
        assert!(value.len() > 8, "{name} is too short to be looked for");
        let mut forms = vec![value.to_owned()];
        // Base64 makes groups of three bytes: it shows a value in three ways.
        for before in 0..3 {
            forms.extend(encoded(value, before));
        }
        Self { name, forms }
    }
}

/// The value in base64 behind so many other bytes, without the characters that hold bits of its neighbours.
fn encoded(value: &str, before: usize) -> [String; 2] {
    let mut bytes = vec![0; before];
    bytes.extend(value.as_bytes());
    let first = (before * 8).div_ceil(6);
    let last = bytes.len() * 8 / 6;
    let both = [
        STANDARD_NO_PAD.encode(&bytes),
        URL_SAFE_NO_PAD.encode(&bytes),
    ];
    both.map(|text| text[first..last].to_owned())
}

/// Every canary in every text in which it stands.
pub(super) fn scan(texts: &[Text], canaries: &[Canary]) -> Vec<Leak> {
    let mut leaks = Vec::new();
    for Text { place, text } in texts {
        let found = canaries
            .iter()
            .filter(|canary| canary.forms.iter().any(|form| text.contains(form)));
        leaks.extend(found.map(|canary| Leak {
            canary: canary.name,
            place: place.clone(),
        }));
    }
    leaks
}

#[test]
fn the_scan_finds_a_value_plain_and_in_base64_wherever_it_begins() {
    let canaries = [
        Canary::new("one", "canary?of>the~scan"),
        Canary::new("other", "another-canary"),
    ];
    let found = |text: &str| {
        let (place, text) = ("here".to_owned(), text.to_owned());
        let leaks = scan(&[Text { place, text }], &canaries);
        let names = leaks.iter().map(|leak| leak.canary);
        names.collect::<Vec<_>>().join(", ")
    };
    for before in ["", "a", "ab", "abc", "user:"] {
        for after in ["", "z", "zz", "\n"] {
            let plain = format!("{before}canary?of>the~scan{after}");
            for text in [
                STANDARD_NO_PAD.encode(&plain),
                URL_SAFE_NO_PAD.encode(&plain),
                plain.clone(),
            ] {
                assert_eq!(found(&text), "one", "{text}");
            }
        }
    }
    assert_eq!(found("canary of the scan"), "");
    let secrets = "another-canary canary?of>the~scan";
    assert_eq!(found(secrets), "one, other");
}
