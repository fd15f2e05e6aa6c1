//! `trains` 0.16.4 and `trains-agent` 0.16.3, the clients of 2020, on a Python of today.

use std::process::Command;

use super::rig::{Flow, Server, python};
use crate::git::servers::free_port;
use crate::server_world::Program;

fn holds(script: &str) {
    Flow::new(Server::shared()).holds(&python("TRAINYARD_E2E_TRAINS_PYTHON"), script, &[]);
}

#[test]
fn the_sdk_of_2020_reports_and_reads_back() {
    holds("old_sdk.py");
}

#[test]
fn the_agent_of_2020_takes_a_task_and_says_how_it_ended() {
    holds("old_agent.py");
}

#[test]
fn the_sdk_of_2020_uploads_to_a_file_server_without_a_path() {
    let data = tempfile::tempdir().expect("temp folder");
    let files = format!("127.0.0.1:{}", free_port("127.0.0.1"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    command.env("TRAINYARD_SERVER_FILES_LISTEN", &files);
    let program = Program::start_by(&mut command, data.path());
    let flow = Flow::of(&program, &format!("http://{files}"));
    flow.holds(
        &python("TRAINYARD_E2E_TRAINS_PYTHON"),
        "old_uploads.py",
        &[],
    );
}
