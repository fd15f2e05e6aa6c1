//! What conda is asked for, and under which key it is found again.

use std::time::Duration;

use super::*;

#[test]
fn lists_of_the_task_and_files_of_the_repository_are_read() {
    assert_eq!(
        of_list("# c\nnumpy = 1.2=py\npip @ file:///x/pip\n").specs,
        ["numpy=1.2=py", "pip"]
    );
    let file = "name: x\nchannels: [conda-forge]\ndependencies:\n  - python=3.11\n  - numpy >=1\n  - pip:\n    - six==1\n";
    let wanted = of_file(file).unwrap();
    assert_eq!(wanted.channels, ["conda-forge"]);
    assert_eq!(wanted.specs, ["python=3.11", "numpy>=1"]);
    assert_eq!(wanted.pip, ["six==1"]);
    assert!(of_file("dependencies: 3").is_err());
}

#[test]
fn the_configuration_counts_where_something_is_listed_for_pip() {
    let options = Options {
        extra_index_url: vec!["https://index.example/simple".to_owned()],
        extra_flags: vec!["--no-binary".to_owned(), "six".to_owned()],
        best_match: true,
        ..Options::default()
    };
    let added = |pip: &[&str], options: &Options| {
        let mut wanted = Wanted {
            pip: pip.iter().map(|line| (*line).to_owned()).collect(),
            ..Wanted::default()
        };
        wanted.add_to_pip(options, &[]).unwrap();
        wanted
    };
    let wanted = added(&["six==1"], &options);
    assert_eq!(
        wanted.pip,
        ["--extra-index-url https://index.example/simple", "six==1"]
    );
    assert_eq!(
        wanted.pip_arguments,
        [
            "--no-binary",
            "six",
            "--index-strategy",
            "unsafe-best-match"
        ]
    );
    assert_eq!(added(&["# none"], &options), Wanted::default());
    let wanted = added(&["six==1"], &Options::default());
    assert_eq!(wanted.pip, ["six==1"]);
    assert_eq!(wanted.pip_arguments, [""; 0]);
}

#[test]
fn names_of_specs_are_found() {
    for (spec, name) in [
        ("numpy=1", "numpy"),
        ("conda-forge::Six>=1", "six"),
        ("a[build=x]", "a"),
    ] {
        assert_eq!(name_of(spec), name);
    }
}

#[test]
fn what_conda_lacks_is_named() {
    let output = "Looking...\nerror    libmamba Could not solve\n  nosuch =* * does not exist (perhaps a typo)\n";
    assert!(
        explain_conda(output)
            .sentence
            .contains("nosuch =* * does not exist")
    );
}

fn settings(variables: &[(&str, &str)]) -> PythonSettings {
    PythonSettings {
        uv: "uv".into(),
        cache: "/c".into(),
        own: "/o".into(),
        alone: false,
        driver_elsewhere: false,
        variables: variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        index_url: None,
        trusted: None,
        limit: Duration::from_secs(1),
        options: Options::default(),
        brought: Vec::new(),
    }
}

#[test]
fn what_was_chosen_for_another_driver_is_not_found() {
    let settings = settings(&[]);
    let key = |cuda| {
        let wanted = of_list("pytorch\n");
        super::key(&wanted, Path::new("/bin/conda"), &settings, cuda)
    };
    assert_eq!(key(Some("124")), key(Some("124")));
    // Builds for the CPU are no environment for a task with a GPU, though the list is the same.
    assert_ne!(key(None), key(Some("124")));
    assert_ne!(key(Some("118")), key(Some("124")));
}

#[test]
fn condas_own_variable_says_for_which_cuda_builds_are_chosen() {
    for named in ["12.4", ""] {
        let found = cuda(&settings(&[(CUDA, named)]));
        assert_eq!(found.as_deref(), Some(named));
    }
}
