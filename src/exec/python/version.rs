//! PURE: versions of Python packages and what may be asked of them (PEP 440), with Poetry's `^` and `~`.

use std::cmp::Ordering;

/// A version, as PEP 440 writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    epoch: u64,
    release: Vec<u64>,
    /// `a`, `b` or `rc` as 0, 1, 2, and its number.
    pre: Option<(u8, u64)>,
    post: Option<u64>,
    dev: Option<u64>,
    pub local: Option<String>,
}

impl std::str::FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.trim().to_ascii_lowercase();
        let text = text.strip_prefix('v').unwrap_or(&text);
        let (public, local) = match text.split_once('+') {
            Some((public, local)) if !local.is_empty() => (public, Some(local.to_owned())),
            Some(_) => return Err(()),
            None => (text, None),
        };
        let (epoch, rest) = match public.split_once('!') {
            Some((epoch, rest)) => (epoch.parse().map_err(drop)?, rest),
            None => (0, public),
        };
        let end = rest
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(rest.len());
        let numbers = rest[..end].trim_end_matches('.');
        let release: Result<Vec<u64>, ()> = numbers
            .split('.')
            .map(|number| number.parse().map_err(drop))
            .collect();
        let mut version = Self {
            epoch,
            release: release?,
            pre: None,
            post: None,
            dev: None,
            local,
        };
        version.suffixes(&rest[numbers.len()..])?;
        Ok(version)
    }
}

impl Version {
    /// Reads what follows the numbers: `a1`, `.post2`, `.dev3`, in any of PEP 440's spellings.
    fn suffixes(&mut self, mut rest: &str) -> Result<(), ()> {
        let separators = ['.', '-', '_'];
        while !rest.is_empty() {
            if let Some(number) = rest.strip_prefix('-')
                && number.starts_with(|c: char| c.is_ascii_digit())
            {
                let (value, after) = digits(number);
                self.post = Some(value);
                rest = after;
                continue;
            }
            rest = rest.trim_start_matches(separators);
            let end = rest
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let (value, after) = digits(after.trim_start_matches(separators));
            match word {
                "a" | "alpha" => self.pre = Some((0, value)),
                "b" | "beta" => self.pre = Some((1, value)),
                "c" | "rc" | "pre" | "preview" => self.pre = Some((2, value)),
                "post" | "rev" | "r" => self.post = Some(value),
                "dev" => self.dev = Some(value),
                _ => return Err(()),
            }
            rest = after;
        }
        Ok(())
    }

    /// The first numbers, filled up with zeros.
    pub fn minor(&self) -> (u64, u64) {
        let at = |index: usize| self.release.get(index).copied().unwrap_or(0);
        (at(0), at(1))
    }

    /// Without what follows `+`.
    pub fn public(&self) -> Self {
        Self {
            local: None,
            ..self.clone()
        }
    }

    fn is_pre_release(&self) -> bool {
        self.pre.is_some() || self.dev.is_some()
    }

    fn has_prefix(&self, prefix: &Self) -> bool {
        let mut numbers = self.release.iter().chain(std::iter::repeat(&0));
        self.epoch == prefix.epoch
            && prefix
                .release
                .iter()
                .all(|number| numbers.next() == Some(number))
    }

    /// The first version that `~=`, `^` or `~` no longer allows: the number at `index` is one higher.
    fn bumped(&self, index: usize) -> Self {
        let mut release: Vec<u64> = self.release.iter().copied().take(index + 1).collect();
        release.resize(index + 1, 0);
        release[index] += 1;
        Self {
            epoch: self.epoch,
            release,
            pre: None,
            post: None,
            // Before every pre-release of that version too.
            dev: Some(0),
            local: None,
        }
    }
}

fn digits(text: &str) -> (u64, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    (text[..end].parse().unwrap_or(0), &text[end..])
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let trimmed = |version: &Self| {
            let mut release = version.release.clone();
            while release.last() == Some(&0) {
                release.pop();
            }
            release
        };
        // dev < a < b < rc < final < post
        let stage = |version: &Self| match (version.pre, version.post, version.dev) {
            (None, None, Some(_)) => (0, 0, 0),
            (Some((kind, number)), _, _) => (1, kind, number),
            (None, _, _) => (2, 0, 0),
        };
        let post = |version: &Self| version.post.map_or(0, |number| number + 1);
        let dev = |version: &Self| version.dev.unwrap_or(u64::MAX);
        let local = |version: &Self| {
            version.local.as_deref().map(|local| {
                local
                    .split(['.', '-', '_'])
                    .map(|part| {
                        part.parse::<u64>()
                            .map_or((0, 0, part.to_owned()), |number| (1, number, String::new()))
                    })
                    .collect::<Vec<_>>()
            })
        };
        (
            self.epoch,
            trimmed(self),
            stage(self),
            post(self),
            dev(self),
        )
            .cmp(&(
                other.epoch,
                trimmed(other),
                stage(other),
                post(other),
                dev(other),
            ))
            .then_with(|| local(self).cmp(&local(other)))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Whether a version is one of those that `wanted` allows (`>=1,<2`, `^1.2 || ~3`, `1.*`); `None` if `wanted` cannot
/// be read.
pub fn allows(wanted: &str, version: &Version) -> Option<bool> {
    let mut any = false;
    for alternative in wanted.split("||").flat_map(|part| part.split(" | ")) {
        let mut all = true;
        for one in clauses(alternative) {
            all &= allows_one(&one, version)?;
        }
        any |= all;
    }
    Some(any)
}

/// `>= 1, <2` and `>=1 <2` are the same two clauses.
fn clauses(text: &str) -> Vec<String> {
    let mut clauses: Vec<String> = Vec::new();
    for word in text.split([',', ' ']).filter(|word| !word.is_empty()) {
        match clauses.last_mut() {
            Some(last) if last.ends_with(['=', '<', '>', '^', '~', '!']) => last.push_str(word),
            _ => clauses.push(word.to_owned()),
        }
    }
    clauses
}

fn allows_one(clause: &str, version: &Version) -> Option<bool> {
    if clause == "*" {
        return Some(true);
    }
    let end = clause
        .find(|c: char| !"=<>!~^".contains(c))
        .unwrap_or(clause.len());
    let (operator, written) = clause.split_at(end);
    if operator == "===" {
        return Some(written.parse::<Version>().ok()? == *version);
    }
    if let Some(prefix) = written.strip_suffix(".*") {
        let matches = version.has_prefix(&prefix.parse().ok()?);
        return match operator {
            "" | "==" => Some(matches),
            "!=" => Some(!matches),
            _ => None,
        };
    }
    let wanted: Version = written.parse().ok()?;
    // What follows `+` counts only where it is asked for.
    let version = &if wanted.local.is_some() {
        version.clone()
    } else {
        version.public()
    };
    Some(match operator {
        "" | "==" => version == &wanted || version.cmp(&wanted) == Ordering::Equal,
        "!=" => version.cmp(&wanted) != Ordering::Equal,
        "<=" => version <= &wanted,
        ">=" => version >= &wanted,
        "<" => {
            version < &wanted
                && (wanted.is_pre_release()
                    || !version.is_pre_release()
                    || version.public().release != wanted.release)
        }
        ">" => {
            version > &wanted
                && (wanted.post.is_some()
                    || version.post.is_none()
                    || version.release != wanted.release)
        }
        "~=" => {
            let last = wanted.release.len().checked_sub(2)?;
            version >= &wanted && *version < wanted.bumped(last)
        }
        "~" => {
            version >= &wanted && *version < wanted.bumped(usize::from(wanted.release.len() > 1))
        }
        "^" => {
            let first = wanted.release.iter().position(|number| *number != 0);
            let first = first.unwrap_or(wanted.release.len() - 1);
            version >= &wanted && *version < wanted.bumped(first)
        }
        _ => return None,
    })
}

/// A constraint of Poetry as one of PEP 508: `^1.2` becomes `>=1.2,<2`; `None` if it has no such form.
pub fn as_pep440(wanted: &str) -> Option<String> {
    if wanted.contains("||") {
        return None;
    }
    let mut written = Vec::new();
    for clause in clauses(wanted) {
        let (operator, text) = clause.split_at(clause.find(|c: char| !"=<>!~^".contains(c))?);
        let range = |index: usize| -> Option<String> {
            let version: Version = text.parse().ok()?;
            let end = version.bumped(index);
            let end: Vec<String> = end.release.iter().map(u64::to_string).collect();
            Some(format!(">={text},<{}", end.join(".")))
        };
        let release = |text: &str| text.parse::<Version>().ok().map(|version| version.release);
        written.push(match operator {
            _ if clause == "*" => continue,
            "" => format!("=={text}"),
            "^" => {
                let numbers = release(text)?;
                let first = numbers.iter().position(|number| *number != 0);
                range(first.unwrap_or(numbers.len() - 1))?
            }
            "~" => range(usize::from(release(text)?.len() > 1))?,
            _ => clause.clone(),
        });
    }
    Some(written.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_ordered_as_pep_440_says() {
        let ordered = [
            "1.0.dev1",
            "1.0a1.dev1",
            "1.0a1",
            "1.0b2",
            "1.0rc1",
            "1.0",
            "1.0+cpu",
            "1.0+cu118",
            "1.0.post1",
            "1.1.dev0",
            "1.1",
            "1.10",
            "2",
            "1!0.1",
        ];
        for pair in ordered.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
        }
        assert_eq!(version("1.0").cmp(&version("1.0.0")), Ordering::Equal);
        assert_eq!(version("v1.0-1"), version("1.0.post1"));
        for wrong in ["", "x", "1.x", "1+", "1.0zeta"] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_allowed_is_read_in_every_spelling() {
        for (wanted, text, expected) in [
            (">=1,<2", "1.5", true),
            (">= 1.0 , < 2", "2.0", false),
            (">=1 <2", "1.9", true),
            ("==1.4.*", "1.4.9", true),
            ("!=1.4.*", "1.4.9", false),
            ("1.2", "1.2.0", true),
            ("~=1.4.2", "1.4.9", true),
            ("~=1.4.2", "1.5", false),
            ("^1.2", "1.9", true),
            ("^1.2", "2.0a1", false),
            ("^0.2.3", "0.2.9", true),
            ("^0.2.3", "0.3", false),
            ("~1.2", "1.2.7", true),
            ("~1", "1.9", true),
            ("~1.2", "1.3", false),
            ("<3.9 || >=3.11", "3.11.7", true),
            ("*", "7", true),
            ("==2.3.1", "2.3.1+cu118", true),
            ("==2.3.1+cu121", "2.3.1+cu118", false),
            (">1.0", "1.0.post1", false),
            ("<1.0", "1.0rc1", false),
        ] {
            assert_eq!(
                allows(wanted, &version(text)),
                Some(expected),
                "{wanted} {text}"
            );
        }
        assert_eq!(allows("what", &version("1")), None);
    }

    #[test]
    fn poetrys_own_signs_have_a_plain_form() {
        for (wanted, plain) in [
            ("^1.2", ">=1.2,<2"),
            ("^0.0.3", ">=0.0.3,<0.0.4"),
            ("~1.2.3", ">=1.2.3,<1.3"),
            ("*", ""),
            ("1.0", "==1.0"),
            (">=1, <2", ">=1,<2"),
        ] {
            assert_eq!(as_pep440(wanted).as_deref(), Some(plain), "{wanted}");
        }
        assert_eq!(as_pep440("^1 || ^2"), None);
    }
}
