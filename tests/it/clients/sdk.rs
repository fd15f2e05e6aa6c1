//! `clearml` 2.1.12 in breadth.

use std::ffi::OsStr;
use std::process::Command;

use super::rig::{Flow, Server, python};
use crate::server_admin::tls::certificate;
use crate::server_world::Program;

const SDK: &str = "TRAINYARD_E2E_SDK_PYTHON";

/// A flow that may run beside others on one server.
fn holds(script: &str) {
    Flow::new(Server::shared()).holds(&python(SDK), script, &[]);
}

#[test]
fn task_init_in_its_modes() {
    holds("init_modes.py");
}

#[test]
fn parameters_of_every_binding_come_back() {
    holds("parameters.py");
}

#[test]
fn parameters_of_click_come_back() {
    holds("click_binding.py");
}

#[test]
fn what_hydra_made_of_overrides_comes_back_and_goes_into_the_next_run() {
    holds("hydra_binding.py");
}

#[test]
fn what_fire_absl_jsonargparse_and_tensorboard_were_given_comes_back() {
    let python = python("TRAINYARD_E2E_BINDINGS_PYTHON");
    Flow::new(Server::shared()).holds(&python, "bindings.py", &[]);
}

#[test]
fn scalars_plots_images_media_and_console_come_back() {
    holds("reporting.py");
}

#[test]
fn artifacts_of_each_kind_come_back() {
    holds("artifacts.py");
}

/// The same with a server that speaks nothing but TLS, whose certificate the machine is told to trust.
#[test]
fn artifacts_come_back_over_tls() {
    let data = tempfile::tempdir().expect("temp folder");
    certificate(data.path());
    let (cert, key) = (data.path().join("cert.pem"), data.path().join("key.pem"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    command
        .env("TRAINYARD_SERVER_TLS_CERT", &cert)
        .env("TRAINYARD_SERVER_TLS_KEY", &key);
    let program = Program::start_by(&mut command, &data.path().join("data"));
    assert!(program.url.starts_with("https://"), "{}", program.url);
    let flow = Flow::of(&program, &format!("{}/files", program.url));
    let trusted = [("REQUESTS_CA_BUNDLE", cert.as_os_str())];
    flow.holds(&python(SDK), "artifacts.py", &trusted);
}

#[test]
fn input_and_output_models_come_back() {
    holds("models.py");
}

#[test]
fn tasks_are_created_changed_found_aborted_and_deleted() {
    holds("lifecycle.py");
}

#[test]
fn a_run_without_a_server_is_uploaded_afterwards() {
    holds("offline.py");
}

#[test]
fn datasets_are_made_derived_read_and_deleted() {
    holds("datasets.py");
}

#[test]
fn clearml_task_and_clearml_data_do_what_they_say() {
    holds("commands.py");
}

#[test]
fn each_answer_fits_the_schema_that_the_sdk_has_of_it() {
    Flow::new(Server::own()).holds(&python(SDK), "schemas.py", &[]);
}

/// The versions whose schemas the SDK carries.
#[test]
fn servers_of_older_versions_are_reported_to_and_read_back() {
    for version in ["2.9", "2.13", "2.20", "2.23"] {
        let data = tempfile::tempdir().expect("temp folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
        command.env("TRAINYARD_SERVER_API_VERSION", version);
        let program = Program::start_by(&mut command, data.path());
        let flow = Flow::of(&program, &format!("{}/files", program.url));
        let version = [("VERSION", OsStr::new(version))];
        flow.holds(&python(SDK), "older_server.py", &version);
    }
}
