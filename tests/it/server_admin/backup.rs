//! A copy of everything in one archive, made while others write, and a server that is made of it again.

use std::process::Command;

use reqwest::Method;
use serde_json::json;

use super::{said, trainyard};
use crate::server_world::{InProcess, Program};

#[test]
fn a_backup_of_a_busy_server_is_a_whole_one() {
    let (data, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Program::start(data.path());
    let client = server.client();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let archive = away.path().join("backup.tar");
    let known = runtime.block_on(async {
        let task = client
            .call("tasks.create", json!({"name": "kept", "type": "training"}))
            .await["id"]
            .clone();
        client
            .call(
                "events.add",
                json!({"type": "log", "task": task, "msg": "a line"}),
            )
            .await;
        let file = format!(
            "p/{}/{}.bin",
            task.as_str().unwrap(),
            "long name ".repeat(12).trim()
        );
        let sent = client.upload(&file, &vec![7; 70_000]).send().await;
        assert!(sent.unwrap().status().is_success());
        // Others go on writing meanwhile.
        let busy = tokio::spawn({
            let client = client.clone();
            async move {
                let mut count = 0;
                while client
                    .acknowledged(
                        "tasks.create",
                        json!({"name": "another", "type": "training"}),
                    )
                    .await
                    .is_some()
                {
                    count += 1;
                }
                count
            }
        });
        let (to, folder) = (archive.clone(), data.path().to_owned());
        let output = tokio::task::spawn_blocking(move || {
            trainyard(&["backup", to.to_str().unwrap()], &folder)
        });
        let output = output.await.unwrap();
        assert!(output.status.success(), "{}", said(&output));
        (task, file, busy)
    });
    let (task, file, busy) = known;
    let mut server = server;
    server.kill();
    let written: u32 = runtime.block_on(busy).unwrap();
    assert!(written > 0, "nothing was written meanwhile");
    let listed = Command::new("tar")
        .arg("tf")
        .arg(&archive)
        .output()
        .unwrap();
    assert!(
        said(&listed).contains(&file),
        "tar cannot read it: {}",
        said(&listed)
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&archive).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);

    let restored = away.path().join("data");
    let output = trainyard(&["restore", archive.to_str().unwrap()], &restored);
    assert!(output.status.success(), "{}", said(&output));
    let again = trainyard(&["restore", archive.to_str().unwrap()], &restored);
    assert!(
        !again.status.success() && said(&again).contains("already"),
        "{}",
        said(&again)
    );
    let server = Program::start(&restored);
    let client = server.client();
    runtime.block_on(async {
        let log = client
            .call("events.get_task_log", json!({"task": task}))
            .await;
        assert_eq!(log["events"][0]["msg"], "a line");
        let got = client.request(Method::GET, &format!("files/{file}"));
        assert_eq!(
            got.send().await.unwrap().bytes().await.unwrap(),
            vec![7; 70_000]
        );
    });
}

#[test]
fn a_damaged_backup_is_refused_and_leaves_no_database() {
    let folder = tempfile::tempdir().unwrap();
    let server = InProcess::start();
    let archive = folder.path().join("backup.tar");
    let path = archive.to_str().unwrap();
    assert!(
        trainyard(&["backup", path], server.data.path())
            .status
            .success()
    );
    let whole = std::fs::read(&archive).unwrap();
    for (i, bytes) in [&whole[..whole.len() - 1500], &whole[..700], b"no archive"]
        .into_iter()
        .enumerate()
    {
        std::fs::write(&archive, bytes).unwrap();
        let data = folder.path().join(format!("data{i}"));
        let output = trainyard(&["restore", path], &data);
        let error = said(&output);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            error.contains("is no backup") && error.lines().count() == 1,
            "{error}"
        );
        assert!(!data.join("trainyard.sqlite").exists());
    }
}
