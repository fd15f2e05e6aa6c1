//! Running the server, what an administrator relies on: users, backup and restore, TLS, older versions, settings, each in
//! a file of its own. What they share is here: the server's command line.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod backup;
mod settings;
pub mod tls;
mod users;
mod versions;

use std::path::Path;
use std::process::{Command, Output};

use crate::server_world::keys_in;

/// The server's command line on a data folder.
pub fn trainyard(arguments: &[&str], data: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trainyard"))
        .arg("server")
        .args(arguments)
        .arg("--data")
        .arg(data)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    text(&output.stdout) + &text(&output.stderr)
}

/// The key pair that `user add` prints.
pub fn keys_of(output: &Output) -> (String, String) {
    assert!(output.status.success(), "{}", said(output));
    keys_in(&output.stdout)
}
