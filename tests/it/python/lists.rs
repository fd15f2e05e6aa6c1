//! What a task lists: packages of an index, files of its repository, and lists that cannot be had.

use std::fs;

use serde_json::json;

use super::fixture::{Image, wheel};

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
