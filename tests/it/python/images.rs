//! What the image brings: a Python, and packages that need not be installed again.

use std::fs;

use serde_json::json;

use super::fixture::{Image, wheel};

#[tokio::test]
async fn nothing_asked_for_is_the_images_python_at_once() {
    let mut image = Image::new();
    // Without installer and index nothing can be made, nor asked for.
    image.settings.uv = image.index().with_file_name("no-uv");
    fs::remove_dir_all(image.index()).unwrap();
    let made = image.make(json!("# Python 3.11\n")).await.unwrap();
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
