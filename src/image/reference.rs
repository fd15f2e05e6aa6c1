//! The name of an image as people write it, and what a registry calls it.
//!
//! Source: the grammar of `distribution/reference`. The first part is a host if it has a dot or a colon or is
//! `localhost`; without a host it is Docker Hub's, where one part alone means `library/`.

use std::fmt;

/// The name that people write for Docker Hub, and its address.
const HUB: &str = "docker.io";
const HUB_ADDRESS: &str = "registry-1.docker.io";
const LONGEST_NAME: usize = 255;

/// An image name that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// As written, `docker.io` if there was none.
    pub host: String,
    /// Repository within the registry.
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<String>,
}

/// A text that is no image name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no image name: {reason}")]
pub struct BadReference {
    text: String,
    reason: &'static str,
}

impl Reference {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, BadReference> {
        read(text).map_err(|reason| BadReference {
            text: text.chars().take(200).collect(),
            reason,
        })
    }

    /// Host and port that are asked.
    pub fn address(&self) -> &str {
        if self.host == HUB {
            HUB_ADDRESS
        } else {
            &self.host
        }
    }

    /// What the registry calls the manifest: the digest goes before the tag.
    pub fn manifest(&self) -> &str {
        self.digest
            .as_deref()
            .or(self.tag.as_deref())
            .unwrap_or("latest")
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn read(text: &str) -> Result<Reference, &'static str> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
        Some(_) => return Err("what follows @ is no digest"),
        None => (text, None),
    };
    // A colon behind the last slash is a tag's, one before it a port's.
    let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[name_start..].split_once(':') {
        Some((last, tag)) if is_tag(tag) => {
            (&rest[..name_start + last.len()], Some(tag.to_owned()))
        }
        Some(_) => return Err("what follows the colon is no tag"),
        None => (rest, None),
    };
    let (host, path) = match name.split_once('/') {
        Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => {
            if !is_host(first) {
                return Err("its host is none");
            }
            (first, path.to_owned())
        }
        _ => (HUB, name.to_owned()),
    };
    let host = if host == "index.docker.io" { HUB } else { host };
    let repository = if host == HUB && !path.contains('/') {
        format!("library/{path}")
    } else {
        path
    };
    if host.len() + repository.len() >= LONGEST_NAME {
        return Err("it is too long");
    }
    if !repository.split('/').all(is_path_part) {
        return Err("its path has to be of lower-case letters, digits and . _ - between them");
    }
    Ok(Reference {
        host: host.to_owned(),
        repository,
        tag,
        digest,
    })
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let good = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(inner) && !host.starts_with(['-', '.']),
    };
    good && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn is_path_part(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let edge = |b: Option<u8>| b.is_some_and(alphanumeric);
    let bytes = part.as_bytes();
    let separators: Vec<&str> = part
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .filter(|run| !run.is_empty())
        .collect();
    let good = |run: &&str| matches!(*run, "." | "_" | "__") || run.bytes().all(|b| b == b'-');
    edge(bytes.first().copied()) && edge(bytes.last().copied()) && separators.iter().all(good)
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b".-".contains(&b))
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else {
        return false;
    };
    let letters = |b: u8| b.is_ascii_alphanumeric() || b"+._-".contains(&b);
    let hexadecimal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    !algorithm.is_empty()
        && algorithm.bytes().all(letters)
        && (32..=128).contains(&hex.len())
        && hex.bytes().all(hexadecimal)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_completed_as_docker_does() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (written, read) in [
            ("python", "docker.io/library/python".to_owned()),
            ("python:3.12", "docker.io/library/python:3.12".to_owned()),
            (
                "nvidia/cuda:12-devel",
                "docker.io/nvidia/cuda:12-devel".to_owned(),
            ),
            ("index.docker.io/a/b", "docker.io/a/b".to_owned()),
            (
                "127.0.0.1:5000/team/x:1",
                "127.0.0.1:5000/team/x:1".to_owned(),
            ),
            ("localhost/x", "localhost/x".to_owned()),
            ("[::1]:5000/x", "[::1]:5000/x".to_owned()),
            (
                "registry.example/a__b/c-d.e:T_1",
                "registry.example/a__b/c-d.e:T_1".to_owned(),
            ),
            (
                &format!("a:1@{digest}"),
                format!("docker.io/library/a:1@{digest}"),
            ),
        ] {
            assert_eq!(Reference::parse(written).unwrap().to_string(), read);
        }
        let hub = Reference::parse("python").unwrap();
        assert_eq!(
            (hub.address(), hub.manifest()),
            ("registry-1.docker.io", "latest")
        );
        let pinned = Reference::parse(&format!("a:1@{digest}")).unwrap();
        assert_eq!(pinned.manifest(), digest);
    }

    #[test]
    fn what_is_no_image_name_is_told() {
        for (written, reason) in [
            ("", "path"),
            ("Upper/case", "path"),
            ("a:", "tag"),
            ("a:b c", "tag"),
            ("a@sha256:short", "digest"),
            ("a//b", "path"),
            ("a/-b", "path"),
            ("a/b..c", "path"),
            ("host.example:70000/a", "host"),
            ("ho st.example/a", "host"),
        ] {
            let error = Reference::parse(written).unwrap_err().to_string();
            assert!(error.contains(reason), "{written}: {error}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_what_was_read_reads_the_same(text in "[a-zA-Z0-9./:@_\\[\\]-]{0,40}") {
            if let Ok(read) = Reference::parse(&text) {
                prop_assert_eq!(Reference::parse(&read.to_string()).unwrap(), read);
            }
        }
    }
}
