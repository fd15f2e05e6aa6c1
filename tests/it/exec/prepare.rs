//! What the init container brings, and what the user's process finds.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::pod::Pod;
use super::server::Server;
use crate::silent;

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args([
            "-c",
            "user.name=someone",
            "-c",
            "user.email=someone@example.com",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn code_of_a_branch_with_uncommitted_changes_runs_and_its_commit_is_recorded() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path();
    fs::create_dir(repository.join("src")).unwrap();
    fs::write(
        repository.join("src/train.py"),
        "import helper\nprint('committed')\n",
    )
    .unwrap();
    fs::write(repository.join("src/helper.py"), "print('helper')\n").unwrap();
    git(repository, &["init", "--quiet"]);
    git(repository, &["add", "."]);
    git(repository, &["commit", "--quiet", "-m", "first"]);
    let commit = git(repository, &["rev-parse", "HEAD"]);
    fs::write(
        repository.join("src/train.py"),
        "import helper\nprint('changed')\n",
    )
    .unwrap();
    let script = json!({
        "binary": "python3", "entry_point": "train.py", "working_dir": "src", "branch": "main",
        "repository": format!("file://{}", repository.display()), "diff": git(repository, &["diff"]),
    });
    let task = server.task("repository", &script);
    let mut pod = Pod::parked(&server, &task);
    pod.set(
        "TRAINYARD_NOTES",
        "the task's volume is refused\nso is its network",
    );
    assert_eq!(pod.run(), 0, "{}", server.log(&task));
    assert_eq!(server.output(&task), "helper\nchanged\n");
    let log = server.log(&task);
    assert!(
        log.starts_with("trainyard: the task's volume is refused\ntrainyard: so is its network\n"),
        "{log}"
    );
    assert!(log.contains(&commit), "the commit is in the log: {log}");
    assert_eq!(server.get(&task)["script"]["version_num"], commit);
}

#[test]
fn changes_that_do_not_fit_the_commit_fail_the_task_and_name_the_file() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path();
    let write = |text: &str| fs::write(repository.join("train.py"), text).unwrap();
    write("print('first')\n");
    git(repository, &["init", "--quiet"]);
    git(repository, &["add", "."]);
    git(repository, &["commit", "--quiet", "-m", "first"]);
    write("print('changed')\n");
    let diff = git(repository, &["diff"]);
    // Another commit than the one that was changed.
    write("print('second')\n");
    git(repository, &["commit", "--quiet", "-a", "-m", "second"]);
    let script = json!({
        "binary": "python3", "entry_point": "train.py", "working_dir": ".", "branch": "main",
        "repository": format!("file://{}", repository.display()), "diff": diff,
        "version_num": git(repository, &["rev-parse", "HEAD"]),
    });
    let task = server.task("does not fit", &script);
    let pod = Pod::parked(&server, &task);
    assert_eq!(pod.run(), 212, "{}", server.log(&task));
    let after = server.get(&task);
    assert_eq!(after["status"], "failed");
    let message = after["status_message"].as_str().unwrap();
    assert!(
        message.contains("uncommitted changes do not apply: train.py differs at line 1"),
        "{message}"
    );
    assert_eq!(server.output(&task), "", "nothing was run");
}

#[test]
fn a_user_without_a_home_gets_one() {
    let server = Server::start();
    let source = "import os, pathlib\nhome = pathlib.Path(os.environ['HOME'])\n(home / 'file').write_text('kept')\nprint('kept')\n";
    let task = server.script("homeless", source);
    let mut pod = Pod::parked(&server, &task);
    pod.set("HOME", "/no/such/folder");
    assert_eq!(pod.run(), 0, "{}", server.log(&task));
    assert_eq!(server.output(&task), "kept\n");
}

#[test]
fn a_pod_that_nobody_described_says_what_is_missing() {
    let output = Command::new(env!("CARGO_BIN_EXE_trainyard"))
        .args(["--in-pod"])
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(210));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("TRAINYARD_TASK_ID is not set"), "{said}");
}

#[test]
fn keys_are_neither_in_the_log_nor_on_standard_output_nor_in_the_termination_message() {
    let server = Server::start();
    let source = "import os\nfor name, value in sorted(os.environ.items()):\n    print(name, value)\n\
        print(open(os.path.join(os.path.dirname(os.getcwd()), 'token')).read())\nraise SystemExit(1)\n";
    let task = server.script("secrets", source);
    let pod = Pod::parked(&server, &task);
    assert_eq!(pod.run(), 1);
    let token = pod.stream("root/token");
    assert!(token.len() > 20);
    let status = server.get(&task).to_string();
    for place in [
        &server.log(&task),
        &pod.stream("task.stdout"),
        &pod.stream("task.stderr"),
        &pod.stream("termination"),
        &status,
    ] {
        for secret in [&server.secret_key, &server.access_key, &token] {
            assert!(!place.contains(secret.as_str()), "{place}");
        }
    }
}

/// Three times a second, where a pod gives three times thirty.
#[test]
fn s41_a_clone_that_stalls_fails_the_task_with_its_category_and_one_sentence() {
    let server = Server::start();
    let amid = "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n\
        Content-Length: 100000\r\n\r\n001e# service=git-upload-pack\n0000";
    for address in [
        silent::start("127.0.0.1"),
        silent::start_amid("127.0.0.1", amid),
    ] {
        let url = format!("http://{address}/train.git");
        let script = json!({
            "binary": "python3", "entry_point": "train.py", "working_dir": ".",
            "repository": url, "version_num": "1".repeat(40),
        });
        let task = server.task("stalls", &script);
        let mut pod = Pod::parked(&server, &task);
        pod.set("TRAINYARD_GIT_STALL_SECONDS", "1");
        let code = pod.run();
        assert_eq!(code, 212, "{}", server.log(&task));
        assert_eq!(pod.category(code), "not-prepared");
        let after = server.get(&task);
        assert_eq!(after["status"], "failed");
        assert_eq!(
            after["status_reason"],
            "preparation failed, trainyard: not-prepared"
        );
        let message = after["status_message"].as_str().unwrap();
        let sentence = format!("the transfer from {url} stands still");
        assert!(
            message.starts_with(&sentence) && message.lines().count() == 1,
            "{message}"
        );
        let log = server.log(&task);
        assert_eq!(log.matches(&sentence).count(), 1, "{log}");
        assert!(log.contains("trying again (2 of 3)"), "{log}");
    }
}
