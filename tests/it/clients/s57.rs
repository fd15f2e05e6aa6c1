//! The part of S57 that needs a client: one whose server dies under it.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::rig::{Flow, Group, python};
use crate::server_world::Program;

#[test]
fn the_sdk_goes_on_when_its_server_is_killed_and_comes_back() {
    let data = tempfile::tempdir().expect("temp folder");
    let mut program = Program::start(data.path());
    let flow = Flow::of(&program, &format!("{}/files", program.url));
    let mut command = flow.command(&python("TRAINYARD_E2E_SDK_PYTHON"));
    command.arg(flow.path().join("outlive.py"));
    let mut run = Group::start(&mut command, &flow.path().join("output"));
    let deadline = Instant::now() + Duration::from_secs(180);
    while !run.log().contains("READY") {
        assert!(Instant::now() < deadline, "it never began:\n{}", run.log());
        thread::sleep(Duration::from_millis(20));
    }
    // Each kill finds it in the middle of another request.
    for pause in [1000, 700, 400] {
        thread::sleep(Duration::from_millis(pause));
        program.start_again();
    }
    fs::write(flow.path().join("again"), "").expect("written");
    run.holds("outlive.py");
}
