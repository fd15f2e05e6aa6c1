//! A page for browsers: queues, workers and tasks, and one task with its log.

use serde_json::json;

use super::call::Call;
use super::wire::Answer;

pub(crate) fn overview(_call: &Call) -> Answer {
    Ok(json!("<!doctype html><title>trainyard</title>"))
}
