//! Comparing names, dates and numbers (§1.13). Pure.

use std::cmp::Ordering;

use regex::Regex;
use serde_json::Value;

use super::super::doc;
use super::super::wire::{Doc, Refusal};

/// The longest regular expression that is taken.
const LONGEST_PATTERN: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    AtLeast,
    After,
    AtMost,
    Before,
    Equal,
}

pub(super) fn regex(pattern: &str) -> Result<Regex, Refusal> {
    let invalid = |why: String| {
        Refusal::bad(
            16,
            format!("Invalid field value: regular expression {pattern:?}: {why}"),
        )
    };
    if pattern.len() > LONGEST_PATTERN {
        return Err(invalid("too long".into()));
    }
    // Python escapes characters that need none; here an unknown escape is an error.
    let mut plain = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match chars.next() {
            Some(c) if c.is_ascii_alphanumeric() || c == '_' => plain.extend(['\\', c]),
            Some(c) => plain += &regex::escape(&c.to_string()),
            None => plain.push('\\'),
        }
    }
    Regex::new(&plain).map_err(|error| invalid(error.to_string()))
}

pub(super) fn comparison(text: &str) -> (Comparison, String) {
    for (sign, comparison) in [
        (">=", Comparison::AtLeast),
        ("<=", Comparison::AtMost),
        (">", Comparison::After),
        ("<", Comparison::Before),
    ] {
        if let Some(date) = text.strip_prefix(sign) {
            return (comparison, date.trim().to_owned());
        }
    }
    (Comparison::Equal, text.to_owned())
}

/// A date in any ISO 8601 form; without an offset it is UTC (§1.12).
pub(super) fn date(text: &str) -> Option<jiff::Timestamp> {
    text.parse().ok().or_else(|| {
        let civil: jiff::civil::DateTime = text.parse().ok()?;
        civil
            .to_zoned(jiff::tz::TimeZone::UTC)
            .ok()
            .map(|zoned| zoned.timestamp())
    })
}

pub(super) fn compare_dates(have: &str, comparison: Comparison, wanted: &str) -> bool {
    let (Some(have), Some(wanted)) = (date(have), date(wanted)) else {
        return false;
    };
    match comparison {
        Comparison::AtLeast => have >= wanted,
        Comparison::After => have > wanted,
        Comparison::AtMost => have <= wanted,
        Comparison::Before => have < wanted,
        Comparison::Equal => have == wanted,
    }
}

pub(super) fn in_range(have: Option<&Value>, low: &Value, high: &Value) -> bool {
    let Some(have) = have else { return false };
    if let (Some(number), true) = (have.as_f64(), low.is_number() || high.is_number()) {
        return low.as_f64().is_none_or(|low| number >= low)
            && high.as_f64().is_none_or(|high| number <= high);
    }
    let text = have.as_str().unwrap_or_default();
    low.as_str()
        .is_none_or(|low| compare_dates(text, Comparison::AtLeast, low))
        && high
            .as_str()
            .is_none_or(|high| compare_dates(text, Comparison::AtMost, high))
}

pub(super) fn compare_values(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(Value::Number(a)), Some(Value::Number(b))) => a
            .as_f64()
            .unwrap_or(f64::NAN)
            .total_cmp(&b.as_f64().unwrap_or(f64::NAN)),
        (Some(Value::String(a)), Some(Value::String(b))) => a.cmp(b),
        (Some(a), Some(b)) => a.to_string().cmp(&b.to_string()),
    }
}

/// The strings at a path: one, or those of a list; a path goes on below each object of a list.
pub(super) fn texts_at<'d>(doc: &'d Doc, path: &str) -> Vec<&'d str> {
    match doc::get(doc, path) {
        Some(Value::String(text)) if !text.is_empty() => vec![text],
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
        Some(_) => Vec::new(),
        None => path
            .rsplit_once('.')
            .map_or_else(Vec::new, |(list, field)| {
                let items = doc::get(doc, list).and_then(Value::as_array);
                items
                    .into_iter()
                    .flatten()
                    .filter_map(|item| item.get(field)?.as_str())
                    .collect()
            }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_searched_for_with_the_escapes_of_python() {
        let escaped = regex(r"^my\ project\-1\#x\/y$").unwrap();
        assert!(escaped.is_match("my project-1#x/y"));
        assert!(!escaped.is_match("my project-1#x/y2"));
        assert!(regex("default").unwrap().is_match("my-default"));
        assert_eq!(regex("(").unwrap_err().subcode, 16);
    }

    #[test]
    fn a_path_leads_through_lists() {
        let doc = serde_json::json!({"models": {"input": [{"model": "m1"}, {"model": "m2"}]}});
        let doc = doc.as_object().unwrap();
        assert_eq!(texts_at(doc, "models.input.model"), ["m1", "m2"]);
        assert!(texts_at(doc, "models.output.model").is_empty());
    }

    #[test]
    fn dates_compare_as_moments() {
        let (sign, wanted) = comparison(">=2026-11-04T12:00:00");
        assert!(compare_dates("2026-11-04T13:00:00+01:00", sign, &wanted));
        assert!(!compare_dates("2026-11-04T12:59:59+01:00", sign, &wanted));
    }
}
