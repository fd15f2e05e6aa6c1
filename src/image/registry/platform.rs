//! Which platforms an image is for, by its index or its configuration.

use std::fmt;

use serde_json::Value;

use super::Fault;
use crate::image::Reference;

/// What nodes run, as images name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
}

impl Platform {
    /// As an index, or the configuration of an image, has it.
    pub(super) fn of(value: &Value) -> Option<Self> {
        let text = |name: &str| value[name].as_str().filter(|text| is_word(text));
        Some(Self {
            os: text("os")?.to_owned(),
            architecture: text("architecture")?.to_owned(),
        })
    }
}

/// The longest word for an operating system or an architecture, and how many platforms are named in a message: both come
/// from a registry, and people read them.
const LONGEST: usize = 32;
const NAMED: usize = 8;

/// Whether an operating system or an architecture is called so; no other word is taken for one.
fn is_word(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(inner) && text != "unknown"
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

/// The platforms of an index; attestations carry `unknown`.
pub(super) fn of_index(index: &Value) -> Vec<Platform> {
    let manifests = index["manifests"].as_array().into_iter().flatten();
    manifests
        .filter_map(|manifest| Platform::of(&manifest["platform"]))
        .collect()
}

pub(super) fn of_config(config: &Value) -> Vec<Platform> {
    Platform::of(config).into_iter().collect()
}

/// The image is for other platforms than the nodes'.
pub(super) fn elsewhere(image: &Reference, offered: &[Platform], nodes: &[Platform]) -> Fault {
    let list = |platforms: &[Platform]| {
        let mut names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
        names.sort();
        names.dedup();
        let more = names.len().saturating_sub(NAMED);
        names.truncate(NAMED);
        let names = names.join(", ");
        if more == 0 {
            names
        } else {
            format!("{names} and {more} more")
        }
    };
    Fault::Refused(format!(
        "image {image} is for {}, and the nodes of this cluster are {}",
        list(offered),
        list(nodes)
    ))
}
