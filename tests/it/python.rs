//! Environments made by the real uv, against a local folder of tiny wheels: no test needs the internet.

mod fixture;

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use self::fixture::{Image, Run, wheel};

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
        begun.elapsed() < Duration::from_secs(2),
        "warm start took {:?}",
        begun.elapsed()
    );
    assert!(second.python.reused);
    assert_eq!(second.python.environment, first.python.environment);
    assert_eq!(second.python.installed, first.python.installed);
    // What the first run recorded leads to the same place, without asking the index.
    image.empty_the_index();
    let frozen = image.make(json!(["alpha==1.0"])).await.unwrap();
    assert_eq!(frozen.python.environment, first.python.environment);
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
    assert_ne!(first.python.environment, second.python.environment);
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
        ("./gone\n", "requirement file://"),
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
        begun.elapsed() < Duration::from_millis(100),
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
    assert_ne!(first.python.environment, second.python.environment);
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
async fn the_repositorys_files_count_where_the_task_lists_nothing() {
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
            .environment
            .as_ref()
            .unwrap()
            .starts_with(&image.settings.own),
        "files of the task: not shared"
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
    image.pip = true;
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
