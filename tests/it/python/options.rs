//! Options of the configuration, and kinds of lines in a task's list.

use std::fs;

use serde_json::json;

use super::fixture::{Image, wheel};

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
            name: "priority_packages",
            list: |image| {
                image.bring_source("late", "gamma");
                image.settings.options.priority_packages = vec!["gamma".to_owned()];
                "late\ngamma==1.0\n".to_owned()
            },
            code: "import late; print(late.V)",
            prints: "built beside gamma 1.0",
            says: "late cannot be built with what it declares alone: it is built beside gamma==1.0 ",
        },
        Case {
            name: "priority_packages, and a part of the checkout",
            list: |image| {
                image.bring_build_backend();
                image.code("lib/pyproject.toml", PROJECT);
                image.code("lib/ours.py", "");
                image.bring_source("late", "gamma");
                image.settings.options.priority_packages = vec!["gamma".to_owned()];
                "late\ngamma==1.0\n./lib\n".to_owned()
            },
            code: "import late, ours; print(late.V)",
            prints: "built beside gamma 1.0",
            says: "ours==0.3",
        },
        Case {
            name: "priority_optional_packages",
            list: |image| {
                let optional = &mut image.settings.options.priority_optional_packages;
                *optional = vec!["absent".to_owned(), "beta".to_owned()];
                wheel(&image.index(), "beta", "3.0", &[]);
                "absent==1.0\ngamma==1.0\nbeta\n".to_owned()
            },
            code: "import beta, gamma; print(beta.V, gamma.V)",
            prints: "3.0 1.0",
            says: "left out, as it is optional: requirement absent==1.0 cannot be satisfied",
        },
        Case {
            name: "priority_optional_packages, and a part of the checkout",
            list: |image| {
                image.bring_build_backend();
                image.code("lib/pyproject.toml", PROJECT);
                image.code("lib/ours.py", "");
                let optional = &mut image.settings.options.priority_optional_packages;
                *optional = vec!["absent".to_owned()];
                "absent==1.0\n./lib\n".to_owned()
            },
            code: "import gamma, ours; print(gamma.V)",
            prints: "1.0",
            says: "left out, as it is optional: ",
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
async fn s4_a_source_that_priority_packages_do_not_help_fails_with_its_own_words() {
    let mut image = Image::new();
    wheel(&image.index(), "gamma", "1.0", &[]);
    image.bring_source("late", "nowhere");
    let list = json!("late\ngamma\n");
    image.settings.options.priority_packages = vec!["gamma".to_owned()];
    let failure = image.make(list.clone()).await.unwrap_err();
    let expected = "requirement late==1.0 could not be built in this image";
    assert_eq!(failure.sentence, expected);
    // The list has nothing of that name.
    image.bring_source("late", "gamma");
    image.settings.options.priority_packages = vec!["beta".to_owned()];
    let failure = image.make(list.clone()).await.unwrap_err();
    assert_eq!(failure.sentence, expected);
    image.settings.options.priority_packages = vec!["gamma".to_owned()];
    let made = image.make(list).await.unwrap();
    let built = made.run("import late; print(late.V)");
    assert_eq!(built, "built beside gamma 1.0", "{}", made.log);
}
