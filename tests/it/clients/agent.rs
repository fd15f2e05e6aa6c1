//! `clearml-agent` 3.0.3 from the public index, in its own environment: it runs what the SDK's flows enqueue.

use std::ffi::OsStr;

use super::rig::{Flow, Server, python};

/// A part of a flow in which agents run; on the shared server its queues are its own.
fn holds(script: &str, part: &str) {
    let agent = python("TRAINYARD_E2E_AGENT_PYTHON");
    Flow::new(Server::shared()).holds(
        &python("TRAINYARD_E2E_SDK_PYTHON"),
        script,
        &[
            ("AGENT_PYTHON", agent.as_os_str()),
            ("PART", OsStr::new(part)),
        ],
    );
}

#[test]
fn a_daemon_serves_its_queues_in_order_and_ends_what_a_user_aborts() {
    holds("agent.py", "daemon_runs_queues_in_order");
}

#[test]
fn a_script_that_sent_itself_away_is_executed_by_id_with_changed_values() {
    holds("agent.py", "execute_runs_one");
}

#[test]
fn services_mode_runs_many_at_once() {
    holds("agent.py", "services_mode_runs_many");
}

#[test]
fn a_detached_daemon_is_listed_and_stopped() {
    holds("agent.py", "list_and_stop");
}

#[test]
fn a_pipeline_of_tasks_runs_here() {
    holds("pipelines.py", "local_tasks");
}

#[test]
fn a_pipeline_of_functions_runs_here() {
    holds("pipelines.py", "local_functions");
}

#[test]
fn a_pipeline_of_decorators_runs_here() {
    holds("pipelines.py", "local_decorators");
}

#[test]
fn a_pipeline_in_services_runs_its_steps_in_another_queue() {
    holds("pipelines.py", "through_queues");
}

#[test]
fn a_random_search_finds_the_best_of_its_children() {
    holds("hpo.py", "random");
}

#[test]
fn a_grid_search_tries_each_point_once() {
    holds("hpo.py", "grid");
}
