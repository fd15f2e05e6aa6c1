//! Is an environment as it was made? And: may it be changed?

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// How many files of an environment are looked at; a large one is sampled evenly.
const LOOKS: usize = 4000;

/// The packages of which files are missing or have another size than their `RECORD` says.
pub(super) fn broken(environment: &Path, packages: &[PathBuf]) -> Vec<String> {
    let mut files = Vec::new();
    let mut broken = Vec::new();
    for package in packages {
        let name = name(package);
        let (Ok(record), Some(site)) = (
            fs::read_to_string(environment.join(package).join("RECORD")),
            environment.join(package).parent().map(Path::to_owned),
        ) else {
            broken.push(name);
            continue;
        };
        for line in record.lines() {
            // A name with a comma stands in quotes: such a file is not looked at.
            let mut fields = line.rsplitn(3, ',');
            let size = fields.next().and_then(|size| size.parse::<u64>().ok());
            let path = fields.nth(1).filter(|path| !path.starts_with('"'));
            if let (Some(size), Some(path)) = (size, path) {
                files.push((name.clone(), site.join(path), size));
            }
        }
    }
    let step = files.len().div_ceil(LOOKS).max(1);
    for (name, path, size) in files.into_iter().step_by(step) {
        if !broken.contains(&name) && !path.metadata().is_ok_and(|found| found.len() == size) {
            broken.push(name);
        }
    }
    broken
}

/// `lib/python3.11/site-packages/six-1.0.dist-info` -> `six`.
fn name(package: &Path) -> String {
    let name = package.file_name().unwrap_or_default().to_string_lossy();
    name.split('-').next().unwrap_or(&name).to_owned()
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

    #[test]
    fn a_file_of_another_size_names_its_package() {
        let folder = tempfile::tempdir().unwrap();
        let site = folder.path().join("site");
        for package in ["one", "two"] {
            fs::create_dir_all(site.join(format!("{package}-1.dist-info"))).unwrap();
            fs::write(site.join(format!("{package}.py")), "x = 1").unwrap();
            let record = format!("{package}.py,sha256=aa,5\n{package}-1.dist-info/RECORD,,\n");
            fs::write(site.join(format!("{package}-1.dist-info/RECORD")), record).unwrap();
        }
        let packages = ["site/one-1.dist-info", "site/two-1.dist-info"].map(PathBuf::from);
        assert!(broken(folder.path(), &packages).is_empty());
        fs::write(site.join("two.py"), "").unwrap();
        assert_eq!(broken(folder.path(), &packages), ["two"]);
        fs::remove_file(site.join("one.py")).unwrap();
        assert_eq!(broken(folder.path(), &packages), ["one", "two"]);
    }
}
