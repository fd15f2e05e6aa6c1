//! Is an environment as it was made? And: may it be changed?
//!
//! | who installed a package | what says how large its files have to be                                          |
//! |-------------------------|-----------------------------------------------------------------------------------|
//! | uv, pip                 | `RECORD` in its `*.dist-info`                                                     |
//! | conda                   | its record in `conda-meta`; the `RECORD` beside it is that of the building machine |

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// How many files of an environment are looked at before it is used; a large one is sampled evenly.
pub(super) const LOOKS: usize = 4000;

/// What conda writes of a package that it has installed.
#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    paths_data: Paths,
}

#[derive(Default, Deserialize)]
struct Paths {
    #[serde(default)]
    paths: Vec<Packed>,
}

/// A file of such a package.
#[derive(Deserialize)]
struct Packed {
    #[serde(rename = "_path")]
    path: PathBuf,
    path_type: Option<String>,
    size_in_bytes: Option<u64>,
    prefix_placeholder: Option<String>,
    sha256: Option<String>,
    sha256_in_prefix: Option<String>,
}

impl Packed {
    /// Whether it lies there as it was packed. A file that names its environment does not, and Python may write its own
    /// `.pyc` in place of one.
    fn is_unchanged(&self) -> bool {
        self.path_type.as_deref() == Some("hardlink")
            && self.prefix_placeholder.is_none()
            && (self.sha256_in_prefix.is_none() || self.sha256_in_prefix == self.sha256)
            && !has_extension(&self.path, "pyc")
    }
}

/// What describes the packages of an environment, relative to it.
pub(super) fn packages(environment: &Path) -> Vec<PathBuf> {
    let mut packages = of_conda(environment);
    let described = dist_infos(environment).into_iter();
    packages.extend(described.filter(|package| installer(&environment.join(package)) != "conda"));
    packages
}

/// The same of what uv has installed.
pub(super) fn of_uv(environment: &Path) -> Vec<PathBuf> {
    let mut packages = dist_infos(environment);
    packages.retain(|package| installer(&environment.join(package)) == "uv");
    packages
}

/// The same of what conda has.
pub(super) fn of_conda(environment: &Path) -> Vec<PathBuf> {
    below(environment, Path::new("conda-meta"), "json")
}

fn dist_infos(environment: &Path) -> Vec<PathBuf> {
    let versions = fs::read_dir(environment.join("lib"));
    let mut packages: Vec<PathBuf> = versions
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| {
            Path::new("lib")
                .join(version.file_name())
                .join("site-packages")
        })
        .flat_map(|site| below(environment, &site, "dist-info"))
        .collect();
    packages.sort();
    packages
}

/// What has this extension in a folder of the environment.
fn below(environment: &Path, folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(environment.join(folder));
    let paths = entries.into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = paths
        .map(|entry| folder.join(entry.file_name()))
        .filter(|path| has_extension(path, extension))
        .collect();
    paths.sort();
    paths
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

fn installer(package: &Path) -> String {
    let name = fs::read_to_string(package.join("INSTALLER")).unwrap_or_default();
    name.trim().to_owned()
}

/// The packages of which files are missing or have another size than is said of them. So many files are looked at.
pub(super) fn broken(environment: &Path, packages: &[PathBuf], looks: usize) -> BTreeSet<PathBuf> {
    let mut broken = BTreeSet::new();
    let mut files: BTreeMap<PathBuf, Option<(&PathBuf, u64)>> = BTreeMap::new();
    for package in packages {
        let Some(sizes) = sizes(environment, package) else {
            broken.insert(package.clone());
            continue;
        };
        for (file, size) in sizes {
            // Of a file that several packages bring one has won, whichever that was.
            files
                .entry(file)
                .and_modify(|owner| *owner = None)
                .or_insert(Some((package, size)));
        }
    }
    let files: Vec<(PathBuf, (&PathBuf, u64))> = files
        .into_iter()
        .filter_map(|(file, owner)| Some((file, owner?)))
        .collect();
    let step = files.len().div_ceil(looks).max(1);
    for (file, (package, size)) in files.into_iter().step_by(step) {
        let found = environment.join(file).metadata();
        if !found.is_ok_and(|found| found.len() == size) {
            broken.insert(package.clone());
        }
    }
    broken
}

/// The files of a package, relative to the environment, and the size that each has to have.
fn sizes(environment: &Path, package: &Path) -> Option<Vec<(PathBuf, u64)>> {
    if has_extension(package, "json") {
        let text = fs::read(environment.join(package)).ok()?;
        let record: Record = serde_json::from_slice(&text).ok()?;
        let files = record.paths_data.paths.into_iter();
        let files = files.filter(Packed::is_unchanged);
        return Some(
            files
                .filter_map(|file| Some((file.path, file.size_in_bytes?)))
                .collect(),
        );
    }
    let record = fs::read_to_string(environment.join(package).join("RECORD")).ok()?;
    let site = package.parent()?;
    let files = record.lines().filter_map(|line| {
        // A name with a comma stands in quotes: such a file is not looked at.
        let mut fields = line.rsplitn(3, ',');
        let size = fields.next()?.parse::<u64>().ok()?;
        let path = fields.nth(1).filter(|path| !path.starts_with('"'))?;
        Some((site.join(path), size))
    });
    Some(files.collect())
}

/// How the packages are called.
pub(super) fn names(packages: &BTreeSet<PathBuf>) -> Vec<String> {
    let names: BTreeSet<String> = packages.iter().map(|package| name(package)).collect();
    names.into_iter().collect()
}

/// `lib/python3.11/site-packages/six-1.0.dist-info` -> `six`, `conda-meta/ca-certificates-2026.1-0.json` ->
/// `ca-certificates`.
fn name(package: &Path) -> String {
    let name = package.file_name().unwrap_or_default().to_string_lossy();
    let short = if has_extension(package, "json") {
        name.rsplitn(3, '-').nth(2)
    } else {
        name.split('-').next()
    };
    short.unwrap_or(&name).to_owned()
}

/// Lets the folders of an environment be changed, or not; what cannot be set stays, as for another user's.
pub(super) fn set_writable(folder: &Path, writable: bool) {
    let mode = if writable { 0o755 } else { 0o555 };
    if writable {
        let _ = fs::set_permissions(folder, Permissions::from_mode(mode));
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            set_writable(&entry.path(), writable);
        }
    }
    if !writable {
        let _ = fs::set_permissions(folder, Permissions::from_mode(mode));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: &str = "lib/python3.11/site-packages";

    /// Writes a file of an environment.
    fn write(environment: &Path, file: &str, text: &str) {
        let file = environment.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    /// A package with one module, and a file that it says to have brought.
    fn package(environment: &Path, name: &str, installer: &str, file: &str) {
        write(environment, &format!("{SITE}/{name}.py"), "x = 1");
        let info = format!("{SITE}/{name}-1.dist-info");
        let record = format!("{name}.py,sha256=aa,5\n{file}\n{name}-1.dist-info/RECORD,,\n");
        write(environment, &format!("{info}/RECORD"), &record);
        write(environment, &format!("{info}/INSTALLER"), installer);
    }

    fn found(environment: &Path) -> Vec<String> {
        names(&broken(environment, &packages(environment), LOOKS))
    }

    #[test]
    fn a_file_of_another_size_names_its_package() {
        let folder = tempfile::tempdir().unwrap();
        let environment = folder.path();
        package(environment, "one", "uv", "one.txt,,");
        package(environment, "two", "pip\n", "two.txt,,");
        assert!(found(environment).is_empty());
        assert_eq!(
            of_uv(environment),
            [Path::new(SITE).join("one-1.dist-info")]
        );
        write(environment, &format!("{SITE}/two.py"), "");
        assert_eq!(found(environment), ["two"]);
        fs::remove_file(environment.join(SITE).join("one.py")).unwrap();
        assert_eq!(found(environment), ["one", "two"]);
    }

    #[test]
    fn a_file_that_two_packages_bring_may_be_that_of_either() {
        let folder = tempfile::tempdir().unwrap();
        let environment = folder.path();
        package(environment, "one", "uv", "shared.py,sha256=aa,7");
        package(environment, "two", "uv", "shared.py,sha256=bb,9");
        write(environment, &format!("{SITE}/shared.py"), "seventh");
        assert!(found(environment).is_empty());
    }

    #[test]
    fn of_what_conda_installed_its_own_record_counts() {
        let folder = tempfile::tempdir().unwrap();
        let environment = folder.path();
        // It was larger where it was built.
        package(environment, "one", "conda\n", "../../../bin/one,,300");
        write(environment, "bin/one", "#!/env/bin/python\n");
        write(environment, "lib/libone.so", "ELF");
        let record = r#"{"name": "a-b", "paths_data": {"paths_version": 1, "paths": [
            {"_path": "bin/one", "path_type": "hardlink", "size_in_bytes": 300, "prefix_placeholder": "/opt/placehold"},
            {"_path": "lib/one.txt", "path_type": "hardlink", "size_in_bytes": 9, "sha256": "aa", "sha256_in_prefix": "bb"},
            {"_path": "lib/one.pyc", "path_type": "hardlink", "size_in_bytes": 9},
            {"_path": "lib/gone", "path_type": "softlink", "size_in_bytes": 9},
            {"_path": "lib/libone.so", "path_type": "hardlink", "size_in_bytes": 3, "sha256": "aa", "sha256_in_prefix": "aa"}
        ]}}"#;
        write(environment, "conda-meta/a-b-1.0-0.json", record);
        write(environment, "conda-meta/history", "");
        assert!(found(environment).is_empty());
        write(environment, "lib/libone.so", "");
        assert_eq!(found(environment), ["a-b"]);
    }
}
