//! Looks for cuDNN among the image's files: headers first, then names of libraries.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{of_header, of_library};
use crate::exec::python::find_program;
use crate::exec::small;

/// Most bytes of a header; the largest of cuDNN has some 200 KB.
const MOST: u64 = 1 << 20;
/// Entries of a folder that are looked at; the libraries of an image are some thousands.
const ENTRIES: usize = 50_000;
/// Folders of `LD_LIBRARY_PATH` that are looked at.
const FOLDERS: usize = 32;
/// A file system that does not answer by then is given up.
const LIMIT: Duration = Duration::from_secs(5);

/// Variables in which images say where CUDA is.
const VARIABLES: [&str; 2] = ["CUDA_HOME", "CUDA_PATH"];
/// Where else it may be installed.
const USUAL: [&str; 3] = ["usr/local/cuda", "usr", "usr/local"];
/// The second is that of before version 8.
const HEADERS: [&str; 2] = ["cudnn_version.h", "cudnn.h"];
const INCLUDES: [&str; 3] = [
    "include",
    "include/x86_64-linux-gnu",
    "include/aarch64-linux-gnu",
];
const LIBRARIES: [&str; 4] = [
    "lib64",
    "lib",
    "lib/x86_64-linux-gnu",
    "lib/aarch64-linux-gnu",
];

/// A version, and the file that names it.
type Found = (Vec<u32>, PathBuf);

/// The cuDNN of this image, as far as it can be told in time.
pub async fn look(variables: &BTreeMap<String, String>) -> Option<Found> {
    let (told, answer) = tokio::sync::oneshot::channel();
    let variables = variables.clone();
    // Not joined: a file system that hangs must not hold the task up.
    std::thread::Builder::new()
        .name("cudnn".to_owned())
        .spawn(move || {
            let _ = told.send(find(Path::new("/"), &variables));
        })
        .ok()?;
    tokio::time::timeout(LIMIT, answer).await.ok()?.ok()?
}

fn find(root: &Path, variables: &BTreeMap<String, String>) -> Option<Found> {
    let installations = installations(root, variables);
    let header = below(&installations, &INCLUDES)
        .flat_map(|folder| HEADERS.map(|name| folder.join(name)))
        .find_map(read);
    // Where the loader looks first.
    let loaded = folders(variables, "LD_LIBRARY_PATH").take(FOLDERS);
    header.or_else(|| {
        loaded
            .chain(below(&installations, &LIBRARIES))
            .find_map(|folder| newest(&folder))
    })
}

/// Folders in which CUDA is installed, or what else comes with headers and libraries.
fn installations(root: &Path, variables: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let named = VARIABLES
        .iter()
        .filter_map(|name| folders(variables, name).next());
    let path = variables.get("PATH").map_or("", String::as_str);
    let of_compiler =
        find_program("nvcc", path).and_then(|program| Some(program.parent()?.parent()?.to_owned()));
    named
        .chain(of_compiler)
        .chain(USUAL.map(|folder| root.join(folder)))
        .collect()
}

/// The folders that a variable lists.
fn folders<'a>(
    variables: &'a BTreeMap<String, String>,
    name: &str,
) -> impl Iterator<Item = PathBuf> + use<'a> {
    let listed = variables.get(name).map_or("", String::as_str);
    listed
        .split(':')
        .filter(|folder| folder.starts_with('/'))
        .map(PathBuf::from)
}

fn below(
    installations: &[PathBuf],
    names: &'static [&'static str],
) -> impl Iterator<Item = PathBuf> {
    installations
        .iter()
        .flat_map(move |installation| names.iter().map(move |name| installation.join(name)))
}

fn read(header: PathBuf) -> Option<Found> {
    let bytes = small::plain_bytes(&header, MOST).ok()?;
    let version = of_header(&String::from_utf8_lossy(&bytes))?;
    Some((version, header))
}

/// The newest library of a folder.
fn newest(folder: &Path) -> Option<Found> {
    let entries = std::fs::read_dir(folder).ok()?.take(ENTRIES);
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = of_library(entry.file_name().to_str()?)?;
            Some((version, entry.path()))
        })
        .max()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A file below the root, with the folders above it.
    fn put(root: &Path, name: &str, text: &str) -> PathBuf {
        let file = root.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        file
    }

    fn header(version: [u32; 3]) -> String {
        let [major, minor, patch] = version;
        format!(
            "#define CUDNN_MAJOR {major}\n#define CUDNN_MINOR {minor}\n#define CUDNN_PATCHLEVEL {patch}\n"
        )
    }

    #[test]
    fn a_header_counts_before_a_library_and_what_variables_name_before_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let mut variables = BTreeMap::new();
        assert_eq!(find(root, &variables), None);

        let library = put(root, "usr/lib/x86_64-linux-gnu/libcudnn.so.8.9.7", "");
        put(root, "usr/lib/x86_64-linux-gnu/libcudnn.so.8", "");
        put(root, "usr/lib/x86_64-linux-gnu/libcudnn.so.8.10.0.txt", "");
        assert_eq!(find(root, &variables), Some((vec![8, 9, 7], library)));
        let library = put(root, "usr/lib/x86_64-linux-gnu/libcudnn.so.8.10.2", "");
        assert_eq!(find(root, &variables), Some((vec![8, 10, 2], library)));

        let library = put(root, "opt/lib/libcudnn.so.9.1.0", "");
        let listed = format!("relative::/nowhere:{}", root.join("opt/lib").display());
        variables.insert("LD_LIBRARY_PATH".to_owned(), listed);
        assert_eq!(find(root, &variables), Some((vec![9, 1, 0], library)));

        let old = put(root, "usr/include/cudnn.h", &header([7, 6, 5]));
        assert_eq!(find(root, &variables), Some((vec![7, 6, 5], old)));
        let new = put(root, "usr/include/cudnn_version.h", &header([8, 9, 7]));
        assert_eq!(find(root, &variables), Some((vec![8, 9, 7], new)));

        let compiler = put(root, "cuda-12/bin/nvcc", "");
        fs::set_permissions(&compiler, fs::Permissions::from_mode(0o755)).unwrap();
        let beside = put(root, "cuda-12/include/cudnn_version.h", &header([9, 2, 0]));
        let programs = root.join("cuda-12/bin").display().to_string();
        variables.insert("PATH".to_owned(), format!("/nowhere:{programs}"));
        assert_eq!(find(root, &variables), Some((vec![9, 2, 0], beside)));

        let named = put(root, "toolkit/include/cudnn_version.h", &header([9, 5, 1]));
        let toolkit = root.join("toolkit").display().to_string();
        variables.insert("CUDA_HOME".to_owned(), toolkit);
        assert_eq!(find(root, &variables), Some((vec![9, 5, 1], named)));
    }

    #[test]
    fn a_header_that_is_no_file_or_has_no_end_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let library = put(root, "usr/lib64/libcudnn.so.9.5.1", "");
        let pipe = root.join("usr/include");
        fs::create_dir_all(&pipe).unwrap();
        let pipe = pipe.join("cudnn_version.h");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let blank = "\n".repeat(usize::try_from(MOST).unwrap());
        let long = header([7, 6, 5]) + &blank;
        put(root, "usr/include/cudnn.h", &long);
        assert_eq!(find(root, &BTreeMap::new()), Some((vec![9, 5, 1], library)));
    }
}
