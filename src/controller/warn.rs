//! Warnings that the API server sends beside an answer (deprecated fields, Pod Security in warn mode): they fail
//! nothing, and each is logged once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;

use super::cluster;

/// Different warnings that are remembered; what comes beyond is not told, so that a server that words each differently
/// fills no log.
const MOST: usize = 500;

/// What was warned of.
#[derive(Debug, Clone, Default)]
pub(super) struct Warnings {
    told: Arc<Mutex<HashSet<String>>>,
}

impl Warnings {
    /// Logs what an answer warns of, if it is new.
    pub fn note(&self, resource: &str, headers: &HeaderMap) {
        for warning in self.new_ones(headers) {
            tracing::warn!(resource, warning, "the API server warns");
        }
    }

    fn new_ones(&self, headers: &HeaderMap) -> Vec<String> {
        let mut headers = headers.get_all(http::header::WARNING).iter().peekable();
        if headers.peek().is_none() {
            return Vec::new();
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        headers
            .filter_map(|value| text(value.to_str().ok()?))
            .filter(|text| told.len() < MOST && told.insert(text.clone()))
            .collect()
    }
}

/// The words of `299 - "words"` (RFC 9111, 5.5 of RFC 7234).
fn text(value: &str) -> Option<String> {
    let quoted = value.strip_prefix("299 ")?.split_once('"')?.1;
    let mut words = String::new();
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => return Some(cluster::bounded(&words)),
            '\\' => words.push(characters.next()?),
            character => words.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_told_once() {
        let warnings = Warnings::default();
        let mut headers = HeaderMap::new();
        assert_eq!(warnings.new_ones(&headers), Vec::<String>::new());
        for value in [
            r#"299 - "would violate PodSecurity \"restricted:latest\"""#,
            "299 - \"deprecated\"",
            "199 - \"of a proxy\"",
        ] {
            headers.append(http::header::WARNING, value.parse().unwrap());
        }
        assert_eq!(
            warnings.new_ones(&headers),
            [
                "would violate PodSecurity \"restricted:latest\"",
                "deprecated"
            ]
        );
        assert_eq!(warnings.new_ones(&headers), Vec::<String>::new());
    }
}
