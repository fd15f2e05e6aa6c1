//! Locks of projects whose packages pods find at the index of the cluster.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::python::fixture::uv;

/// A package of that index, as `tests/wheels/requirements.txt` has it.
pub const JOBLIB: &str = "1.6.0";

/// The `pyproject.toml` of a project that is no package itself and needs these.
pub fn project(dependencies: &[&str]) -> String {
    let listed: Vec<String> = dependencies.iter().map(|one| format!("{one:?}")).collect();
    format!(
        "[project]\nname = \"trainer\"\nversion = \"1\"\nrequires-python = \">=3.11\"\ndependencies = [{}]\n\
         [tool.uv]\npackage = false\n",
        listed.join(", ")
    )
}

/// The `uv.lock` of such a project, made in this folder from this index, as its author would.
pub fn uv_lock(folder: &Path, project: &str, index: &str) -> String {
    fs::create_dir_all(folder).expect("folder is made");
    fs::write(folder.join("pyproject.toml"), project).expect("the project is written");
    let mut lock = Command::new(uv());
    lock.args(["lock", "--quiet", "--default-index", index])
        .current_dir(folder)
        .env("UV_CACHE_DIR", folder.join("cache"));
    for name in [
        "UV_INDEX",
        "UV_EXTRA_INDEX_URL",
        "UV_FIND_LINKS",
        "UV_OFFLINE",
    ] {
        lock.env_remove(name);
    }
    let output = lock.output().expect("uv runs");
    assert!(
        output.status.success(),
        "uv lock: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::read_to_string(folder.join("uv.lock")).expect("the lock is there")
}

/// Names and versions of what a `uv.lock` takes from an index.
pub fn packages(lock: &str) -> Vec<(String, String)> {
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim_matches([' ', '=', '"']).to_owned())
    };
    lock.split("[[package]]")
        .filter(|block| block.contains("source = { registry"))
        .filter_map(|block| Some((value(block, "name")?, value(block, "version")?)))
        .collect()
}
