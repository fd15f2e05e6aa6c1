//! The same code twice on one node, then once more after a change of one package: whatever says what is installed, that
//! one alone is fetched and unpacked, and the environment holds just what is asked for.

use std::fmt::Write;

use serde_json::{Value, json};
use trainyard::exec::plan::Manager;

use super::fixture::{Image, Run, wheel};

/// What uv says that it has fetched and unpacked. What lay in its cache is linked without a word.
fn unpacked(run: &Run) -> Vec<&str> {
    let lines = run.log.lines();
    lines
        .filter_map(|line| line.strip_prefix("Prepared ")?.split(" in ").next())
        .collect()
}

/// All that lies where beta does, whoever recorded it.
fn found_beside_beta(run: &Run) -> String {
    run.run(
        "import beta, importlib.metadata as m, os
site = os.path.dirname(os.path.dirname(beta.__file__))
packages = [d.metadata['Name'] + '==' + d.version for d in m.distributions(path=[site])]
modules = [name for name in ('alpha', 'beta', 'gamma') if os.path.exists(os.path.join(site, name))]
print(*sorted(packages), *modules)",
    )
}

/// Two versions of alpha, beta beside it, and gamma for alpha 1.0 alone.
fn bring_packages(image: &Image) {
    wheel(&image.index(), "alpha", "1.0", &["gamma"]);
    for (name, version) in [("alpha", "1.1"), ("beta", "2.0"), ("gamma", "3.0")] {
        wheel(&image.index(), name, version, &[]);
    }
}

/// Runs what `wanted` makes of alpha 1.0 twice, then of alpha 1.1 once.
async fn only_the_difference(image: &Image, wanted: impl Fn(&Image, &str) -> Value) {
    bring_packages(image);
    let script = wanted(image, "1.0");
    let first = image.make_script(script.clone()).await.unwrap();
    assert_eq!(unpacked(&first), ["3 packages"], "{}", first.log);
    assert_eq!(
        found_beside_beta(&first),
        "alpha==1.0 beta==2.0 gamma==3.0 alpha beta gamma"
    );
    let again = image.make_script(script).await.unwrap();
    assert!(
        again.python.reused && again.python.shared == first.python.shared,
        "{}",
        again.log
    );
    assert!(unpacked(&again).is_empty(), "{}", again.log);

    let changed = image.make_script(wanted(image, "1.1")).await.unwrap();
    assert_eq!(unpacked(&changed), ["1 package"], "{}", changed.log);
    let installed = changed.python.installed.as_deref().unwrap();
    assert_eq!(installed, ["alpha==1.1", "beta==2.0"]);
    assert_eq!(
        found_beside_beta(&changed),
        "alpha==1.1 beta==2.0 alpha beta",
        "nothing of the first is left in it"
    );
    assert_eq!(changed.run("import alpha; print(alpha.V)"), "1.1");
    assert_eq!(
        first.run("import alpha; print(alpha.V)"),
        "1.0",
        "the first environment is as it was"
    );
    // One file, linked from both environments: nothing was copied.
    let inode = |run: &Run| {
        run.run("import os, beta; s = os.stat(beta.__file__); print(s.st_ino, s.st_nlink > 2)")
    };
    assert_eq!(inode(&first), inode(&changed));
    assert!(inode(&first).ends_with("True"));
}

/// A project of the checkout.
fn project(image: &Image, alpha: &str) -> Value {
    image.code("train.py", "");
    image.code(
        "pyproject.toml",
        &format!(
            "[project]\nname = \"proj\"\nversion = \"0.1\"\nrequires-python = \">=3.9\"\ndependencies = [\"alpha=={alpha}\", \"beta\"]\n"
        ),
    );
    json!({"repository": "/r", "entry_point": "train.py"})
}

/// The same as Poetry writes it, with its lock.
fn poetry(image: &Image, alpha: &str) -> Value {
    image.code("train.py", "");
    image.code(
        "pyproject.toml",
        "[tool.poetry]\npackage-mode = false\n[tool.poetry.dependencies]\npython = \"^3.8\"\nalpha = \"*\"\nbeta = \"*\"\n",
    );
    let mut packages = vec![("beta", "2.0", ""), ("alpha", alpha, "")];
    if alpha == "1.0" {
        packages[1].2 = "[package.dependencies]\ngamma = \"*\"\n";
        packages.push(("gamma", "3.0", ""));
    }
    let mut lock = String::new();
    for (name, version, requires) in packages {
        let hash = image.sha256(&format!("{name}-{version}-py3-none-any.whl"));
        write!(
            lock,
            "[[package]]\nname = \"{name}\"\nversion = \"{version}\"\npython-versions = \"*\"\n\
             files = [{{file = \"a\", hash = \"sha256:{hash}\"}}]\n{requires}"
        )
        .unwrap();
    }
    image.code("poetry.lock", &lock);
    json!({"repository": "/r", "entry_point": "train.py"})
}

#[tokio::test]
async fn s4_of_a_changed_list_only_the_difference_is_unpacked() {
    let list = |_: &Image, alpha: &str| {
        let list = format!("alpha=={alpha}\nbeta\n");
        json!({"entry_point": "x.py", "diff": "1", "requirements": {"pip": list}})
    };
    only_the_difference(&Image::new(), list).await;
}

#[tokio::test]
async fn s4_of_a_changed_uv_lock_only_the_difference_is_unpacked() {
    let locked = |image: &Image, alpha: &str| {
        let script = project(image, alpha);
        image.uv_lock();
        script
    };
    only_the_difference(&Image::new(), locked).await;
}

#[tokio::test]
async fn s4_of_a_changed_project_without_a_lock_only_the_difference_is_unpacked() {
    only_the_difference(&Image::new(), project).await;
}

#[tokio::test]
async fn s4_of_a_changed_poetry_lock_only_the_difference_is_unpacked() {
    only_the_difference(&Image::new(), poetry).await;
}

/// pip itself begins with an empty environment, whatever lies in the cache.
#[tokio::test]
async fn s4_of_a_changed_list_pip_itself_takes_nothing_of_the_first() {
    let mut image = Image::new();
    image.manager = Manager::Pip;
    image.bring_pip();
    bring_packages(&image);
    let list = |alpha: &str| json!(format!("alpha=={alpha}\nbeta\n"));
    let first = image.make(list("1.0")).await.unwrap();
    let again = image.make(list("1.0")).await.unwrap();
    assert!(
        again.python.reused && again.python.shared == first.python.shared,
        "{}",
        again.log
    );
    let changed = image.make(list("1.1")).await.unwrap();
    for (run, said, wanted) in [
        (
            &first,
            "Successfully installed alpha-1.0 beta-2.0 gamma-3.0",
            "alpha==1.0 beta==2.0 gamma==3.0 alpha beta gamma",
        ),
        (
            &changed,
            "Successfully installed alpha-1.1 beta-2.0",
            "alpha==1.1 beta==2.0 alpha beta",
        ),
    ] {
        assert!(run.log.contains(said), "{}", run.log);
        let found = found_beside_beta(run);
        let beside_pip: Vec<&str> = found
            .split(' ')
            .filter(|word| !word.starts_with("pip=="))
            .collect();
        assert_eq!(beside_pip.join(" "), wanted);
    }
}
