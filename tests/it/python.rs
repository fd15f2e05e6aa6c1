//! Environments made by the real uv, against a local folder of tiny wheels: no test needs the internet.

mod brought;
pub mod conda;
mod disk;
pub mod fixture;

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use self::fixture::{Image, Run, wheel};
use trainyard::exec::plan::Manager;

#[tokio::test]
async fn listed_packages_are_installed_and_recorded() {
    let image = Image::new();
    wheel(&image.index(), "alpha", "1.0", &["beta"]);
    wheel(&image.index(), "beta", "2.0", &[]);
    let made = image
        .make(json!("# Python 3\n\nalpha == 1.0\n"))
        .await
        .unwrap();
    assert_eq!(
        made.python.installed.as_deref().unwrap(),
        ["alpha==1.0", "beta==2.0"]
    );
    assert!(!made.python.reused);
    assert_eq!(
        made.run("import alpha, beta, sys; print(alpha.V, beta.V, sys.prefix != sys.base_prefix)"),
        "1.0 2.0 True"
    );
    assert!(
        made.log.contains(" + alpha==1.0"),
        "uv's own words are in the log: {}",
        made.log
    );
    let clearml =
        made.run("import importlib.util as u; print('alpha' in str(u.find_spec('alpha').origin))");
    assert_eq!(clearml, "True");
}

#[tokio::test]
async fn the_same_list_finds_its_environment_at_once() {
    let image = Image::new();
    wheel(&image.index(), "alpha", "1.0", &[]);
    let first = image.make(json!("alpha\n")).await.unwrap();
    let begun = Instant::now();
    let second = image.make(json!("# other comment\nalpha")).await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(2) * 5,
        "warm start took {:?}",
        begun.elapsed()
    );
    assert!(second.python.reused);
    assert_eq!(second.python.shared, first.python.shared);
    assert_ne!(
        second.python.environment, first.python.environment,
        "a layer for each"
    );
    assert_eq!(second.python.installed, first.python.installed);
    // What the first run recorded leads to the same place, without asking the index.
    image.empty_the_index();
    let frozen = image.make(json!(["alpha==1.0"])).await.unwrap();
    assert_eq!(frozen.python.shared, first.python.shared);
    assert!(frozen.python.reused);
}

#[tokio::test]
async fn a_changed_package_installs_only_the_difference() {
    let image = Image::new();
    for version in ["1.0", "1.1"] {
        wheel(&image.index(), "alpha", version, &[]);
    }
    wheel(&image.index(), "beta", "2.0", &[]);
    let first = image.make(json!("alpha==1.0\nbeta\n")).await.unwrap();
    let second = image.make(json!("alpha==1.1\nbeta\n")).await.unwrap();
    assert_ne!(first.python.shared, second.python.shared);
    assert_eq!(
        first.run("import alpha; print(alpha.V)"),
        "1.0",
        "the first environment is as it was"
    );
    assert_eq!(second.run("import alpha; print(alpha.V)"), "1.1");
    // One file, linked from both environments: nothing was copied.
    let inode = |run: &Run| {
        run.run("import os, beta; s = os.stat(beta.__file__); print(s.st_ino, s.st_nlink > 2)")
    };
    assert_eq!(inode(&first), inode(&second));
    assert!(inode(&first).ends_with("True"));
}

#[tokio::test]
async fn tasks_that_ask_for_the_same_at_once_make_it_once() {
    let image = Image::new();
    wheel(&image.index(), "alpha", "1.0", &[]);
    let all = futures::future::join_all((0..4).map(|_| image.make(json!("alpha")))).await;
    let all: Vec<Run> = all.into_iter().map(Result::unwrap).collect();
    assert_eq!(all.iter().filter(|run| !run.python.reused).count(), 1);
    assert!(
        all.iter()
            .all(|run| run.run("import alpha; print(alpha.V)") == "1.0")
    );
}

#[tokio::test]
async fn a_spoilt_environment_is_made_anew() {
    let image = Image::new();
    wheel(&image.index(), "alpha", "1.0", &[]);
    let first = image.make(json!("alpha")).await.unwrap();
    let site = first.run("import alpha, os; print(os.path.dirname(alpha.__file__))");
    fs::remove_dir_all(format!("{site}/../alpha-1.0.dist-info")).unwrap();
    let second = image.make(json!("alpha")).await.unwrap();
    assert!(!second.python.reused);
    assert_eq!(second.run("import alpha; print(alpha.V)"), "1.0");
}

#[tokio::test]
async fn an_unsatisfiable_requirement_is_one_clear_sentence() {
    let image = Image::new();
    wheel(&image.index(), "alpha", "1.0", &["beta==1"]);
    wheel(&image.index(), "beta", "2.0", &[]);
    for (list, expected) in [
        (
            "nosuch==9.9\n",
            "requirement nosuch==9.9 cannot be satisfied: nosuch was not found",
        ),
        ("alpha==7\n", "requirement alpha==7 cannot be satisfied: "),
        (
            "beta==1\nbeta==2\n",
            "the requirements contradict each other: beta==1 and beta==2",
        ),
        ("beta=1\n", "requirement \"beta=1\" cannot be read: "),
        ("./gone\n", "requirement ./gone is not there"),
    ] {
        let failure = image.make(json!(list)).await.unwrap_err();
        assert!(failure.sentence.starts_with(expected), "{failure}");
        assert_eq!(failure.to_string().lines().count(), 1);
    }
    let failure = image.make(json!("alpha")).await.unwrap_err();
    assert!(failure.sentence.contains("beta==1"), "{failure}");
}

#[tokio::test]
async fn an_index_that_cannot_be_reached_is_named() {
    let mut image = Image::new();
    image.settings.index_url = Some("http://user:canary-7c@127.0.0.1:9/simple".to_owned());
    image
        .settings
        .variables
        .insert("UV_HTTP_RETRIES".into(), "0".into());
    let failure = image.make(json!("alpha")).await.unwrap_err();
    assert!(
        failure
            .sentence
            .contains("127.0.0.1:9/simple/alpha/ cannot be fetched"),
        "{failure}"
    );
    assert!(!failure.to_string().contains("canary-7c"), "{failure}");
}

#[tokio::test]
async fn nothing_asked_for_is_the_images_python_at_once() {
    let image = Image::new();
    let begun = Instant::now();
    let made = image.make(json!("# Python 3.11\n")).await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(1) * 5,
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(
        (made.python.environment, made.python.installed),
        (None, None)
    );
    assert!(made.python.interpreter.is_some());
    assert!(!image.cache().exists(), "nothing was made");
}

#[tokio::test]
async fn an_image_that_holds_everything_runs_as_it_is() {
    let image = Image::prebuilt(&[("alpha", "1.0")]);
    image.empty_the_index();
    let made = image.make(json!("alpha>=1\n")).await.unwrap();
    assert_eq!(made.python.environment, None);
    assert_eq!(made.python.installed.as_deref().unwrap(), ["alpha==1.0"]);
    assert_eq!(made.run("import alpha; print(alpha.V)"), "1.0");
}

#[tokio::test]
async fn packages_of_the_image_are_used_and_not_installed_again() {
    let image = Image::prebuilt(&[("alpha", "1.0")]);
    wheel(&image.index(), "alpha", "1.5", &[]);
    wheel(&image.index(), "beta", "2.0", &["alpha"]);
    let made = image.make(json!("beta\nalpha\n")).await.unwrap();
    assert_eq!(
        made.run("import alpha, beta; print(alpha.V, beta.V)"),
        "1.0 2.0"
    );
    assert!(!made.log.contains("alpha"), "{}", made.log);
    assert_eq!(
        made.python.installed.as_deref().unwrap(),
        ["alpha==1.0", "beta==2.0"]
    );

    // What does not fit is installed beside it, and the image stays as it is.
    let other = image.make(json!("beta\nalpha>1\n")).await.unwrap();
    assert_eq!(
        other.run("import alpha, beta; print(alpha.V, beta.V)"),
        "1.5 2.0"
    );
    assert_eq!(
        other.python.installed.as_deref().unwrap(),
        ["alpha==1.5", "beta==2.0"]
    );
    assert_eq!(made.run("import alpha; print(alpha.V)"), "1.0");
}

#[tokio::test]
async fn an_image_with_other_packages_gets_an_environment_of_its_own() {
    let image = Image::prebuilt(&[("alpha", "1.0")]);
    wheel(&image.index(), "beta", "2.0", &["alpha"]);
    let first = image.make(json!("beta\n")).await.unwrap();
    image.uninstall("alpha");
    let second = image.make(json!("beta\n")).await.unwrap();
    assert_ne!(first.python.shared, second.python.shared);
    assert_eq!(
        second.run("import alpha, beta; print(alpha.V, beta.V)"),
        "1.0 2.0"
    );
}

#[tokio::test]
async fn a_working_directory_that_is_not_there_is_named() {
    let script = json!({"repository": "/r", "entry_point": "train.py", "working_dir": "gone"});
    let failure = Image::new().make_script(script).await.unwrap_err();
    assert!(
        failure.sentence.starts_with("the working directory /"),
        "{failure}"
    );
}

#[tokio::test]
async fn files_of_the_repository_count_where_the_task_lists_nothing() {
    let image = Image::new();
    wheel(&image.index(), "alpha", "1.0", &[]);
    wheel(&image.index(), "beta", "2.0", &[]);
    image.code("requirements.txt", "alpha\n");
    image.code("src/requirements.txt", "-r more.txt\n");
    image.code("src/more.txt", "beta\n");
    image.code("src/train.py", "");
    let script = json!({"repository": "/r", "entry_point": "train.py", "working_dir": "src"});
    let made = image.make_script(script.clone()).await.unwrap();
    assert_eq!(
        made.run("import alpha, beta; print(alpha.V, beta.V)"),
        "1.0 2.0"
    );
    assert!(
        made.python
            .shared
            .as_ref()
            .unwrap()
            .starts_with(image.cache()),
        "what the files ask for is shared, whatever their names"
    );
    fs::remove_file(
        image
            .settings
            .own
            .parent()
            .unwrap()
            .join("code/src/requirements.txt"),
    )
    .unwrap();
    let made = image.make_script(script).await.unwrap();
    assert_eq!(made.python.installed.as_deref().unwrap(), ["alpha==1.0"]);
}

#[tokio::test]
async fn pip_installs_on_request() {
    let mut image = Image::new();
    image.manager = Manager::Pip;
    wheel(&image.index(), "alpha", "1.0", &[]);
    image.bring_pip();
    let made = image.make(json!("alpha\n")).await.unwrap();
    assert!(
        made.log.contains("Successfully installed alpha-1.0"),
        "{}",
        made.log
    );
    assert_eq!(made.run("import alpha; print(alpha.V)"), "1.0");
    let failure = image.make(json!("nosuch==9.9\n")).await.unwrap_err();
    assert!(
        failure
            .sentence
            .starts_with("requirement nosuch==9.9 cannot be satisfied"),
        "{failure}"
    );
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_costs_time_and_no_task() {
    let image = Image::new();
    wheel(&image.index(), "alpha", "1.0", &[]);
    fs::write(image.cache(), "a file is in the way").unwrap();
    let made = image.make(json!("alpha")).await.unwrap();
    assert_eq!(made.run("import alpha; print(alpha.V)"), "1.0");
    assert!(made.log.contains("cannot be written"), "{}", made.log);
}

#[tokio::test]
async fn another_version_than_recorded_is_used_with_a_remark() {
    let image = Image::new();
    let made = image
        .make_script(json!({"binary": "python3.4", "entry_point": "x.py", "diff": "1"}))
        .await
        .unwrap();
    assert!(
        made.log.contains("the image has no python3.4"),
        "{}",
        made.log
    );
    assert!(made.python.interpreter.is_some());
}

#[tokio::test]
async fn an_image_without_python_gets_one_or_a_clear_sentence() {
    let mut image = Image::new();
    image
        .settings
        .variables
        .insert("PATH".into(), "/nonexistent".into());
    image.settings.variables.insert(
        "UV_PYTHON_INSTALL_MIRROR".into(),
        "http://127.0.0.1:9/python".into(),
    );
    image
        .settings
        .variables
        .insert("UV_HTTP_RETRIES".into(), "0".into());
    let failure = image.make(json!("alpha")).await.unwrap_err();
    assert!(
        failure
            .sentence
            .starts_with("the image has no Python and none could be downloaded: "),
        "{failure}"
    );
    let shell = json!({"binary": "sh", "entry_point": "x.sh", "diff": "echo 1"});
    assert_eq!(
        image.make_script(shell).await.unwrap().python.interpreter,
        None
    );
}

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
async fn s4_the_real_pip_resolves_as_it_did_before_on_request() {
    let mut image = Image::new();
    image.manager = Manager::Pip;
    wheel(&image.index(), "alpha", "1.0", &[]);
    wheel(&image.index(), "alpha", "2.0", &[]);
    wheel(&image.index(), "beta", "1.0", &["alpha==2.0"]);
    wheel(&image.index(), "torch", "2.3.1", &[]);
    image.bring_pip();
    // The two contradict each other, which only its new resolver minds.
    let list = json!("alpha==1.0\nbeta\ntorch\n");
    image.settings.options.legacy_resolver = Vec::new();
    image.make(list.clone()).await.unwrap_err();
    image.settings.options.legacy_resolver = vec![">=20.3".to_owned()];
    // What is said to uv is not said to pip, which would not understand it.
    image.settings.options.best_match = true;
    let made = image.make(list).await.unwrap();
    assert_eq!(
        made.run("import alpha, beta; print(alpha.V, beta.V)"),
        "1.0 1.0"
    );
    let told = "PyTorch: pip itself chooses the build, without a look at the driver";
    assert!(made.log.contains(told), "{}", made.log);
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

#[tokio::test]
async fn a_package_of_the_checkout_lies_on_top_of_what_is_shared() {
    let image = Image::new();
    wheel(&image.index(), "alpha", "1.0", &[]);
    image.bring_build_backend();
    image.code("lib/pyproject.toml", "[project]\nname = \"ours\"\nversion = \"0.3\"\ndependencies = [\"alpha\"]\n[build-system]\nrequires = [\"backend\"]\nbuild-backend = \"backend\"\n");
    image.code(
        "lib/ours.py",
        "import alpha\nV = 'of the checkout ' + alpha.V\n",
    );
    image.code("train.py", "");
    let script =
        json!({"repository": "/r", "entry_point": "train.py", "requirements": {"pip": "./lib\n"}});
    let made = image.make_script(script.clone()).await.unwrap();
    assert_eq!(
        made.run("import ours; print(ours.V)"),
        "of the checkout 1.0"
    );
    let (shared, own) = (
        made.python.shared.clone().unwrap(),
        made.python.environment.clone().unwrap(),
    );
    assert!(shared.starts_with(image.cache()) && own.starts_with(&image.settings.own));
    let again = image.make_script(script).await.unwrap();
    assert_eq!(
        again.python.shared.as_ref(),
        Some(&shared),
        "what comes from the index is shared"
    );
    assert!(
        !made
            .run(&format!(
                "import os; print(os.listdir({:?}))",
                shared.join("lib").display()
            ))
            .contains("ours")
    );
}

/// One option, or one kind of line. The image holds alpha 1.0; its index has alpha 1.5, gamma 1.0 and gamma 2.0.
struct Case {
    name: &'static str,
    /// Sets it; the answer is the task's list.
    list: fn(&mut Image) -> String,
    code: &'static str,
    prints: &'static str,
    /// What the log has to hold.
    says: &'static str,
}

/// Two indexes with these files, `public` and the configuration's own, `extra`.
fn two_indexes(image: &mut Image, files: &[(&str, &str, &str)]) {
    let index = image.indexes(files);
    let variables = &mut image.settings.variables;
    variables.remove("PIP_NO_INDEX");
    variables.remove("PIP_FIND_LINKS");
    variables.insert("UV_DEFAULT_INDEX".to_owned(), index.replace("{}", "public"));
    image.settings.options.extra_index_url = vec![index.replace("{}", "extra")];
}

/// A package of the checkout that the fixture's backend builds.
const PROJECT: &str = r#"
[project]
name = "ours"
version = "0.3"
dependencies = ["gamma<2"]
[build-system]
requires = ["backend"]
build-backend = "backend"
"#;
const GAMMA: &str = "import gamma; print(gamma.V)";
const ALPHA: &str = "import alpha; print(alpha.V)";

#[tokio::test]
async fn s4_each_option_and_each_kind_of_line_has_its_effect() {
    for case in [
        Case {
            name: "no option",
            list: |_| "alpha\ngamma\n".to_owned(),
            code: "import alpha, gamma; print(alpha.V, gamma.V)",
            prints: "1.0 2.0",
            says: " + gamma==2.0",
        },
        Case {
            name: "constraints",
            list: |image| {
                image.code("limits.txt", "gamma<2\n");
                "-c limits.txt\ngamma\n".to_owned()
            },
            code: GAMMA,
            prints: "1.0",
            says: " + gamma==1.0",
        },
        Case {
            name: "hash",
            list: |image| {
                let hash = image.sha256("gamma-1.0-py3-none-any.whl");
                format!("gamma==1.0 --hash=sha256:{hash}\n")
            },
            code: GAMMA,
            prints: "1.0",
            says: " + gamma==1.0",
        },
        Case {
            name: "editable",
            list: |image| {
                image.bring_build_backend();
                image.code("lib/pyproject.toml", PROJECT);
                image.code("lib/ours.py", "import gamma\n");
                "-e ./lib\n".to_owned()
            },
            code: "import ours; print('code/lib/ours.py' in ours.__file__, ours.gamma.V)",
            prints: "True 1.0",
            says: "ours==0.3",
        },
        Case {
            name: "extra_index_url",
            list: |image| {
                two_indexes(
                    image,
                    &[("public", "gamma", "3.0"), ("extra", "beta", "4.0")],
                );
                "beta\ngamma\n".to_owned()
            },
            code: "import beta, gamma; print(beta.V, gamma.V)",
            prints: "4.0 3.0",
            says: " + beta==4.0",
        },
        Case {
            name: "extra_index_url, of a package that both have",
            list: |image| {
                two_indexes(
                    image,
                    &[("public", "gamma", "3.0"), ("extra", "gamma", "1.0")],
                );
                "gamma\n".to_owned()
            },
            code: GAMMA,
            prints: "1.0",
            says: " + gamma==1.0",
        },
        Case {
            name: "uv_unsafe_best_match",
            list: |image| {
                two_indexes(
                    image,
                    &[("public", "gamma", "3.0"), ("extra", "gamma", "1.0")],
                );
                image.settings.options.best_match = true;
                "gamma\n".to_owned()
            },
            code: GAMMA,
            prints: "3.0",
            says: " + gamma==3.0",
        },
        Case {
            name: "extra_pip_install_flags",
            list: |image| {
                let more = image.index().with_file_name("more");
                fs::create_dir(&more).unwrap();
                wheel(&more, "beta", "4.0", &[]);
                let flags = &mut image.settings.options.extra_flags;
                *flags = vec!["--find-links".to_owned(), more.display().to_string()];
                "beta\n".to_owned()
            },
            code: "import beta; print(beta.V)",
            prints: "4.0",
            says: " + beta==4.0",
        },
        Case {
            name: "force_upgrade",
            list: |image| {
                image.settings.options.force_upgrade = true;
                "alpha\n".to_owned()
            },
            code: ALPHA,
            prints: "1.5",
            says: " + alpha==1.5",
        },
        Case {
            name: "system_site_packages: false, with what the image holds",
            list: |image| {
                image.settings.options.system_site_packages = false;
                "alpha<1.5\n".to_owned()
            },
            code: ALPHA,
            prints: "1.0",
            says: " + alpha==1.0",
        },
        Case {
            name: "system_site_packages: false, with what only the image holds",
            list: |image| {
                image.settings.options.system_site_packages = false;
                "gamma\n".to_owned()
            },
            code: "import gamma, importlib.util as u; print(gamma.V, u.find_spec('alpha'))",
            prints: "2.0 None",
            says: " + gamma==2.0",
        },
        Case {
            name: "post_packages",
            list: |image| {
                image.bring_source("late", "gamma");
                image.settings.options.post_packages = vec!["late".to_owned()];
                "late\ngamma==1.0\n".to_owned()
            },
            code: "import late; print(late.V)",
            prints: "built beside gamma 1.0",
            says: " + late==1.0",
        },
        Case {
            name: "post_packages, of an index that the configuration names",
            list: |image| {
                two_indexes(
                    image,
                    &[("public", "gamma", "1.0"), ("extra", "beta", "4.0")],
                );
                image.settings.options.post_packages = vec!["beta".to_owned()];
                "beta\ngamma\n".to_owned()
            },
            code: "import beta, gamma; print(beta.V, gamma.V)",
            prints: "4.0 1.0",
            says: " + beta==4.0",
        },
        Case {
            name: "post_optional_packages",
            list: |image| {
                image.settings.options.post_optional_packages = vec!["absent".to_owned()];
                "absent\ngamma==1.0\n".to_owned()
            },
            code: GAMMA,
            prints: "1.0",
            says: "left out, as it is optional: ",
        },
    ] {
        let mut image = Image::prebuilt(&[("alpha", "1.0")]);
        for (name, version) in [("alpha", "1.5"), ("gamma", "1.0"), ("gamma", "2.0")] {
            wheel(&image.index(), name, version, &[]);
        }
        let list = (case.list)(&mut image);
        let name = case.name;
        let made = image.make(json!(list)).await;
        let made = made.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        assert_eq!(made.run(case.code), case.prints, "{name}: {}", made.log);
        assert!(made.log.contains(case.says), "{name}: {}", made.log);
    }
}

#[tokio::test]
async fn s4_a_file_with_another_hash_than_the_list_names_is_refused() {
    let image = Image::new();
    wheel(&image.index(), "gamma", "1.0", &[]);
    image.bring_build_backend();
    image.code("lib/pyproject.toml", PROJECT);
    let hashed = format!("gamma==1.0 --hash=sha256:{}\n", "0".repeat(64));
    for list in [hashed.clone(), format!("{hashed}./lib\n")] {
        let failure = image.make(json!(list)).await.unwrap_err();
        assert!(
            failure
                .sentence
                .starts_with("requirement gamma==1.0 is refused"),
            "{list}: {failure}"
        );
    }
}

#[tokio::test]
async fn what_a_task_installs_itself_stays_its_own() {
    let image = Image::new();
    wheel(&image.index(), "alpha", "1.0", &[]);
    let first = image.make(json!("alpha")).await.unwrap();
    first.run(
        "import os, site; open(os.path.join(site.getsitepackages()[0], 'mine.py'), 'w').write('')",
    );
    assert_eq!(first.run("import mine, alpha; print(alpha.V)"), "1.0");
    let second = image.make(json!("alpha")).await.unwrap();
    assert_eq!(second.python.shared, first.python.shared);
    assert_eq!(
        second.run("import importlib.util as u; print(u.find_spec('mine'))"),
        "None"
    );
}

#[tokio::test]
async fn s42_a_file_that_was_cut_short_is_found_and_replaced() {
    let image = Image::new();
    wheel(&image.index(), "alpha", "1.0", &[]);
    let first = image.make(json!("alpha")).await.unwrap();
    let file = first.run("import alpha; print(alpha.__file__)");
    drop(first);
    // The hard link into uv's own cache is cut short with it.
    fs::write(&file, "").unwrap();
    let second = image.make(json!("alpha")).await.unwrap();
    assert!(
        second.log.contains("is damaged (alpha): it is made anew"),
        "{}",
        second.log
    );
    assert_eq!(second.run("import alpha; print(alpha.V)"), "1.0");
}

#[tokio::test]
async fn s42_the_cache_stays_within_its_size() {
    let mut image = Image::new();
    image.settings.options.cache_limit = Some(1 << 20);
    let mut last = None;
    for name in ["alpha", "beta", "gamma", "delta"] {
        image.large_wheel(name, 600 << 10);
        last = Some(image.make(json!(name)).await.unwrap());
    }
    let last = last.unwrap();
    assert!(last.log.contains("removed from the cache"), "{}", last.log);
    assert_eq!(last.run("import delta; print(delta.V)"), "1.0");
    assert!(image.cache_size() <= 2 << 20, "{}", image.cache_size());
}

#[tokio::test]
async fn the_build_of_pytorch_follows_the_cuda_version_and_is_told() {
    // Small stand-ins: `torch` at the package index, and builds at an index for each CUDA version.
    let mut image = Image::new();
    let index = image.indexes(&[
        ("public", "torch", "2.3.1"),
        ("public", "numpy", "1.0"),
        ("cu118", "torch", "2.3.1+cu118"),
        ("cpu", "torch", "2.3.1+cpu"),
    ]);
    image.settings.variables.remove("PIP_NO_INDEX");
    image.settings.variables.remove("PIP_FIND_LINKS");
    let public = index.replace("{}", "public");
    image
        .settings
        .variables
        .insert("UV_DEFAULT_INDEX".to_owned(), public);
    image.settings.options.torch_index = Some(index);
    for (cuda, expected, said) in [
        (
            "12.4",
            "2.3.1",
            "as the package index has it, built for CUDA 12.1; it suits CUDA 12.4",
        ),
        (
            "118",
            "2.3.1+cu118",
            "the build for CUDA 11.8 of torch==2.3.1 is installed",
        ),
        (
            "0",
            "2.3.1+cpu",
            "the build for the CPU of torch==2.3.1 is installed",
        ),
        ("117", "2.3.1+cu118", "the build for CUDA 11.8"),
        ("102", "2.3.1+cpu", "the build for the CPU"),
    ] {
        image.settings.options.cuda = Some((cuda.to_owned(), "agent.cuda_version".to_owned()));
        let made = image.make(json!("torch==2.3.1\nnumpy\n")).await.unwrap();
        assert_eq!(
            made.run("import torch, numpy; print(torch.V)"),
            expected,
            "{cuda}: {}",
            made.log
        );
        assert!(made.log.contains(said), "{cuda}: {}", made.log);
    }
    // Whoever finds it made is told, too.
    image.settings.options.cuda = Some(("118".to_owned(), "agent.cuda_version".to_owned()));
    let again = image.make(json!("torch==2.3.1\nnumpy\n")).await.unwrap();
    assert!(again.python.reused);
    let told = "PyTorch: torch==2.3.1+cu118, as it was chosen for an earlier task with the same list; CUDA 11.8 (agent.cuda_version)";
    assert!(again.log.contains(told), "{}", again.log);
    image.settings.options.torch_index = Some("file:///nowhere/{}".to_owned());
    image.settings.options.cuda = Some(("116".to_owned(), "driver".to_owned()));
    let made = image.make(json!("torch==2.3.1\n")).await.unwrap();
    assert!(
        made.log.contains("but no build for that was found"),
        "{}",
        made.log
    );
    assert_eq!(made.run("import torch; print(torch.V)"), "2.3.1");
    // Ahead of the task, where its node's driver cannot be asked, nothing is guessed; what the settings say counts.
    image.settings.driver_elsewhere = true;
    image.make(json!("torch==2.3.1\n")).await.unwrap();
    image.settings.options.cuda = None;
    if trainyard::exec::smi::cuda("/none").unwrap_or(0) == 0 {
        let failure = image.make(json!("torch==2.3.1\n")).await.unwrap_err();
        assert!(failure.to_string().contains("not known here"), "{failure}");
        image.make(json!("numpy\n")).await.unwrap();
    }
}
