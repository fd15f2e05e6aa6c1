//! PURE: which build of PyTorch suits this machine's CUDA version, and where it is.
//!
//! ```text
//! torch, torchvision, torchaudio of the list ─┬─ what the package index has suits ──▶ as it is
//! CUDA of driver or settings ─────────────────┴─ it does not ──▶ the newest build that does, from PyTorch's own index;
//!                                                                where that has none, the list as it is, and a remark
//! ```
//!
//! The tables are those of PyTorch's releases. What is chosen is always told, with the reason.

use super::list::package_name;
use super::version::Version;
use crate::exec::failure::masked;

/// Packages that are built for one CUDA version and have to agree on it.
const FAMILY: [&str; 5] = [
    "torch",
    "torchvision",
    "torchaudio",
    "torchtext",
    "torchcsprng",
];

/// `torch` release, the builds that PyTorch's index holds, and the one that PyPI holds.
const RELEASES: [((u64, u64), &[u32], u32); 22] = [
    ((1, 7), &[92, 101, 102, 110], 102),
    ((1, 8), &[101, 102, 111], 102),
    ((1, 9), &[102, 111], 102),
    ((1, 10), &[102, 111, 113], 102),
    ((1, 11), &[102, 113, 115], 102),
    ((1, 12), &[102, 113, 116], 102),
    ((1, 13), &[116, 117], 117),
    ((2, 0), &[117, 118], 117),
    ((2, 1), &[118, 121], 121),
    ((2, 2), &[118, 121], 121),
    ((2, 3), &[118, 121], 121),
    ((2, 4), &[118, 121, 124], 121),
    ((2, 5), &[118, 121, 124], 124),
    ((2, 6), &[118, 124, 126], 124),
    ((2, 7), &[118, 126, 128], 126),
    ((2, 8), &[126, 128, 129], 128),
    ((2, 9), &[126, 128, 130], 128),
    ((2, 10), &[126, 128, 130], 128),
    ((2, 11), &[126, 128, 130], 130),
    ((2, 12), &[126, 130, 132], 130),
    ((2, 13), &[126, 130, 132], 130),
    ((2, 14), &[126, 130, 132], 132),
];

/// What this machine runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cuda {
    /// 124 for CUDA 12.4; 0 where there is no GPU.
    pub version: u32,
    /// Where that is known from: `driver`, `agent.cuda_version`, ...
    pub source: String,
}

impl Cuda {
    /// `12.4`, `12.4.1` and `124` are the same; 0 and "" mean no GPU.
    pub fn parse(text: &str) -> Option<u32> {
        let text = text.trim();
        let mut parts = text.split('.');
        let first = parts.next()?;
        if let Some(minor) = parts.next() {
            let (major, minor): (u32, u32) = (first.parse().ok()?, minor.parse().ok()?);
            return (major < 100 && minor < 10).then_some(major * 10 + minor);
        }
        let number: u32 = first.parse().ok()?;
        match number {
            0 | 50..=999 => Some(number),
            1..50 => Some(number * 10),
            _ => None,
        }
    }

    /// The version and where it is known from, in words.
    fn told(&self) -> String {
        if self.version == 0 {
            format!("there is no GPU here ({})", self.source)
        } else {
            format!("CUDA {} ({})", dotted(self.version), self.source)
        }
    }
}

/// One way to install the family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Requirements of the family; the rest of the list is as it was.
    pub lines: Vec<String>,
    /// The index that alone may answer for them.
    pub index: Option<String>,
    /// What the log says once it has worked.
    pub note: String,
}

/// Whether a requirement is for one of the family.
pub fn is_family(line: &str) -> bool {
    FAMILY.contains(&package_name(line).as_str())
}

/// What of the family an environment holds that was made for an earlier task; nothing if it holds none.
pub fn found(installed: &[String], cuda: &Cuda) -> Option<String> {
    let family: Vec<&str> = installed
        .iter()
        .map(String::as_str)
        .filter(|line| is_family(line))
        .collect();
    let machine = cuda.told();
    (!family.is_empty()).then(|| {
        let family = family.join(", ");
        format!(
            "PyTorch: {family}, as it was chosen for an earlier task with the same list; {machine}"
        )
    })
}

/// What to try, the best first; empty if there is nothing to choose.
pub fn attempts(list: &[&str], cuda: &Cuda, template: Option<&str>) -> Vec<Attempt> {
    let family: Vec<&str> = list
        .iter()
        .copied()
        .filter(|line| is_family(line))
        .collect();
    if family.is_empty() || family.iter().any(|line| line.contains('@')) {
        return Vec::new();
    }
    let asked = family.iter().find_map(|line| build(line));
    let release = family.iter().find_map(|line| release(line));
    let known = release.and_then(|release| RELEASES.iter().find(|known| known.0 == release));
    let what = family.first().map_or("torch", |line| *line);
    let machine = cuda.told();
    let as_written = |note: String| Attempt {
        lines: family.iter().map(|line| (*line).to_owned()).collect(),
        index: None,
        note,
    };
    let Some(template) = template else {
        return vec![as_written(format!(
            "PyTorch: {what} as the package index has it; {machine}, and no index of PyTorch is at hand to choose from"
        ))];
    };
    let at = |build: &str, lines: Vec<String>, note: String| Attempt {
        lines,
        index: Some(template.replace("{}", build)),
        note,
    };
    let plain: Vec<String> = family.iter().map(|line| without_build(line)).collect();
    // A release beyond the table has most likely the builds of the last one in it.
    let like = known.or_else(|| RELEASES.last().filter(|last| release > Some(last.0)));
    let builds: Vec<u32> = like.map_or_else(
        || {
            RELEASES
                .iter()
                .flat_map(|known| known.1.iter().copied())
                .collect()
        },
        |like| like.1.to_vec(),
    );
    let mut attempts = Vec::new();
    match asked.as_deref() {
        Some("cpu") => attempts.push(at(
            "cpu",
            plain.clone(),
            format!("PyTorch: {what} for the CPU, as the task asks for"),
        )),
        Some(asked) if suits(asked, cuda.version) => attempts.push(at(
            asked,
            plain.clone(),
            format!("PyTorch: {what} as the task asks for; it suits {machine}"),
        )),
        None if known.is_some_and(|known| cuda.version > 0 && known.2 <= cuda.version) => {
            let own = known.map_or(0, |known| known.2);
            return vec![as_written(format!(
                "PyTorch: {what} as the package index has it, built for CUDA {}; it suits {machine}",
                dotted(own)
            ))];
        }
        // What is made each night is at PyTorch's own index alone.
        None if known.is_none() && cuda.version >= newest() && !template.contains("/nightly/") => {
            return vec![as_written(format!(
                "PyTorch: {what} as the package index has it; {machine}"
            ))];
        }
        _ => {}
    }
    if attempts.is_empty() {
        for build in fitting(&builds, cuda.version) {
            let name = if build == 0 {
                "cpu".to_owned()
            } else {
                format!("cu{build}")
            };
            let chosen = if build == 0 {
                "the build for the CPU".to_owned()
            } else {
                format!("the build for CUDA {}", dotted(build))
            };
            let instead = asked
                .as_ref()
                .map(|asked| format!(" instead of {asked}"))
                .unwrap_or_default();
            let note = format!("PyTorch: {chosen} of {what} is installed{instead}, as {machine}");
            attempts.push(at(&name, plain.clone(), note));
        }
    }
    let at_hand = format!(
        "PyTorch: {what} is installed as the task lists it from the package index; {machine}, but no build for that was \
         found at {}",
        masked(&template.replace("{}", "cu*"))
    );
    attempts.push(as_written(at_hand));
    attempts
}

/// Builds that run with `cuda`, the best first. Within a major version a driver also runs what is newer than itself.
fn fitting(builds: &[u32], cuda: u32) -> Vec<u32> {
    if cuda == 0 {
        return vec![0];
    }
    let mut fitting: Vec<u32> = builds
        .iter()
        .copied()
        .filter(|build| *build <= cuda)
        .collect();
    fitting.sort_unstable_by(|a, b| b.cmp(a));
    fitting.dedup();
    fitting.truncate(4);
    if fitting.is_empty() {
        fitting.extend(
            builds
                .iter()
                .filter(|build| **build / 10 == cuda / 10)
                .min(),
        );
    }
    if fitting.is_empty() {
        fitting.push(0);
    }
    fitting
}

fn newest() -> u32 {
    RELEASES.iter().map(|known| known.2).max().unwrap_or(0)
}

fn suits(build: &str, cuda: u32) -> bool {
    let number: Option<u32> = build
        .strip_prefix("cu")
        .and_then(|number| number.parse().ok());
    number.is_some_and(|number| cuda > 0 && number <= cuda)
}

fn dotted(cuda: u32) -> String {
    format!("{}.{}", cuda / 10, cuda % 10)
}

/// The version that a line pins.
fn pinned(line: &str) -> Option<Version> {
    let (_, rest) = line.split_once("==")?;
    let text = rest.split([',', ';', ' ']).find(|text| !text.is_empty())?;
    text.trim_end_matches(".*").parse().ok()
}

fn build(line: &str) -> Option<String> {
    pinned(line)?
        .local
        .filter(|local| local == "cpu" || local.starts_with("cu"))
}

/// The release of torch that a line of the family belongs to.
fn release(line: &str) -> Option<(u64, u64)> {
    let (major, minor) = pinned(line)?.minor();
    match package_name(line).as_str() {
        "torch" | "torchaudio" if major > 0 && (major, minor) != (0, 0) => Some((major, minor)),
        "torchvision" if major == 0 && minor >= 15 => Some((2, minor - 15)),
        "torchvision" if major == 0 && minor >= 8 => Some((1, minor - 1)),
        _ => None,
    }
}

fn without_build(line: &str) -> String {
    match build(line) {
        Some(build) => line.replacen(&format!("+{build}"), "", 1),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "http://whl/{}";

    fn first(list: &[&str], cuda: u32) -> (String, Option<String>, String) {
        let cuda = Cuda {
            version: cuda,
            source: "driver".into(),
        };
        let attempt = attempts(list, &cuda, Some(TEMPLATE))
            .into_iter()
            .next()
            .expect("an attempt");
        (attempt.lines.join(" "), attempt.index, attempt.note)
    }

    #[test]
    fn the_build_that_suits_the_driver_is_chosen() {
        for (line, cuda, expected, index) in [
            ("torch==2.3.1", 124, "torch==2.3.1", None),
            ("torch==2.3.1", 118, "torch==2.3.1", Some("cu118")),
            ("torch==2.3.1", 0, "torch==2.3.1", Some("cpu")),
            ("torch==2.3.1+cu121", 124, "torch==2.3.1", Some("cu121")),
            ("torch==2.3.1+cu121", 118, "torch==2.3.1", Some("cu118")),
            ("torch==2.3.1+cu121", 120, "torch==2.3.1", Some("cu118")),
            ("torch==2.3.1+cu121", 0, "torch==2.3.1", Some("cpu")),
            ("torch==2.3.1+cpu", 124, "torch==2.3.1", Some("cpu")),
            ("torch==2.8.0", 122, "torch==2.8.0", Some("cu126")),
            ("torch==2.8.0", 118, "torch==2.8.0", Some("cpu")),
            ("torch==2.7.0", 118, "torch==2.7.0", Some("cu118")),
            ("torch", 118, "torch", Some("cu118")),
            ("torch>=2", 130, "torch>=2", Some("cu130")),
            ("torch>=2", 132, "torch>=2", None),
            ("torch==2.10.0", 128, "torch==2.10.0", None),
            ("torch==2.10.0", 127, "torch==2.10.0", Some("cu126")),
            ("torch==2.11.0", 128, "torch==2.11.0", Some("cu128")),
            ("torch==2.12.1", 128, "torch==2.12.1", Some("cu126")),
            ("torch==2.14.0", 131, "torch==2.14.0", Some("cu130")),
            ("torch==2.14.0", 132, "torch==2.14.0", None),
            ("torch==1.13.1", 116, "torch==1.13.1", Some("cu116")),
            ("torch==2.6.*", 125, "torch==2.6.*", None),
            (
                "torchvision==0.18.1",
                118,
                "torchvision==0.18.1",
                Some("cu118"),
            ),
            ("torchaudio==2.1.0", 118, "torchaudio==2.1.0", Some("cu118")),
            (
                "torch == 2.3.1+cu121 ; python_version>'3'",
                118,
                "torch == 2.3.1 ; python_version>'3'",
                Some("cu118"),
            ),
        ] {
            let (lines, found, note) = first(&[line], cuda);
            assert_eq!(lines, expected, "{line} {cuda}");
            assert_eq!(
                found.as_deref(),
                index.map(|index| format!("http://whl/{index}")).as_deref(),
                "{line} {cuda}"
            );
            assert!(note.starts_with("PyTorch: "), "{note}");
        }
    }

    #[test]
    fn a_release_beyond_the_table_is_taken_to_have_the_builds_of_the_last() {
        for (line, cuda, index) in [
            ("torch==2.99.0", 125, Some("http://whl/cu126")),
            ("torch==2.99.0", 128, Some("http://whl/cu126")),
            ("torch==3.0.0", 130, Some("http://whl/cu130")),
            ("torch==2.99.0", 0, Some("http://whl/cpu")),
            // What its package index holds is unknown, and so new a driver most likely runs it.
            ("torch==2.99.0", 132, None),
        ] {
            let (lines, found, _) = first(&[line], cuda);
            assert_eq!((lines.as_str(), found.as_deref()), (line, index), "{cuda}");
        }
    }

    #[test]
    fn the_whole_family_comes_from_one_index() {
        let (lines, index, note) = first(
            &["numpy", "torchvision==0.18.1+cu121", "torch==2.3.1+cu121"],
            118,
        );
        assert_eq!(lines, "torchvision==0.18.1 torch==2.3.1");
        assert_eq!(index.as_deref(), Some("http://whl/cu118"));
        assert_eq!(
            note,
            "PyTorch: the build for CUDA 11.8 of torchvision==0.18.1+cu121 is installed instead of cu121, as CUDA 11.8 (driver)"
        );
    }

    #[test]
    fn what_is_made_each_night_comes_from_its_own_index() {
        let cuda = Cuda {
            version: 132,
            source: "driver".into(),
        };
        let all = attempts(&["torch"], &cuda, Some("http://whl/nightly/{}"));
        assert_eq!(all[0].index.as_deref(), Some("http://whl/nightly/cu132"));
        let all = attempts(&["torch"], &cuda, Some(TEMPLATE));
        assert_eq!(all[0].index, None);
    }

    #[test]
    fn the_list_as_it_is_comes_last_and_alone_without_an_index() {
        let cuda = Cuda {
            version: 118,
            source: "driver".into(),
        };
        let all = attempts(&["torch==2.3.1"], &cuda, Some(TEMPLATE));
        assert_eq!(all.len(), 2);
        assert!(all[1].index.is_none() && all[1].note.contains("no build for that"));
        let with_password = Some("https://u:canary@whl/{}");
        let all = attempts(&["torch==2.3.1"], &cuda, with_password);
        let told = &all[1].note;
        assert!(told.ends_with("found at https://***@whl/cu*"), "{told}");
        let alone = attempts(&["torch==2.3.1"], &cuda, None);
        assert_eq!((alone.len(), alone[0].index.as_ref()), (1, None));
        assert!(attempts(&["numpy"], &cuda, Some(TEMPLATE)).is_empty());
        assert!(attempts(&["torch @ http://x/torch.whl"], &cuda, Some(TEMPLATE)).is_empty());
    }

    #[test]
    fn cuda_versions_are_read_in_every_form() {
        for (text, expected) in [
            ("12.4", Some(124)),
            ("12.4.1", Some(124)),
            ("112", Some(112)),
            ("11", Some(110)),
            ("0", Some(0)),
            ("13.0", Some(130)),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(Cuda::parse(text), expected, "{text}");
        }
    }
}
