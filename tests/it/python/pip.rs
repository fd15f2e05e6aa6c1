//! The real pip, for those who ask for it.

use serde_json::json;
use trainyard::exec::plan::Manager;

use super::fixture::{Image, wheel};

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
async fn s4_the_real_pip_installs_priority_packages_first_and_leaves_out_optional_ones() {
    let mut image = Image::new();
    image.manager = Manager::Pip;
    wheel(&image.index(), "alpha", "1.0", &[]);
    wheel(&image.index(), "gamma", "1.0", &[]);
    image.bring_pip();
    image.settings.options.priority_packages = vec!["gamma".to_owned()];
    image.settings.options.priority_optional_packages = vec!["absent".to_owned()];
    let made = image.make(json!("alpha\nabsent\ngamma==1.0\n")).await;
    let made = made.unwrap();
    let at = |what: &str| made.log.lines().position(|line| line.trim() == what);
    let first = at("Successfully installed gamma-1.0");
    let then = at("Successfully installed alpha-1.0");
    assert!(first.is_some() && first < then, "{}", made.log);
    assert!(
        made.log.contains("left out, as it is optional: "),
        "{}",
        made.log
    );
    assert_eq!(
        made.run("import alpha, gamma; print(alpha.V, gamma.V)"),
        "1.0 1.0"
    );
}
