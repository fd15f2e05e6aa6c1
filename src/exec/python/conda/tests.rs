//! Under which key an environment is found again, and what is told of one that could not be made.

use std::time::Duration;

use super::super::Options;
use super::*;

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
        let wanted = Wanted {
            specs: vec!["pytorch".to_owned()],
            ..Wanted::default()
        };
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
