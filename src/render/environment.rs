//! Environment variables of the three containers.
//!
//! For the task's container, later ones win by name: template, task (where the binding allows it), ours. Keys come
//! from the Secret by reference; no value of a Secret is ever in a Job.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::entrypoint::Runs;
use super::fields::text;
use super::job::Inputs;
use super::notes::Notes;
use crate::crd::Quantity;
use crate::pod::{self, env};

/// Seconds between SIGTERM and SIGKILL of the user's process group.
pub(super) fn grace_seconds(inputs: &Inputs<'_>) -> u64 {
    inputs.spec.lifecycle.abort_grace_period.whole_seconds()
}

/// Seconds that the pod has to end: more than the user's process, or what the template says if that is longer.
pub(super) fn pod_grace_seconds(inputs: &Inputs<'_>) -> u64 {
    let of_template = inputs.template.spec.get("terminationGracePeriodSeconds");
    let of_template = of_template.and_then(Value::as_u64).unwrap_or(0);
    least_pod_grace_seconds(inputs).max(of_template)
}

fn least_pod_grace_seconds(inputs: &Inputs<'_>) -> u64 {
    grace_seconds(inputs).saturating_add(pod::GRACE_MARGIN.as_secs())
}

/// What all three containers get: who they are, and the server.
pub(super) fn common(inputs: &Inputs<'_>) -> Vec<Value> {
    let server = inputs.server;
    let mut variables = vec![
        plain(env::TASK_ID, inputs.task.id.as_str()),
        plain(env::ATTEMPT, &inputs.attempt.to_string()),
        plain(env::WORKER, &inputs.worker.0),
        plain(env::PENDING_QUEUE, inputs.pending_queue.as_str()),
        json!({ "name": env::NODE, "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } }),
        plain(env::API_HOST, &server.api_url),
    ];
    for (name, url) in [
        (env::WEB_HOST, &server.web_url),
        (env::FILES_HOST, &server.files_url),
        (env::SERVER_PROXY, &server.proxy),
    ] {
        variables.extend(url.as_deref().map(|url| plain(name, url)));
    }
    for (name, key) in [
        (env::ACCESS_KEY, pod::ACCESS_KEY_KEY),
        (env::SECRET_KEY, pod::SECRET_KEY_KEY),
    ] {
        variables.push(json!({
            "name": name,
            "valueFrom": { "secretKeyRef": { "name": server.credentials_secret, "key": key } },
        }));
    }
    variables
}

/// The ways out that the template gives the task's container; ours take the same.
pub(super) fn proxies(container: &Map<String, Value>) -> Vec<Value> {
    const NAMES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];
    let variables = container.get("env").and_then(Value::as_array);
    let of_proxies = variables.into_iter().flatten().filter(|variable| {
        name_of(variable)
            .is_some_and(|name| NAMES.iter().any(|known| name.eq_ignore_ascii_case(known)))
    });
    of_proxies.cloned().collect()
}

/// What the containers that prepare and run the task get beside [`common`].
pub(super) fn run(inputs: &Inputs<'_>) -> Vec<Value> {
    let environment = &inputs.spec.environment;
    let monitoring = &inputs.spec.monitoring;
    let mut variables = vec![
        plain(env::GRACE, &grace_seconds(inputs).to_string()),
        plain(env::MANAGER, environment.manager.as_str()),
        plain(
            env::REPORT_PERIOD,
            &monitoring.report_period.whole_seconds().max(1).to_string(),
        ),
        plain(env::GPU, monitoring.gpu.as_str()),
    ];
    for (name, value) in [
        (env::INDEX_URL, &environment.index_url),
        (env::SETUP_SCRIPT, &environment.setup_script),
        (env::POST_SCRIPT, &environment.post_script),
    ] {
        variables.extend(value.as_deref().map(|value| plain(name, value)));
    }
    let grace = pod_grace_seconds(inputs);
    if grace > least_pod_grace_seconds(inputs) {
        variables.push(plain(env::POD_GRACE, &grace.to_string()));
    }
    // The last attempt reports its own end.
    if i64::from(inputs.failures) < i64::from(inputs.spec.lifecycle.max_failures) {
        variables.push(plain(env::ON_FAILURE, "controller"));
    }
    if inputs.spec.overrides.setup_script {
        variables.push(plain(env::TASK_SETUP_SCRIPT, "allow"));
    }
    if inputs.runs != Runs::Code {
        // Where it is not known it is empty, and the executor refuses to run.
        let argv = inputs.argv().unwrap_or_default();
        variables.push(plain(env::ENTRYPOINT, &json!(argv).to_string()));
    }
    let limit = environment.cache.size_limit.as_ref();
    if let Some(Ok(limit)) = limit.map(|limit| limit.0.parse::<Quantity>()) {
        variables.push(plain(env::CACHE_LIMIT, &limit.units().to_string()));
    }
    variables
}

/// The variables of the task's container: the template's, then the task's, then ours.
pub(super) fn of_task(
    template: &[Value],
    asked: &[(String, String)],
    inputs: &Inputs<'_>,
    notes: &mut Notes,
) -> Vec<Value> {
    let own: Vec<Value> = common(inputs).into_iter().chain(run(inputs)).collect();
    let own_names: HashSet<&str> = own.iter().filter_map(name_of).collect();
    for name in template
        .iter()
        .filter_map(name_of)
        .filter(|name| own_names.contains(name))
    {
        notes.add(format!(
            "environment variable {name} of the template is replaced by the executor's own"
        ));
    }
    for (name, _) in asked
        .iter()
        .filter(|(name, _)| own_names.contains(name.as_str()))
    {
        notes.add(format!(
            "container argument --env {name} is refused: the variable is the executor's own"
        ));
    }
    let asked: Vec<Value> = asked
        .iter()
        .map(|(name, value)| plain(name, value))
        .collect();
    let mut merged: Vec<Value> = Vec::new();
    for variable in template.iter().chain(&asked).chain(&own) {
        merged.retain(|earlier| name_of(earlier) != name_of(variable));
        merged.push(variable.clone());
    }
    merged
}

/// A variable with a value as written: Kubernetes replaces `$(NAME)` unless each `$` is doubled.
pub(super) fn plain(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value.replace('$', "$$") })
}

fn name_of(variable: &Value) -> Option<&str> {
    text(variable, &["name"])
}
