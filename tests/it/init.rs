//! `trainyard init`: a `clearml.conf` from what the server's page shows, written once its keys have opened the server.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::exec::server::Server;

fn init(home: &Path, input: &str, arguments: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_trainyard"))
        .arg("init")
        .args(arguments)
        .env_clear()
        .env("HOME", home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It may refuse before it has read.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn block(server: &Server, secret: &str) -> String {
    format!(
        "api {{\n  web_server: {0}\n  api_server: {0}\n  files_server: {0}/files\n  credentials {{\n    \
         \"access_key\" = \"{1}\"\n    \"secret_key\" = \"{secret}\"\n  }}\n}}\n",
        server.url, server.access_key
    )
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn s53_init_checks_the_keys_writes_for_its_owner_alone_and_replaces_nothing() {
    let server = Server::start();
    let home = tempfile::tempdir().unwrap();
    let conf = home.path().join("clearml.conf");

    let output = init(home.path(), &block(&server, "wrong-canary"), &[]);
    assert!(!output.status.success());
    assert!(
        said(&output).contains("does not take these keys"),
        "{}",
        said(&output)
    );
    assert!(!said(&output).contains("wrong-canary"));
    assert!(!conf.exists(), "nothing was written");

    let token = home.path().join("git-token");
    fs::write(&token, "git-canary\n").unwrap();
    let token = token.display().to_string();
    let arguments = [
        "--git-user",
        "me",
        "--git-pass-file",
        &token,
        "--extra-index-url",
        "https://index.example/simple",
        "--output-uri",
        "s3://bucket",
    ];
    let right = block(&server, &server.secret_key);
    let output = init(home.path(), &right, &arguments);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(conf.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let shown = Command::new(env!("CARGO_BIN_EXE_trainyard"))
        .args(["config", "show", "--origin"])
        .env_clear()
        .env("HOME", home.path())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for expected in [
        format!("api.api_server = \"{}\"  # {}", server.url, conf.display()),
        "agent.git_user = \"me\"  # ".to_owned(),
        "agent.git_pass = \"****\"  # ".to_owned(),
        "[\"https://index.example/simple\"]".to_owned(),
    ] {
        assert!(shown.contains(&expected), "{expected}: {shown}");
    }
    assert!(!shown.contains("git-canary") && !shown.contains(&server.secret_key));

    let before = fs::read_to_string(&conf).unwrap();
    let output = init(home.path(), &right, &[]);
    assert!(!output.status.success());
    assert!(
        said(&output).contains("--force replaces it"),
        "{}",
        said(&output)
    );
    assert_eq!(fs::read_to_string(&conf).unwrap(), before);
    let output = init(home.path(), &right, &["--force"]);
    assert!(output.status.success(), "{}", said(&output));
    let after = fs::read_to_string(&conf).unwrap();
    assert!(!after.contains("git-canary"), "all of it is replaced");
    assert_eq!(conf.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().flatten().collect();
    assert_eq!(left.len(), 2, "no half-written file is left: {left:?}");
}

#[test]
fn s53_init_says_what_is_missing() {
    let home = tempfile::tempdir().unwrap();
    for (input, expected) in [
        ("", "no credentials { access_key, secret_key } are there"),
        ("api {", "the credentials cannot be read"),
        (
            "api.credentials { access_key: a, secret_key: b }",
            "no api_server is there",
        ),
    ] {
        let output = init(home.path(), input, &[]);
        assert!(!output.status.success());
        assert!(said(&output).contains(expected), "{}", said(&output));
    }
    assert!(!home.path().join("clearml.conf").exists());
}
