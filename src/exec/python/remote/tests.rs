use super::*;

fn brought(url: &str, revision: &str) -> Brought {
    Brought {
        url: url.to_owned(),
        revision: revision.to_owned(),
        commit: "c0ffee".to_owned(),
        folder: "/requirements/a-c0ffee".to_owned(),
        failure: None,
        inner: None,
    }
}

#[test]
fn every_usual_form_is_read() {
    for (line, name, url, revision) in [
        (
            "alpha @ git+https://git.example/team/alpha.git@main",
            Some("alpha"),
            "https://git.example/team/alpha.git",
            "main",
        ),
        (
            "git+https://git.example/alpha@feature/x#egg=Alpha_B[gpu]&subdirectory=python",
            Some("alpha-b"),
            "https://git.example/alpha",
            "feature/x",
        ),
        (
            "alpha[gpu] @ git+ssh://git@git.example/alpha.git@v1.0 ; python_version > '3'",
            Some("alpha"),
            "ssh://git@git.example/alpha.git",
            "v1.0",
        ),
        (
            "git+https://git.example/alpha",
            None,
            "https://git.example/alpha",
            "",
        ),
    ] {
        let remote = Remote::of_line(line).expect(line);
        assert_eq!(remote.name.as_deref(), name, "{line}");
        assert_eq!(
            (remote.url.as_str(), remote.revision.as_str()),
            (url, revision)
        );
    }
    for line in [
        "alpha==1.0",
        "--extra-index-url https://u:p@host/git+x",
        "# git+https://git.example/a",
        "alpha @ https://host/alpha.zip",
    ] {
        assert!(Remote::of_line(line).is_none(), "{line}");
    }
}

#[test]
fn a_line_is_pinned_without_its_secret_and_led_to_its_folder() {
    let brought = [brought("https://git.example/alpha.git", "main")];
    let written = "six\nalpha[gpu] @ git+https://me:s3cret@git.example/alpha@main#subdirectory=py ; python_version > '3'\n";
    let pinned = pinned(written, &brought).unwrap();
    assert_eq!(
        pinned,
        "six\nalpha[gpu] @ git+https://git.example/alpha@c0ffee#subdirectory=py ; python_version > '3'\n"
    );
    assert_eq!(
        on_disk(&pinned, &brought),
        "six\nalpha[gpu] @ file:///requirements/a-c0ffee/py ; python_version > '3'\n"
    );
    assert_eq!(
        recorded("alpha @ file:///requirements/a-c0ffee/py", &brought),
        "alpha @ git+https://git.example/alpha.git@c0ffee#subdirectory=py"
    );
    assert_eq!(recorded("six==1", &brought), "six==1");
    let other = "beta @ file:///requirements/a-c0ffee0";
    assert_eq!(recorded(other, &brought), other);
}

#[test]
fn what_could_not_be_brought_fails_where_it_is_needed() {
    let mut brought = brought("https://git.example/alpha", "");
    brought.failure = Some("no such repository".to_owned());
    let brought = [brought];
    let failure = pinned("alpha @ git+https://git.example/alpha\n", &brought).unwrap_err();
    assert_eq!(failure.sentence, "no such repository");
    let marked = "alpha @ git+https://git.example/alpha ; sys_platform == 'win32'\n";
    assert_eq!(pinned(marked, &brought).unwrap(), marked);
    assert_eq!(pinned("six\n", &brought).unwrap(), "six\n");
}

#[test]
fn locks_name_their_commits() {
    let uv = "[[package]]\nname = \"alpha\"\nsource = { git = \"https://git.example/alpha?subdirectory=py&rev=main#c0ffee\" }\n\
        [[package]]\nname = \"six\"\nsource = { registry = \"https://index\" }\n";
    let found = of_lock(uv);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].url, "https://git.example/alpha");
    assert_eq!(found[0].revision, "c0ffee");
    let poetry = "[[package]]\nname = \"alpha\"\n[package.source]\ntype = \"git\"\nurl = \"git@git.example:alpha.git\"\n\
        reference = \"main\"\nresolved_reference = \"c0ffee\"\n";
    let found = of_lock(poetry);
    assert_eq!(found[0].url, "git@git.example:alpha.git");
    assert_eq!(found[0].revision, "c0ffee");
    assert_eq!(
        found[0].pinned("c0ffee"),
        "git+ssh://git@git.example/alpha.git@c0ffee"
    );
}

#[test]
fn a_project_takes_from_git_in_many_ways() {
    let project = "[project]\ndependencies = [\"six\", \"alpha @ git+https://git.example/alpha\"]\n\
        [tool.uv.sources]\nbeta = { git = \"https://git.example/beta\", tag = \"v1\" }\n\
        [tool.poetry.dependencies]\ngamma = { git = \"git@git.example:gamma.git\", branch = \"dev\", subdirectory = \"x\" }\n";
    let found = of_project(project);
    let lines: Vec<&str> = found.iter().map(|(_, line)| line.as_str()).collect();
    assert_eq!(
        lines,
        [
            "alpha @ git+https://git.example/alpha",
            "gamma @ git+ssh://git@git.example/gamma.git@dev#subdirectory=x",
            "beta @ git+https://git.example/beta@v1",
        ]
    );
    let inner = of_files(["install_requires=['beta @ git+https://git.example/beta@v1', \"x\"]"]);
    assert_eq!(inner[0].name.as_deref(), Some("beta"));
    assert_eq!(inner[0].revision, "v1");
}
