use super::*;

fn facts(python: &str) -> Facts {
    [
        ("python_full_version", python),
        ("python_version", python.rsplit_once('.').unwrap().0),
        ("sys_platform", "linux"),
        ("platform_machine", "x86_64"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

const PROJECT: &str = r#"
[tool.poetry]
name = "trainer"
package-mode = false
[tool.poetry.dependencies]
python = "^3.8"
alpha = "^1.0"
old = { version = "*", python = "<3.9" }
web = { version = "*", extras = ["socks"] }
drawing = { version = "*", optional = true }
[tool.poetry.extras]
plots = ["drawing"]
[tool.poetry.group.dev.dependencies]
tester = "*"
[tool.poetry.group.docs]
optional = true
[tool.poetry.group.docs.dependencies]
sphinx = "*"
[build-system]
requires = ["poetry-core"]
"#;

const LOCK: &str = r#"
[[package]]
name = "Alpha"
version = "1.5"
python-versions = ">=3.8"
files = [{file = "a.whl", hash = "sha256:aa"}, {file = "a.tar.gz", hash = "sha256:ab"}]
[package.dependencies]
numbers = [
    {version = "<2", markers = "python_version < \"3.10\""},
    {version = ">=2", markers = "python_version >= \"3.10\""},
]
winonly = {version = "*", markers = "sys_platform == \"win32\""}
[[package]]
name = "numbers"
version = "1.9"
python-versions = "<3.10"
files = []
[[package]]
name = "numbers"
version = "2.1"
python-versions = ">=3.8"
files = [{file = "n.whl", hash = "sha256:bb"}]
[[package]]
name = "web"
version = "3"
python-versions = "*"
[package.dependencies]
pysocks = {version = "*", optional = true, markers = "extra == \"socks\""}
brotli = {version = "*", optional = true, markers = "extra == \"br\""}
[package.extras]
socks = ["pysocks"]
[[package]]
name = "pysocks"
version = "1"
python-versions = "*"
[package.source]
type = "git"
url = "https://git.example/pysocks.git"
reference = "main"
resolved_reference = "0123abcd"
subdirectory = "src"
[[package]]
name = "tester"
version = "8"
python-versions = "*"
[package.source]
type = "legacy"
url = "https://index.example/simple"
reference = "own"
[[package]]
name = "drawing"
version = "4"
develop = true
python-versions = "*"
optional = true
[package.source]
type = "directory"
url = "libs/drawing"
[[package]]
name = "sphinx"
version = "7"
python-versions = "*"
[metadata]
lock-version = "2.0"
[metadata.files]
tester = [{file = "t.whl", hash = "sha256:cc"}]
"#;

fn names(locked: &Locked) -> Vec<&str> {
    locked
        .list
        .lines()
        .map(|line| line.split(" --hash").next().unwrap())
        .collect()
}

#[test]
fn only_what_this_python_needs_is_installed_with_its_hashes() {
    let found = locked(PROJECT, LOCK, &Choice::default(), &facts("3.11.7")).unwrap();
    assert_eq!(
        names(&found),
        [
            "--extra-index-url https://index.example/simple",
            "Alpha==1.5",
            "numbers==2.1",
            "pysocks @ git+https://git.example/pysocks.git@0123abcd#subdirectory=src",
            "tester==8",
            "web==3",
        ]
    );
    assert!(
        found
            .list
            .contains("Alpha==1.5 --hash=sha256:aa --hash=sha256:ab\n")
    );
    assert!(
        found.list.contains("tester==8 --hash=sha256:cc\n"),
        "hashes of the old format count too"
    );
    assert!(!found.root && found.local.is_empty());
    let error = locked(PROJECT, LOCK, &Choice::default(), &facts("3.8.1")).unwrap_err();
    assert!(
        error.contains("poetry.lock has no old * for this Python"),
        "{error}"
    );
    let project = PROJECT.replace("old = { version = \"*\", python = \"<3.9\" }", "");
    let older = locked(&project, LOCK, &Choice::default(), &facts("3.9.1")).unwrap();
    assert!(names(&older).contains(&"numbers==1.9"), "{older:?}");
}

#[test]
fn groups_and_extras_are_chosen_by_the_arguments_of_poetry() {
    let words = [
        "--with",
        "docs",
        "--without=dev",
        "-E",
        "plots",
        "--compile",
    ]
    .map(str::to_owned);
    let (choice, unknown) = Choice::read(&words);
    assert_eq!(unknown, ["--compile"]);
    let found = locked(PROJECT, LOCK, &choice, &facts("3.11.7")).unwrap();
    assert!(names(&found).contains(&"sphinx==7") && !names(&found).contains(&"tester==8"));
    assert_eq!(found.local, ["-e libs/drawing"]);
    let (only, _) = Choice::read(&["--only=dev".to_owned()]);
    assert_eq!(
        names(&locked(PROJECT, LOCK, &only, &facts("3.11.7")).unwrap())[1..],
        ["tester==8"]
    );
}

#[test]
fn dependencies_in_the_standard_form_count_and_the_project_itself_is_a_package() {
    let project = "[project]\ndependencies = [\"alpha (>=1,<2)\", \"web[socks]>=1; python_version >= '3.8'\"]\n\
        [build-system]\nrequires = []\n";
    let found = locked(project, LOCK, &Choice::default(), &facts("3.11.7")).unwrap();
    assert_eq!(names(&found).len(), 4);
    assert!(found.root);
}

#[test]
fn without_a_lock_the_constraints_become_requirements() {
    let (list, notes) = unlocked(PROJECT, &Choice::default(), &facts("3.11.7")).unwrap();
    assert_eq!(list, "alpha>=1.0,<2\nweb[socks]\ntester\n");
    assert!(notes.is_empty());
}

#[test]
fn files_that_cannot_be_read_name_the_line() {
    let error = locked("[tool", LOCK, &Choice::default(), &facts("3.11.7")).unwrap_err();
    assert!(
        error.starts_with("pyproject.toml cannot be read: ") && error.ends_with("(line 1)"),
        "{error}"
    );
    let error = locked(PROJECT, "", &Choice::default(), &facts("3.11.7")).unwrap_err();
    assert!(error.contains("run `poetry lock`"), "{error}");
}
