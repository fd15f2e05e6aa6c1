//! What an installer gets: standard input, and files where that does not suffice.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use super::list::package_name;
use super::marker::{Facts, holds};
use super::torch;
use crate::exec::failure::Failure;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The arguments that name requirements, and standard input.
pub(super) struct Inputs {
    pub arguments: Vec<OsString>,
    pub text: String,
}

impl Inputs {
    /// `text` is the list. PyTorch's part of it comes from `torch_index` alone, which only a project file can say;
    /// `is_page`: that is a page of links.
    pub(super) fn new(
        text: &str,
        torch_index: Option<&str>,
        is_page: bool,
        constraints: &str,
        own: &Path,
    ) -> Result<Self, Failure> {
        let mut inputs = Self {
            arguments: Vec::new(),
            text: text.to_owned(),
        };
        if let Some(index) = torch_index {
            let (family, rest): (Vec<&str>, Vec<&str>) =
                text.lines().partition(|line| torch::is_family(line));
            let file = file(own, "pyproject.toml", &project(&family, index, is_page))?;
            inputs.arguments.extend(["-r".into(), file]);
            inputs.text = rest.iter().flat_map(|line| [*line, "\n"]).collect();
        }
        if !constraints.trim().is_empty() {
            let file = file(own, "constraints.txt", constraints)?;
            inputs.arguments.extend(["-c".into(), file]);
        }
        inputs.arguments.extend(["-r".into(), "-".into()]);
        Ok(inputs)
    }

    /// Requirements that stand in place of whatever a package asks for under these names.
    pub(super) fn overrides(&mut self, overrides: &str, own: &Path) -> Result<(), Failure> {
        if !overrides.is_empty() {
            let file = file(own, "overrides.txt", overrides)?;
            self.arguments.extend(["--overrides".into(), file]);
        }
        Ok(())
    }
}

/// A project that asks for these lines, each from this index, or page of links.
fn project(lines: &[&str], index: &str, is_page: bool) -> String {
    let format = if is_page { "flat" } else { "simple" };
    let mut text = format!(
        "[project]\nname = \"trainyard-torch\"\nversion = \"0\"\ndependencies = {lines:?}\n\
         [[tool.uv.index]]\nname = \"torch\"\nurl = {index:?}\nformat = {format:?}\nexplicit = true\n\
         [tool.uv.sources]\n"
    );
    let names: BTreeSet<String> = lines.iter().map(|line| package_name(line)).collect();
    for name in names {
        let _ = writeln!(text, "{name} = {{ index = \"torch\" }}");
    }
    text
}

/// Writes a file that an argument names.
pub(super) fn file(own: &Path, name: &str, text: &str) -> Result<OsString, Failure> {
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = own.join(format!("inputs-{}-{number}", std::process::id()));
    let path = folder.join(name);
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(&path, text))
        .map_err(|error| Failure::new(format!("could not write {}: {error}", path.display())))?;
    Ok(path.into_os_string())
}

/// The pip that is asked for: the first of `agent.package_manager.pip_version` whose marker holds.
pub(super) fn pip_requirement(versions: &[String], facts: &Facts) -> String {
    let asked = versions.iter().find_map(|version| {
        let (version, marker) = version.split_once(';').unwrap_or((version, ""));
        let counts =
            marker.trim().is_empty() || holds(marker, facts, &BTreeSet::new()) == Some(true);
        counts.then(|| version.trim().to_owned())
    });
    match asked {
        Some(version) if version.is_empty() => "pip".to_owned(),
        Some(version) if version.starts_with(|c: char| c.is_ascii_digit()) => {
            format!("pip=={version}")
        }
        Some(version) => format!("pip{version}"),
        None => "pip".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn pytorch_alone_goes_to_its_index() {
        let own = tempfile::tempdir().unwrap();
        let text = "numpy\ntorch==2.3.1\ntorchvision\n";
        let index = Some("http://whl/cu118");
        let inputs = Inputs::new(text, index, false, "six<2", own.path()).unwrap();
        assert_eq!(inputs.text, "numpy\n");
        let project = std::fs::read_to_string(&inputs.arguments[1]).unwrap();
        let table: toml::Table = project.parse().unwrap();
        assert_eq!(
            table["project"]["dependencies"][0].as_str(),
            Some("torch==2.3.1")
        );
        assert_eq!(
            table["tool"]["uv"]["index"][0]["url"].as_str(),
            Some("http://whl/cu118")
        );
        assert_eq!(
            table["tool"]["uv"]["sources"]["torchvision"]["index"].as_str(),
            Some("torch")
        );
        let format = |is_page| {
            let inputs = Inputs::new(text, index, is_page, "", own.path()).unwrap();
            let project = std::fs::read_to_string(&inputs.arguments[1]).unwrap();
            let table: toml::Table = project.parse().unwrap();
            let format = table["tool"]["uv"]["index"][0]["format"].as_str();
            format.map(str::to_owned)
        };
        assert_eq!(format(false).as_deref(), Some("simple"));
        assert_eq!(format(true).as_deref(), Some("flat"));
        assert_eq!(
            std::fs::read_to_string(&inputs.arguments[3]).unwrap(),
            "six<2"
        );
        assert_eq!(
            Inputs::new(text, None, false, "", own.path())
                .unwrap()
                .arguments
                .len(),
            2
        );
    }

    #[test]
    fn the_version_of_pip_follows_the_python() {
        let facts: BTreeMap<String, String> =
            [("python_version".to_owned(), "3.11".to_owned())].into();
        let of = |versions: &[&str]| {
            let versions: Vec<String> = versions
                .iter()
                .map(|version| (*version).to_owned())
                .collect();
            pip_requirement(&versions, &facts)
        };
        assert_eq!(
            of(&[
                "<20.2 ; python_version < '3.10'",
                "<22.3 ; python_version >= '3.10'"
            ]),
            "pip<22.3"
        );
        assert_eq!(of(&["23.1"]), "pip==23.1");
        assert_eq!(of(&[]), "pip");
    }
}
