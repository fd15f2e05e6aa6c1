//! A task's own, thin environment on top of a shared one.
//!
//! ```text
//! layer     bin/python, programs of the shared one, packages of the checkout, what the task itself installs
//!   └─▶ shared environment (read-only)
//!         └─▶ the image's packages
//! ```
//!
//! It is a virtual environment made by hand: some links and small files, no process to wait for. Python itself finds the
//! rest by one `.pth` file.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Largest program whose first line is looked at.
const SCRIPT: u64 = 256 << 10;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Makes a layer over `shared` in a new folder below `own`.
pub(super) fn make(shared: &Path, own: &Path) -> io::Result<PathBuf> {
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let layer = own.join(format!("layer-{}-{number}", std::process::id()));
    if layer.exists() {
        fs::remove_dir_all(&layer)?;
    }
    let version = library(shared)?;
    let packages = layer.join("lib").join(&version).join("site-packages");
    fs::create_dir_all(&packages)?;
    fs::create_dir_all(layer.join("bin"))?;
    fs::copy(shared.join("pyvenv.cfg"), layer.join("pyvenv.cfg"))?;
    let below = shared.join("lib").join(&version).join("site-packages");
    fs::write(
        packages.join("trainyard-shared.pth"),
        format!(
            "import site; site.addsitedir({:?})\n",
            below.display().to_string()
        ),
    )?;
    for entry in fs::read_dir(shared.join("bin"))? {
        let entry = entry?;
        program(
            &entry.path(),
            &layer.join("bin").join(entry.file_name()),
            shared,
            &layer,
        )?;
    }
    Ok(layer)
}

/// As in `python3.11`.
fn library(environment: &Path) -> io::Result<String> {
    fs::read_dir(environment.join("lib"))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .find(|name| name.starts_with("python"))
        .ok_or_else(|| io::Error::other(format!("{} has no lib/python", environment.display())))
}

/// One program: Python itself is linked to where it is, a script gets the layer's Python, all else is a link.
fn program(from: &Path, to: &Path, shared: &Path, layer: &Path) -> io::Result<()> {
    if let Ok(target) = fs::read_link(from) {
        return symlink(target, to);
    }
    let size = from.metadata()?.len();
    let bin = format!("{}/bin/", shared.display());
    let script = if size <= SCRIPT {
        fs::read_to_string(from).ok()
    } else {
        None
    };
    let head = script
        .as_deref()
        .filter(|text| text.starts_with("#!"))
        .map(|text| {
            // Long paths stand in the second line, behind `exec`.
            text.match_indices('\n')
                .nth(1)
                .map_or(text.len(), |(end, _)| end)
        });
    match (script, head) {
        (Some(text), Some(head)) if text[..head].contains(&bin) => {
            let ours = format!("{}/bin/", layer.display());
            fs::write(to, text[..head].replace(&bin, &ours) + &text[head..])?;
            fs::set_permissions(to, fs::Permissions::from_mode(0o755))
        }
        _ => symlink(from, to),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_links_python_and_gives_scripts_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let shared = folder.path().join("shared");
        fs::create_dir_all(shared.join("bin")).unwrap();
        fs::create_dir_all(shared.join("lib/python3.11/site-packages")).unwrap();
        fs::write(shared.join("pyvenv.cfg"), "home = /usr/bin\n").unwrap();
        symlink("/usr/bin/python3", shared.join("bin/python")).unwrap();
        let bin = shared.join("bin").display().to_string();
        fs::write(
            shared.join("bin/tool"),
            format!("#!{bin}/python\nprint('{bin}')\n"),
        )
        .unwrap();
        fs::write(shared.join("bin/other"), "#!/bin/sh\n").unwrap();
        let layer = make(&shared, folder.path()).unwrap();
        assert_eq!(
            fs::read_link(layer.join("bin/python")).unwrap(),
            Path::new("/usr/bin/python3")
        );
        assert_eq!(
            fs::read_link(layer.join("bin/other")).unwrap(),
            shared.join("bin/other")
        );
        let ours = layer.join("bin").display().to_string();
        assert_eq!(
            fs::read_to_string(layer.join("bin/tool")).unwrap(),
            format!("#!{ours}/python\nprint('{bin}')\n"),
            "the first line alone is changed"
        );
        let pth = layer.join("lib/python3.11/site-packages/trainyard-shared.pth");
        assert!(
            fs::read_to_string(pth)
                .unwrap()
                .contains("shared/lib/python3.11/site-packages")
        );
        assert_ne!(make(&shared, folder.path()).unwrap(), layer);
    }
}
