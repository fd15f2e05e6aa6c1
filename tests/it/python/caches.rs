//! Environments that are made once and shared, what stays a task's own, and a cache that is spoilt, full or not there.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use super::fixture::{Image, Run, wheel};

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
async fn a_cache_that_cannot_be_written_costs_time_and_no_task() {
    let image = Image::new();
    wheel(&image.index(), "alpha", "1.0", &[]);
    fs::write(image.cache(), "a file is in the way").unwrap();
    let made = image.make(json!("alpha")).await.unwrap();
    assert_eq!(made.run("import alpha; print(alpha.V)"), "1.0");
    assert!(made.log.contains("cannot be written"), "{}", made.log);
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
async fn s42_a_file_that_was_cut_short_gets_into_no_other_environment() {
    let image = Image::new();
    for name in ["alpha", "beta"] {
        wheel(&image.index(), name, "1.0", &[]);
    }
    let first = image.make(json!("alpha")).await.unwrap();
    let file = first.run("import alpha; print(alpha.__file__)");
    fs::write(&file, "").unwrap();
    let other = image.make(json!("alpha\nbeta")).await.unwrap();
    let told = "files in the cache are not as their packages say (alpha): they are fetched anew";
    assert!(other.log.contains(told), "{}", other.log);
    assert_eq!(
        other.run("import alpha, beta; print(alpha.V, beta.V)"),
        "1.0 1.0"
    );
    let again = image.make(json!("alpha\nbeta")).await.unwrap();
    assert!(again.python.reused, "{}", again.log);
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
