//! The image's Python: where it is, and what it is.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::marker::Facts;
use crate::exec::digest::hex;
use crate::exec::failure::Failure;
use crate::exec::tool::Log;

/// A Python that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interpreter {
    /// As found in `PATH`.
    pub program: PathBuf,
    /// As in `3.11.7`.
    pub version: String,
    /// The packages of the image's own virtual environment, which one made from it would not see.
    pub packages: Option<PathBuf>,
    /// All that decides on which packages fit and which are needed: real path, version, ABI, platform, C library, and
    /// the packages that are there.
    pub identity: String,
    /// What requirement markers ask about.
    pub facts: Facts,
}

/// The version, the rest of the identity, then the folders in which packages are looked for.
const QUESTION: &str = "import json, os, platform, sys
print('%d.%d.%d' % sys.version_info[:3])
print(sys.implementation.cache_tag, platform.machine(), sys.platform, '-'.join(platform.libc_ver()))
print(json.dumps(dict(os_name=os.name, sys_platform=sys.platform, platform_machine=platform.machine(),
    platform_python_implementation=platform.python_implementation(), platform_release=platform.release(),
    platform_system=platform.system(), platform_version=platform.version(), python_version='%d.%d' % sys.version_info[:2],
    python_full_version=platform.python_version(), implementation_name=sys.implementation.name,
    implementation_version=platform.python_version())))
print('\\n'.join(path for path in sys.path if path.endswith('-packages')))";

impl Interpreter {
    /// Asks the program what it is.
    pub(super) async fn probe(program: &Path) -> Result<Self, Failure> {
        let failed = |why: &str| {
            Failure::new(format!(
                "the image's Python {} does not run: {why}",
                program.display()
            ))
            .hint("check the image: python3 -c 'print(1)'")
        };
        let mut command = Command::new(program);
        command
            .args(["-I", "-c", QUESTION])
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        let answer = tokio::time::timeout(Duration::from_secs(30), command.output())
            .await
            .map_err(|_| failed("no answer within 30 s"))?
            .map_err(|error| failed(&error.to_string()))?;
        let text = String::from_utf8_lossy(&answer.stdout);
        let mut lines = text.lines();
        match (lines.next(), lines.next(), lines.next()) {
            (Some(version), Some(rest), Some(facts)) if answer.status.success() => {
                let real = program
                    .canonicalize()
                    .unwrap_or_else(|_| program.to_owned());
                let folders: Vec<PathBuf> = lines.map(PathBuf::from).collect();
                let held = held(&folders);
                Ok(Self {
                    program: program.to_owned(),
                    version: version.to_owned(),
                    packages: own_packages(program, version),
                    facts: serde_json::from_str(facts).unwrap_or_default(),
                    identity: format!("{} {version} {rest} {folders:?} {held}", real.display()),
                })
            }
            _ => Err(failed(
                String::from_utf8_lossy(&answer.stderr)
                    .lines()
                    .last()
                    .unwrap_or("no answer"),
            )),
        }
    }
}

/// A short name for the set of packages in these folders: the descriptions that installers leave there.
fn held(folders: &[PathBuf]) -> String {
    let mut names = BTreeSet::new();
    for entry in folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        if [".dist-info", ".egg-info", ".egg-link"]
            .iter()
            .any(|kind| name.ends_with(kind))
        {
            names.insert(name);
        }
    }
    let mut hash = Sha256::new();
    for name in names {
        hash.update(name);
        hash.update("\n");
    }
    hex(&hash.finalize()[..8])
}

/// Where the virtual environment that a program belongs to keeps its packages (PEP 405).
fn own_packages(program: &Path, version: &str) -> Option<PathBuf> {
    let prefix = program.parent()?.parent()?;
    let minor: Vec<&str> = version.split('.').take(2).collect();
    let packages = prefix.join(format!("lib/python{}/site-packages", minor.join(".")));
    (prefix.join("pyvenv.cfg").is_file() && packages.is_dir()).then_some(packages)
}

/// The Python to use: `LOCAL_PYTHON`, the recorded version, else what the image calls Python. Nothing is started.
pub(super) fn find(
    wanted: Option<&str>,
    local: Option<&str>,
    path: &str,
    log: &mut Log<'_>,
) -> Option<PathBuf> {
    if let Some(local) = local.filter(|local| !local.is_empty()) {
        match find_program(local, path) {
            Some(found) => return Some(found),
            None => log(&format!(
                "{local} is not in the image, though LOCAL_PYTHON, agent.python_binary or \
                 CLEARML_AGENT_SKIP_PIP_VENV_INSTALL names it"
            )),
        }
    }
    if let Some(version) = wanted {
        let minor = version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
        if let Some(found) = find_program(&format!("python{minor}"), path) {
            return Some(found);
        }
    }
    let found = ["python3", "python"]
        .iter()
        .find_map(|name| find_program(name, path));
    if let (Some(version), Some(found)) = (wanted, &found) {
        log(&format!(
            "the image has no python{version}, as the task was recorded with: using {}",
            found.display()
        ));
    }
    found
}

/// The first executable file of that name in `path`; a name with a slash stands for itself.
pub fn find_program(name: &str, path: &str) -> Option<PathBuf> {
    let runs = |file: &Path| {
        std::fs::metadata(file)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|file| runs(file));
    }
    path.split(':')
        .filter(|folder| folder.starts_with('/'))
        .map(|folder| Path::new(folder).join(name))
        .find(|file| runs(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(programs: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in programs {
            let file = folder.path().join(name);
            std::fs::write(&file, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        folder
    }

    fn found(
        programs: &[&str],
        wanted: Option<&str>,
        local: Option<&str>,
    ) -> (Option<String>, Vec<String>) {
        let image = image(programs);
        let mut notes = Vec::new();
        let found = find(wanted, local, image.path().to_str().unwrap(), &mut |line| {
            notes.push(line.to_owned());
        });
        (
            found.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()),
            notes,
        )
    }

    #[test]
    fn the_recorded_version_is_preferred_and_its_lack_is_told() {
        let both = ["python3", "python3.11"];
        assert_eq!(
            found(&both, Some("3.11.7"), None).0.as_deref(),
            Some("python3.11")
        );
        let (name, notes) = found(&both, Some("3.12"), None);
        assert_eq!((name.as_deref(), notes.len()), (Some("python3"), 1));
        assert_eq!(
            found(&["python"], None, None),
            (Some("python".to_owned()), vec![])
        );
        assert_eq!(found(&[], Some("3.12"), None), (None, vec![]));
    }

    #[test]
    fn local_python_wins_if_it_is_there() {
        assert_eq!(
            found(&["python3", "mine"], Some("3.11"), Some("mine"))
                .0
                .as_deref(),
            Some("mine")
        );
        assert_eq!(found(&["python3"], None, Some("mine")).1.len(), 1);
    }

    #[tokio::test]
    async fn what_is_no_python_is_named() {
        let image = image(&["python3"]);
        let failure = Interpreter::probe(&image.path().join("python3"))
            .await
            .unwrap_err();
        assert!(
            failure.to_string().contains("does not run: no answer"),
            "{failure}"
        );
    }
}
