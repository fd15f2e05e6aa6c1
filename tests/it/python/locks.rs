//! Projects of the repository, with a lock of uv or of Poetry and without one.

use serde_json::json;

use super::fixture::{Image, wheel};

#[tokio::test]
async fn s4_a_uv_lock_is_installed_as_it_stands_and_its_project_on_top() {
    let image = Image::new();
    for (name, version) in [("alpha", "1.0"), ("alpha", "1.1"), ("beta", "2.0")] {
        wheel(&image.index(), name, version, &[]);
    }
    image.code(
        "pyproject.toml",
        "[project]\nname = \"proj\"\nversion = \"0.1\"\nrequires-python = \">=3.9\"\ndependencies = [\"alpha<1.1\", \"beta; sys_platform == 'win32'\"]\n",
    );
    image.code("train.py", "");
    image.uv_lock();
    image.code(
        "pyproject.toml",
        &image.read("pyproject.toml").replace("alpha<1.1", "alpha"),
    );
    let script =
        json!({"repository": "/r", "entry_point": "train.py", "requirements": {"pip": "beta"}});
    let made = image.make_script(script.clone()).await.unwrap();
    assert_eq!(
        made.python.installed.as_deref().unwrap(),
        ["alpha==1.0"],
        "{}",
        made.log
    );
    assert!(
        made.log
            .contains("uv.lock; the task's own list is not used"),
        "{}",
        made.log
    );
    let again = image.make_script(script).await.unwrap();
    assert!(again.python.reused && again.python.shared == made.python.shared);
}

#[tokio::test]
async fn s4_arguments_of_uv_sync_choose_what_of_a_lock_is_installed() {
    let mut image = Image::new();
    for name in ["alpha", "beta", "gamma"] {
        wheel(&image.index(), name, "1.0", &[]);
    }
    image.code(
        "pyproject.toml",
        "[project]\nname = \"proj\"\nversion = \"0.1\"\nrequires-python = \">=3.9\"\ndependencies = [\"alpha\"]\n\
         [project.optional-dependencies]\nmore = [\"beta\"]\n[dependency-groups]\ndev = [\"gamma\"]\n",
    );
    image.code("train.py", "");
    image.uv_lock();
    let script = json!({"repository": "/r", "entry_point": "train.py"});
    let made = image.make_script(script.clone()).await.unwrap();
    let installed = made.python.installed.as_deref().unwrap();
    assert_eq!(installed, ["alpha==1.0", "gamma==1.0"], "{}", made.log);
    image.settings.options.uv_sync_arguments = ["--extra", "more", "--no-dev", "--inexact"]
        .map(str::to_owned)
        .to_vec();
    // Nothing but the lock's own indexes is chosen, in whatever order they are asked.
    image.settings.options.best_match = true;
    let made = image.make_script(script).await.unwrap();
    let installed = made.python.installed.as_deref().unwrap();
    assert_eq!(installed, ["alpha==1.0", "beta==1.0"], "{}", made.log);
    let told = "without effect, as uv sync itself is not run: --inexact";
    assert!(made.log.contains(told), "{}", made.log);
}

#[tokio::test]
async fn s4_what_uv_run_would_install_of_a_lock_is_installed() {
    let mut image = Image::new();
    for name in ["alpha", "beta", "gamma"] {
        wheel(&image.index(), name, "1.0", &[]);
    }
    image.code(
        "pyproject.toml",
        "[project]\nname = \"proj\"\nversion = \"0.1\"\nrequires-python = \">=3.9\"\ndependencies = [\"alpha\"]\n\
         [project.optional-dependencies]\nmore = [\"beta\"]\nother = [\"gamma\"]\n",
    );
    image.code("train.py", "");
    image.uv_lock();
    let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
    image.settings.options.uv_sync_arguments = words("--extra more");
    image.settings.options.uv_run_arguments = words("--extra more --extra=other --with rich");
    let script = json!({"repository": "/r", "entry_point": "train.py"});
    let made = image.make_script(script).await.unwrap();
    let installed = made.python.installed.as_deref().unwrap();
    let all = ["alpha==1.0", "beta==1.0", "gamma==1.0"];
    assert_eq!(installed, all, "{}", made.log);
    let told = "without effect, as uv run itself is not run: --with rich";
    assert!(made.log.contains(told), "{}", made.log);
}

#[tokio::test]
async fn s4_a_uv_lock_is_brought_up_to_date_with_its_project_on_request() {
    let mut image = Image::new();
    for (name, version) in [("alpha", "1.0"), ("beta", "2.0")] {
        wheel(&image.index(), name, version, &[]);
    }
    let project = "[project]\nname = \"proj\"\nversion = \"0.1\"\nrequires-python = \">=3.9\"\ndependencies = [\"alpha\"]\n";
    image.code("pyproject.toml", project);
    image.code("train.py", "");
    image.uv_lock();
    image.code(
        "pyproject.toml",
        &project.replace("[\"alpha\"]", "[\"alpha\", \"beta\"]"),
    );
    // A later alpha is no reason to leave the locked one.
    wheel(&image.index(), "alpha", "1.1", &[]);
    let script = json!({"repository": "/r", "entry_point": "train.py"});
    for (locked, expected) in [
        (true, vec!["alpha==1.0"]),
        (false, vec!["alpha==1.0", "beta==2.0"]),
    ] {
        image.settings.options.uv_locked = locked;
        let made = image.make_script(script.clone()).await.unwrap();
        let installed = made.python.installed.as_deref().unwrap();
        assert_eq!(installed, expected, "{locked}: {}", made.log);
    }
}

#[tokio::test]
async fn s4_what_lies_beside_a_uv_lock_is_left_out_on_request() {
    let mut image = Image::new();
    wheel(&image.index(), "alpha", "1.0", &[]);
    image.bring_build_backend();
    image.code("lib/pyproject.toml", "[project]\nname = \"ours\"\nversion = \"0.3\"\ndependencies = [\"alpha\"]\n[build-system]\nrequires = [\"backend\"]\nbuild-backend = \"backend\"\n");
    image.code("lib/ours.py", "");
    image.code(
        "pyproject.toml",
        "[project]\nname = \"proj\"\nversion = \"0.1\"\nrequires-python = \">=3.9\"\ndependencies = [\"ours\"]\n\
         [tool.uv.sources]\nours = { path = \"lib\" }\n",
    );
    image.code("train.py", "");
    image.uv_lock();
    let script = json!({"repository": "/r", "entry_point": "train.py"});
    let made = image.make_script(script.clone()).await.unwrap();
    let code = "import alpha, importlib.util as u; print(u.find_spec('ours') is not None)";
    assert_eq!(made.run(code), "True", "{}", made.log);
    image.settings.options.uv_sync_arguments = vec!["--no-install-local".to_owned()];
    let made = image.make_script(script).await.unwrap();
    assert_eq!(made.run(code), "False", "{}", made.log);
    assert!(!made.log.contains("without effect"), "{}", made.log);
}

#[tokio::test]
async fn s4_a_poetry_lock_is_installed_as_it_stands() {
    let image = Image::new();
    for (name, version) in [("alpha", "1.0"), ("alpha", "1.1"), ("tester", "8")] {
        wheel(&image.index(), name, version, &[]);
    }
    image.code("pyproject.toml", "[tool.poetry]\npackage-mode = false\n[tool.poetry.dependencies]\npython = \"^3.8\"\nalpha = \"^1\"\n[tool.poetry.group.dev.dependencies]\ntester = \"*\"\n");
    let hash = image.sha256("alpha-1.0-py3-none-any.whl");
    image.code("poetry.lock", &format!(
        "[[package]]\nname = \"alpha\"\nversion = \"1.0\"\npython-versions = \"*\"\nfiles = [{{file = \"a\", hash = \"sha256:{hash}\"}}]\n\
         [[package]]\nname = \"tester\"\nversion = \"8\"\npython-versions = \"*\"\n"));
    let script = json!({"repository": "/r", "entry_point": "train.py"});
    let made = image.make_script(script.clone()).await.unwrap();
    assert_eq!(
        made.python.installed.as_deref().unwrap(),
        ["alpha==1.0", "tester==8"]
    );
    // A file that is not the locked one is refused.
    image.code(
        "poetry.lock",
        &image.read("poetry.lock").replace(&hash, &"0".repeat(64)),
    );
    let failure = image.make_script(script).await.unwrap_err();
    assert!(
        failure.to_string().to_lowercase().contains("hash"),
        "{failure}"
    );
}

#[tokio::test]
async fn s4_a_project_without_a_lock_is_installed() {
    let image = Image::new();
    for (name, version) in [
        ("alpha", "1.0"),
        ("alpha", "1.1"),
        ("beta", "2.0"),
        ("gamma", "3.0"),
        ("tester", "8"),
    ] {
        let requires: &[&str] = if name == "alpha" { &["gamma"] } else { &[] };
        wheel(&image.index(), name, version, requires);
    }
    let packages = "import importlib.util as u
print(*[name for name in ('alpha', 'beta', 'gamma', 'proj', 'tester') if u.find_spec(name)])";
    let script = json!({"repository": "/r", "entry_point": "train.py"});
    image.code("train.py", "");
    image.code(
        "pyproject.toml",
        "[project]\nname = \"proj\"\nversion = \"0.1\"\nrequires-python = \">=3.8\"\n\
         dependencies = [\"alpha<1.1\", \"beta; sys_platform == 'win32'\"]\n\
         [project.optional-dependencies]\ntest = [\"tester\"]\n",
    );
    let made = image.make_script(script.clone()).await.unwrap();
    assert_eq!(
        made.python.installed.as_deref().unwrap(),
        ["alpha==1.0", "gamma==3.0"],
        "{}",
        made.log
    );
    assert_eq!(made.run(packages), "alpha gamma", "no extra was asked for");
    assert!(
        made.log.contains("packages as in ") && made.log.contains("/code/pyproject.toml"),
        "{}",
        made.log
    );
    let again = image.make_script(script.clone()).await.unwrap();
    assert!(again.python.reused && again.python.shared == made.python.shared);

    // As Poetry writes it; its list of optional packages is left alone, too.
    image.code(
        "pyproject.toml",
        "[tool.poetry]\nname = \"proj\"\nversion = \"0.1\"\npackage-mode = false\n\
         [tool.poetry.dependencies]\npython = \"^3.8\"\nalpha = \"^1.1\"\ntester = { version = \"*\", optional = true }\n\
         [tool.poetry.extras]\ntest = [\"tester\"]\n",
    );
    let changed = image.make_script(script).await.unwrap();
    assert_eq!(
        changed.python.installed.as_deref().unwrap(),
        ["alpha==1.1", "gamma==3.0"],
        "{}",
        changed.log
    );
    assert_eq!(changed.run(packages), "alpha gamma");
}
