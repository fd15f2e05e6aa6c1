//! conda environments, solved and installed by rattler's real solver and installer from a channel of the test's own: no
//! test needs a public channel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::json;
use trainyard::exec::plan::Manager;

use super::fixture::{Image, Run, wheel};

/// A Python with py-rattler: `TRAINYARD_RATTLER_PYTHON`, else the one in `PATH`.
pub fn rattler_python() -> PathBuf {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        let named = std::env::var_os("TRAINYARD_RATTLER_PYTHON");
        let python = named.map_or_else(|| PathBuf::from("python3"), PathBuf::from);
        let has = Command::new(&python)
            .args(["-c", "import rattler"])
            .output()
            .is_ok_and(|output| output.status.success());
        assert!(
            has,
            "{} has no rattler: pip install -r tests/conda/requirements.txt, or name one in TRAINYARD_RATTLER_PYTHON",
            python.display()
        );
        python
    };
    PYTHON.get_or_init(find).clone()
}

/// A file beside the requirements of that Python.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/conda")
        .join(name)
}

/// Writes a channel with python, alpha 1.0, alpha 2.0, a beta that asks for an alpha below 2, and a delta with a program.
/// Its python leads to this machine's, or to that of an image: path and version.
pub fn write_channel(folder: &Path, python: &[&str]) {
    let made = Command::new(rattler_python())
        .arg(script("channel.py"))
        .arg(folder)
        .args(python)
        .status()
        .unwrap();
    assert!(made.success());
}

/// Puts a `micromamba` for this machine into a folder.
pub fn bring_micromamba(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let program = folder.join("micromamba");
    let text = format!(
        "#!/bin/sh\nexec {} {} \"$@\"\n",
        rattler_python().display(),
        script("micromamba.py").display()
    );
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
}

/// An image with a `micromamba`, and the address of a channel.
fn image() -> (Image, String) {
    let mut image = Image::new();
    let folder = image.index().parent().unwrap().to_owned();
    let channel = folder.join("channel");
    write_channel(&channel, &[]);
    bring_micromamba(&folder.join("bin"));
    let channel = format!("file://{}", channel.display());
    image.manager = Manager::Conda;
    image.settings.options.conda_channels = vec![channel.clone()];
    (image, channel)
}

#[tokio::test]
async fn s4_a_conda_list_is_solved_installed_and_found_again() {
    let (mut image, _) = image();
    wheel(&image.index(), "gamma", "3.0", &[]);
    let script = json!({"entry_point": "x.py", "diff": "1",
        "requirements": {"conda": "# of the task\nbeta = 1.0\n", "pip": "gamma\nbeta==7.0\n"}});
    let made = image.make_script(script.clone()).await.unwrap();
    // The solver has chosen the alpha that beta wants; of what conda was asked for pip's list says nothing.
    let code = "import alpha, beta, gamma; print(alpha.V, beta.V, gamma.V)";
    assert_eq!(made.run(code), "1.0 1.0 3.0", "{}", made.log);
    assert!(
        made.log.contains("making an environment by micromamba"),
        "{}",
        made.log
    );
    assert!(!made.python.reused);
    assert_eq!(made.python.installed, None);
    let again = image.make_script(script.clone()).await.unwrap();
    assert!(again.python.reused, "{}", again.log);
    assert_eq!(again.python.environment, made.python.environment);
    image.settings.options.record_conda = true;
    let again = image.make_script(script).await.unwrap();
    let installed = again.python.installed.unwrap();
    assert!(installed.contains(&"beta==1.0".to_owned()), "{installed:?}");
}

#[tokio::test]
async fn s4_an_environment_yml_with_packages_of_pip_is_made() {
    let (mut image, channel) = image();
    image.settings.options.conda_channels.clear();
    wheel(&image.index(), "gamma", "3.0", &[]);
    image.code(
        "environment.yml",
        &format!("name: x\nchannels:\n  - {channel}\ndependencies:\n  - beta\n  - pip:\n    - gamma==3.0\n"),
    );
    let script = json!({"entry_point": "x.py", "repository": "https://git.example/a", "version_num": "1".repeat(40)});
    let made = image.make_script(script).await.unwrap();
    assert_eq!(
        made.run("import alpha, beta, gamma; print(alpha.V, beta.V, gamma.V)"),
        "1.0 1.0 3.0",
        "{}",
        made.log
    );
}

#[tokio::test]
async fn s4_beside_conda_the_configurations_indexes_and_flags_count() {
    let script = json!({"entry_point": "x.py", "diff": "1", "requirements": {"conda": "beta\n", "pip": "gamma\n"}});
    let (mut image, _) = image();
    let more = image.index().with_file_name("more");
    fs::create_dir(&more).unwrap();
    wheel(&more, "gamma", "3.0", &[]);
    let flags = &mut image.settings.options.extra_flags;
    *flags = vec!["--find-links".to_owned(), more.display().to_string()];
    let made = image.make_script(script.clone()).await.unwrap();
    let code = "import gamma; print(gamma.V)";
    assert_eq!(made.run(code), "3.0", "{}", made.log);
    let index = image.indexes(&[("public", "delta", "1.0"), ("extra", "gamma", "4.0")]);
    let variables = &mut image.settings.variables;
    variables.remove("PIP_NO_INDEX");
    variables.remove("PIP_FIND_LINKS");
    variables.insert("UV_DEFAULT_INDEX".to_owned(), index.replace("{}", "public"));
    image.settings.options.extra_flags.clear();
    image.settings.options.extra_index_url = vec![index.replace("{}", "extra")];
    let made = image.make_script(script).await.unwrap();
    assert_eq!(made.run(code), "4.0", "{}", made.log);
}

#[tokio::test]
async fn s42_environments_of_conda_stay_within_the_caches_size_too() {
    let (mut image, _) = image();
    let script =
        |list: &str| json!({"entry_point": "x.py", "diff": "1", "requirements": {"conda": list}});
    let used = image.make_script(script("alpha=1.0\n")).await.unwrap();
    let unused = image.make_script(script("alpha=2.0\n")).await.unwrap();
    let gone = unused.python.environment.clone().unwrap();
    drop(unused);
    // Beside the folder of all environments.
    let packages = gone.ancestors().nth(2).unwrap().join("conda");
    assert!(packages.is_dir(), "{}", packages.display());

    // Less than any of them takes.
    image.settings.options.cache_limit = Some(1);
    let made = image.make_script(script("beta\n")).await.unwrap();
    assert!(made.log.contains("removed from the cache"), "{}", made.log);
    assert!(!gone.exists(), "nobody uses it");
    assert!(!packages.exists(), "what is left are links");
    assert_eq!(used.run("import alpha; print(alpha.V)"), "1.0");
    assert_eq!(made.run("import beta; print(beta.V)"), "1.0");

    let again = image.make_script(script("alpha=2.0\n")).await.unwrap();
    assert!(!again.python.reused, "{}", again.log);
    assert_eq!(again.run("import alpha; print(alpha.V)"), "2.0");
}

#[tokio::test]
async fn ahead_of_a_task_whose_nodes_driver_is_not_known_nothing_is_solved() {
    let (mut image, _) = image();
    let script = json!({"entry_point": "x.py", "diff": "1", "requirements": {"conda": "beta\n"}});
    image.settings.driver_elsewhere = true;
    // Its builds would be those for the CPU, and the task with its GPU would find them.
    if trainyard::exec::smi::cuda("/none").unwrap_or(0) == 0 {
        let failure = image.make_script(script.clone()).await.unwrap_err();
        assert!(failure.to_string().contains("not known here"), "{failure}");
    }
    let variables = &mut image.settings.variables;
    variables.insert("CONDA_OVERRIDE_CUDA".to_owned(), "12.4".to_owned());
    let made = image.make_script(script).await.unwrap();
    assert_eq!(
        made.run("import beta; print(beta.V)"),
        "1.0",
        "{}",
        made.log
    );
}

#[tokio::test]
async fn s4_of_a_changed_conda_list_only_the_difference_is_fetched() {
    let (image, channel) = image();
    let script =
        |list: &str| json!({"entry_point": "x.py", "diff": "1", "requirements": {"conda": list}});
    let first = image
        .make_script(script("alpha=1.0\ndelta\n"))
        .await
        .unwrap();
    let again = image
        .make_script(script("alpha=1.0\ndelta\n"))
        .await
        .unwrap();
    // The program of delta names its environment, and so has another size than where it was built: that is no damage.
    assert!(again.python.reused, "{}", again.log);
    assert_eq!(again.python.environment, first.python.environment);

    // The channel lists all packages still, and holds one.
    let folder = PathBuf::from(channel.strip_prefix("file://").unwrap());
    for subdir in ["linux-64", "noarch"] {
        for entry in fs::read_dir(folder.join(subdir)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != "repodata.json" && entry.file_name() != "alpha-2.0-0.tar.bz2" {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
    let changed = image
        .make_script(script("alpha=2.0\ndelta\n"))
        .await
        .unwrap();
    assert!(!changed.python.reused);
    let code = "import alpha, delta; print(alpha.V, delta.V)";
    assert_eq!(changed.run(code), "2.0 1.0", "{}", changed.log);
    assert_eq!(first.run(code), "1.0 1.0");
    // What is installed, by conda's own records: nothing of the first is left.
    let environment = changed.python.environment.clone().unwrap();
    let entries = fs::read_dir(environment.join("conda-meta")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "history").collect();
    names.sort();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(names[..2], ["alpha-2.0-0.json", "delta-1.0-0.json"]);
    assert!(names[2].starts_with("python-"), "{names:?}");
    // One file, linked from both environments: nothing was copied.
    let inode = |run: &Run| run.run("import os, delta; print(os.stat(delta.__file__).st_ino)");
    assert_eq!(inode(&first), inode(&changed));
}

#[tokio::test]
async fn s42_a_file_of_conda_that_was_cut_short_gets_into_no_other_environment() {
    let (image, _) = image();
    wheel(&image.index(), "gamma", "3.0", &[]);
    let script = |list: &str| json!({"entry_point": "x.py", "diff": "1", "requirements": {"conda": list, "pip": "gamma\n"}});
    let first = image.make_script(script("delta\n")).await.unwrap();
    let files = first.run("import delta, gamma; print(delta.__file__, gamma.__file__)");
    drop(first);
    // The hard links into conda's cache and uv's are cut short with them.
    for file in files.split_whitespace() {
        fs::write(file, "").unwrap();
    }
    let code = "import delta, gamma; print(delta.V, gamma.V)";
    let other = image.make_script(script("alpha\ndelta\n")).await.unwrap();
    assert_eq!(other.run(code), "1.0 3.0", "{}", other.log);
    for name in ["delta", "gamma"] {
        let told = format!(
            "files in the cache are not as their packages say ({name}): they are fetched anew"
        );
        assert!(other.log.contains(&told), "{}", other.log);
    }
    let again = image.make_script(script("delta\n")).await.unwrap();
    let told = "the conda environment in the cache is damaged (delta, gamma): it is made anew";
    assert!(again.log.contains(told), "{}", again.log);
    assert_eq!(again.run(code), "1.0 3.0", "{}", again.log);
}

#[tokio::test]
async fn what_conda_cannot_solve_is_one_clear_sentence() {
    let (image, channel) = image();
    for (list, expected) in [
        ("nosuch\n", "No candidates were found for nosuch"),
        ("beta\nalpha=2.0\n", "beta"),
    ] {
        let script = json!({"entry_point": "x.py", "diff": "1", "requirements": {"conda": list}});
        let failure = image.make_script(script).await.unwrap_err();
        assert!(
            failure
                .sentence
                .starts_with("the conda environment could not be made: ")
                && failure.sentence.contains(expected),
            "{failure}"
        );
    }
    let mut image = image;
    image.settings.options.conda_channels = vec![format!("{channel}-elsewhere")];
    let script = json!({"entry_point": "x.py", "diff": "1", "requirements": {"conda": "beta\n"}});
    let failure = image.make_script(script).await.unwrap_err();
    assert!(failure.sentence.contains("-elsewhere"), "{failure}");
}
