//! The table of endpoints: name, the least version it is asked with, whether it writes, and the function that answers.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::call::Call;
use super::events::{self, charts, curves, ingest, log, samples, series};
use super::projects::{self, facets, tree};
use super::queues::{self, change, moves};
use super::tasks::{self, attached, clone, edit, params, read, status};
use super::wire::{Answer, Refusal, Version};
use super::{auth, models, pipelines, tags, users, workers};

/// What an endpoint needs of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// What an endpoint's answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A JSON value.
    Tree,
    /// JSON that is written already, as a string.
    Json,
    /// Plain text, as a string; it goes out without an envelope.
    Text,
}

/// One endpoint.
pub(crate) struct Route {
    pub(crate) since: Version,
    pub(crate) access: Access,
    /// Credentials may be absent (§1.4).
    pub(crate) open: bool,
    /// Concerns nobody but the caller: roles that only read may ask it too.
    pub(crate) own: bool,
    pub(crate) form: Form,
    pub(crate) run: fn(&Call) -> Answer,
}

type Row = (&'static str, Version, Access, fn(&Call) -> Answer);

const V1: Version = Version(1, 0);
const V2_4: Version = Version(2, 4);
const R: Access = Access::Read;
const W: Access = Access::Write;

/// Endpoints that answer without credentials.
const OPEN: [&str; 4] = [
    "debug.ping",
    "auth.fixed_users_mode",
    "login.supported_modes",
    "login.logout",
];

/// Writes that concern the caller alone.
const OWN: [&str; 3] = ["auth.login", "auth.logout", "users.set_preferences"];

/// Endpoints that answer to any version, and the server that first had them: older ones are played without (§1.7).
const CAME: [(&str, Version); 17] = [
    ("auth.edit_credentials", Version(2, 19)),
    ("events.clear_task_log", Version(2, 19)),
    ("events.get_plot_sample", Version(2, 20)),
    ("events.next_plot_sample", Version(2, 20)),
    ("events.plots", Version(2, 20)),
    ("models.delete_many", Version(2, 13)),
    ("models.publish_many", Version(2, 13)),
    ("pipelines.delete_runs", Version(2, 26)),
    ("pipelines.start_pipeline", Version(2, 17)),
    ("projects.get_model_metadata_keys", Version(2, 16)),
    ("projects.get_model_metadata_values", Version(2, 16)),
    ("projects.get_project_tags", Version(2, 16)),
    ("projects.merge", Version(2, 13)),
    ("projects.move", Version(2, 13)),
    ("projects.validate_delete", Version(2, 14)),
    ("tasks.edit_runtime", Version(2, 34)),
    ("workers.get_count", Version(2, 4)),
];

/// Whether a server of that version has an endpoint of that name.
fn is_known_to(newest: Version, name: &str) -> bool {
    CAME.iter()
        .all(|(later, since)| *later != name || *since <= newest)
}

fn form_of(name: &str) -> Form {
    match name {
        "queues.get_all" | "events.get_task_log" => Form::Json,
        "events.download_task_log" => Form::Text,
        _ => Form::Tree,
    }
}

#[rustfmt::skip]
const TABLE: &[Row] = &[
    ("auth.create_credentials", V1, W, users::create_credentials),
    ("auth.create_user", V1, W, users::create_user),
    ("auth.edit_credentials", V1, W, users::edit_credentials),
    ("auth.edit_user", V1, W, users::edit_user),
    ("auth.fixed_users_mode", V1, R, users::fixed_users_mode),
    ("auth.get_credentials", V1, R, users::get_credentials),
    ("auth.get_token_for_user", V1, R, users::token_for_user),
    ("auth.login", V1, W, users::login),
    ("auth.logout", Version(2, 2), W, users::logout),
    ("auth.revoke_credentials", V1, W, users::revoke_credentials),
    ("auth.validate_token", V1, R, users::validate_token),
    ("debug.ping", V1, R, ping),
    ("events.add", V1, W, ingest::add),
    ("events.add_batch", V1, W, ingest::add_batch),
    ("events.clear_scroll", Version(2, 18), W, events::clear_scroll),
    ("events.clear_task_log", V1, W, log::clear_task_log),
    ("events.delete_for_model", V1, W, events::delete_for_model),
    ("events.delete_for_task", V1, W, events::delete_for_task),
    ("events.get_debug_image_sample", Version(2, 12), R, samples::image),
    ("events.get_plot_sample", V1, R, samples::plot),
    ("events.get_scalar_metric_data", V1, R, curves::metric_data),
    ("events.get_vector_metrics_and_variants", V1, R, series::vectors_and_variants),
    ("events.next_debug_image_sample", Version(2, 12), R, samples::next_image),
    ("events.next_plot_sample", V1, R, samples::next_plot),
    ("events.plots", V1, R, charts::plots),
    ("events.scalar_metrics_iter_raw", Version(2, 16), R, curves::raw),
    ("events.vector_metrics_iter_histogram", V1, R, samples::vectors),
    ("events.debug_images", V1, R, charts::images_of_task),
    ("events.debug_images", Version(1, 8), R, charts::images_of_task),
    ("events.debug_images", Version(2, 7), R, charts::debug_images),
    ("events.download_task_log", V1, R, log::download_task_log),
    ("events.get_multi_task_metrics", V1, R, series::metrics_of_tasks),
    ("events.get_multi_task_plots", V1, R, charts::multi_task_plots),
    ("events.get_multi_task_plots", Version(1, 8), R, charts::multi_task_plots),
    ("events.get_scalar_metrics_and_variants", V1, R, series::scalars_and_variants),
    ("events.get_task_events", V1, R, curves::task_events),
    ("events.get_task_latest_scalar_values", V1, R, series::latest_values),
    ("events.get_task_log", V1, R, log::get_task_log),
    ("events.get_task_log", Version(1, 7), R, log::get_task_log),
    ("events.get_task_log", Version(2, 9), R, log::get_task_log),
    ("events.get_task_metrics", V1, R, series::metrics_of_type),
    ("events.get_task_plots", V1, R, charts::task_plots),
    ("events.get_task_plots", Version(1, 8), R, charts::task_plots),
    ("events.get_task_single_value_metrics", V1, R, series::single_values),
    ("events.multi_task_scalar_metrics_iter_histogram", V1, R, curves::multi_task_histogram),
    ("events.scalar_metrics_iter_histogram", V1, R, curves::histogram),
    ("login.logout", Version(2, 13), W, users::logout),
    ("login.supported_modes", V1, R, users::supported_modes),
    ("models.add_or_update_metadata", Version(2, 13), W, models::add_or_update_metadata),
    ("models.archive_many", V1, W, models::archive_many),
    ("models.create", V1, W, models::create),
    ("models.delete", V1, W, models::delete),
    ("models.delete_many", V1, W, models::delete_many),
    ("models.delete_metadata", Version(2, 13), W, models::delete_metadata),
    ("models.edit", V1, W, models::edit),
    ("models.get_all", V1, R, models::get_all),
    ("models.get_all_ex", V1, R, models::get_all),
    ("models.get_by_id", V1, R, models::get_by_id),
    ("models.get_by_id_ex", V1, R, models::get_by_id),
    ("models.get_by_task_id", V1, R, models::get_by_task_id),
    ("models.get_frameworks", V1, R, models::get_frameworks),
    ("models.move", V1, W, tree::move_models),
    ("models.publish_many", V1, W, models::publish_many),
    ("models.set_ready", V1, W, models::set_ready),
    ("models.unarchive_many", V1, W, models::unarchive_many),
    ("models.update", V1, W, models::edit),
    ("models.update_for_task", V1, W, models::update_for_task),
    ("models.update_tags", V1, W, tags::of_models),
    ("organization.get_tags", V1, R, facets::all_tags),
    ("pipelines.delete_runs", V1, W, pipelines::delete_runs),
    ("pipelines.start_pipeline", V1, W, pipelines::start_pipeline),
    ("projects.create", V1, W, projects::create),
    ("projects.delete", V1, W, projects::delete),
    ("projects.get_all", V1, R, projects::get_all),
    ("projects.get_all_ex", V1, R, projects::get_all_ex),
    ("projects.get_by_id", V1, R, projects::get_by_id),
    ("projects.get_hyper_parameters", Version(2, 9), R, facets::hyper_parameters),
    ("projects.get_hyperparam_values", Version(2, 13), R, facets::hyperparam_values),
    ("projects.get_model_metadata_keys", V1, R, facets::metadata_keys),
    ("projects.get_model_metadata_values", V1, R, facets::metadata_values),
    ("projects.get_project_tags", V1, R, facets::project_tags),
    ("projects.get_task_parents", Version(2, 12), R, facets::task_parents),
    ("projects.get_unique_metric_variants", V1, R, facets::metric_variants),
    ("projects.merge", V1, W, tree::merge),
    ("projects.move", V1, W, tree::move_to),
    ("projects.validate_delete", V1, R, tree::validate_delete),
    ("projects.get_model_tags", Version(2, 8), R, facets::model_tags),
    ("projects.get_task_tags", Version(2, 8), R, facets::task_tags),
    ("projects.update", V1, W, projects::update),
    ("queues.add_task", V2_4, W, change::add_task),
    ("queues.add_or_update_metadata", Version(2, 13), W, change::add_or_update_metadata),
    ("queues.delete_metadata", Version(2, 13), W, change::delete_metadata),
    ("queues.clear_queue", V1, W, change::clear_queue),
    ("queues.create", V2_4, W, change::create),
    ("queues.delete", V2_4, W, change::delete),
    ("queues.get_all", V2_4, R, queues::read::get_all),
    ("queues.get_all_ex", V2_4, R, queues::read::get_all_ex),
    ("queues.get_by_id", V2_4, R, queues::read::get_by_id),
    ("queues.get_default", V2_4, R, queues::read::get_default),
    ("queues.get_next_task", V1, W, change::get_next_task),
    ("queues.get_num_entries", Version(2, 15), R, queues::read::get_num_entries),
    ("queues.get_queue_metrics", V2_4, R, queues::read::get_queue_metrics),
    ("queues.move_task_backward", V2_4, W, moves::move_backward),
    ("queues.move_task_forward", V2_4, W, moves::move_forward),
    ("queues.move_task_to_back", V2_4, W, moves::move_to_back),
    ("queues.move_task_to_front", V2_4, W, moves::move_to_front),
    ("queues.peek_task", Version(2, 15), R, queues::read::peek_task),
    ("queues.remove_task", V2_4, W, change::remove_task),
    ("queues.update", V2_4, W, change::update),
    ("server.config", V1, R, config),
    ("server.endpoints", V1, R, endpoints),
    ("server.get_stats", V1, R, stats),
    ("server.info", V1, R, info),
    ("server.info", Version(2, 8), R, info),
    ("server.info", Version(2, 12), R, info),
    ("tasks.add_or_update_artifacts", Version(2, 10), W, attached::add_or_update_artifacts),
    ("tasks.add_or_update_model", Version(2, 13), W, attached::add_or_update_model),
    ("tasks.archive", V1, W, status::archive),
    ("tasks.archive_many", V1, W, status::archive_many),
    ("tasks.clone", V1, W, clone::clone),
    ("tasks.close", V1, W, status::close),
    ("tasks.close_many", V1, W, status::close_many),
    ("tasks.completed", Version(2, 2), W, status::completed),
    ("tasks.completed_many", V1, W, status::completed_many),
    ("tasks.create", V1, W, tasks::create),
    ("tasks.delete", V1, W, status::delete),
    ("tasks.delete_artifacts", Version(2, 10), W, attached::delete_artifacts),
    ("tasks.delete_configuration", V1, W, params::delete_configuration),
    ("tasks.delete_hyper_params", V1, W, params::delete_hyper_params),
    ("tasks.delete_many", V1, W, status::delete_many),
    ("tasks.delete_models", Version(2, 13), W, attached::delete_models),
    ("tasks.dequeue", V1, W, status::dequeue),
    ("tasks.dequeue_many", V1, W, status::dequeue_many),
    ("tasks.edit", V1, W, edit::edit),
    ("tasks.edit_configuration", V1, W, params::edit_configuration),
    ("tasks.edit_hyper_params", V1, W, params::edit_hyper_params),
    ("tasks.edit_runtime", V1, W, params::edit_runtime),
    ("tasks.enqueue", V1, W, status::enqueue),
    ("tasks.enqueue_many", V1, W, status::enqueue_many),
    ("tasks.failed", V1, W, status::failed),
    ("tasks.failed_many", V1, W, status::failed_many),
    ("tasks.get_all", V1, R, read::get_all),
    ("tasks.get_all_ex", V1, R, read::get_all_ex),
    ("tasks.get_by_id", V1, R, read::get_by_id),
    ("tasks.get_by_id_ex", V1, R, read::get_all_ex),
    ("tasks.get_configuration_names", V1, R, params::get_configuration_names),
    ("tasks.get_configurations", V1, R, params::get_configurations),
    ("tasks.get_hyper_params", V1, R, params::get_hyper_params),
    ("tasks.get_types", V1, R, read::get_types),
    ("tasks.move", V1, W, tree::move_tasks),
    ("tasks.ping", V1, W, edit::ping),
    ("tasks.publish", V1, W, status::publish),
    ("tasks.publish_many", V1, W, status::publish_many),
    ("tasks.reset", V1, W, status::reset),
    ("tasks.reset_many", V1, W, status::reset_many),
    ("tasks.set_requirements", V1, W, edit::set_requirements),
    ("tasks.started", V1, W, status::started),
    ("tasks.started_many", V1, W, status::started_many),
    ("tasks.stop", V1, W, status::stop),
    ("tasks.stop_many", V1, W, status::stop_many),
    ("tasks.stopped", V1, W, status::stopped),
    ("tasks.stopped_many", V1, W, status::stopped_many),
    ("tasks.unarchive", V1, W, status::unarchive),
    ("tasks.unarchive_many", V1, W, status::unarchive_many),
    ("tasks.update", V1, W, edit::update),
    ("tasks.update_batch", V1, W, edit::update_batch),
    ("tasks.update_tags", V1, W, tags::of_tasks),
    ("tasks.validate", V1, R, tasks::validate),
    ("users.get_all", V1, R, users::get_all),
    ("users.get_all_ex", V1, R, users::get_all),
    ("users.get_all_ex", Version(2, 8), R, users::get_all),
    ("users.get_by_id", V1, R, users::get_by_id),
    ("users.get_preferences", V1, R, users::get_preferences),
    ("users.set_preferences", V1, W, users::set_preferences),
    ("users.get_current_user", V1, R, users::current_user),
    ("workers.get_activity_report", V2_4, R, workers::stats::get_activity_report),
    ("workers.get_all", V2_4, R, workers::get_all),
    ("workers.get_count", V1, R, workers::get_count),
    ("workers.get_metric_keys", V2_4, R, workers::stats::get_metric_keys),
    ("workers.get_stats", V2_4, R, workers::stats::get_stats),
    ("workers.register", V2_4, W, workers::register),
    ("workers.status_report", V2_4, W, workers::status_report),
    ("workers.unregister", V2_4, W, workers::unregister),
];

/// The endpoint of that name for a version, on a server of version `newest`: the newest form, if there are several.
pub(crate) fn find(name: &str, version: Version, newest: Version) -> Option<&'static Route> {
    static ROUTES: OnceLock<HashMap<&'static str, Vec<Route>>> = OnceLock::new();
    if !is_known_to(newest, name) {
        return None;
    }
    let version = version.min(newest);
    let routes = ROUTES.get_or_init(|| {
        let mut routes: HashMap<&'static str, Vec<Route>> = HashMap::new();
        for &(name, since, access, run) in TABLE {
            routes.entry(name).or_default().push(Route {
                since,
                access,
                open: OPEN.contains(&name),
                own: OWN.contains(&name),
                form: form_of(name),
                run,
            });
        }
        routes
    });
    let forms = routes.get(name)?.iter();
    forms
        .filter(|route| route.since <= version)
        .max_by_key(|route| route.since)
}

/// `debug.ping`: echoes what was sent.
#[expect(clippy::unnecessary_wraps, reason = "an endpoint like the others")]
fn ping(call: &Call) -> Answer {
    let mut answer = json!({"msg": "ClearML server"});
    if let Value::Object(members) = &mut answer {
        members.extend(call.request.body.clone());
    }
    Ok(answer)
}

/// `server.info`
#[expect(clippy::unnecessary_wraps, reason = "an endpoint like the others")]
fn info(call: &Call) -> Answer {
    let mut info =
        json!({"version": auth::SERVER_VERSION, "build": env!("CARGO_PKG_VERSION"), "commit": ""});
    if call.request.version >= Version(2, 12) {
        info["api_version"] = call.app.newest.to_string().into();
    }
    Ok(info)
}

/// `server.config`, for those who administer (§2.1): what is set, nothing secret.
fn config(call: &Call) -> Answer {
    call.administer()?;
    let app = call.app;
    let mut all = json!({
        "api_version": app.newest.to_string(),
        "tasks": {"non_responsive_tasks_watchdog": {"threshold_sec": app.silence.as_secs()}},
        "events": {"keep_logs_days": app.keep_logs, "keep_metrics_days": app.keep_metrics},
        "files": {"largest_bytes": app.largest_file},
    });
    let Some(path) = call.text_or_none("path")?.filter(|path| !path.is_empty()) else {
        return Ok(all);
    };
    let part = all.pointer_mut(&format!("/{}", path.replace('.', "/")));
    let part = part.filter(|part| part.is_object()).map(Value::take);
    part.ok_or_else(|| Refusal::invalid(format_args!("path {path:?} names no section")))
}

/// `server.endpoints`: name and first version of each.
fn endpoints(call: &Call) -> Answer {
    call.administer()?;
    let shown: Vec<Value> = TABLE
        .iter()
        .filter(|row| row.1 <= call.app.newest && is_known_to(call.app.newest, row.0))
        .map(|row| json!({"name": row.0, "min_version": row.1.to_string(), "required_fields": [], "request_data_model": null}))
        .collect();
    Ok(json!({"endpoints": shown}))
}

/// `server.get_stats`: how much there is of what.
fn stats(call: &Call) -> Answer {
    call.administer()?;
    let mut counts = Map::new();
    for table in ["tasks", "projects", "models", "queues", "users", "workers"] {
        let sql = format!("SELECT count(*) FROM {table}");
        let count: i64 = call.db.query_row(&sql, [], |row| row.get(0))?;
        counts.insert(table.into(), count.into());
    }
    Ok(json!({"company": counts}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_stands_once_and_open_ones_exist() {
        let mut forms: Vec<(&str, Version)> = TABLE.iter().map(|row| (row.0, row.1)).collect();
        let count = forms.len();
        forms.sort_unstable();
        forms.dedup();
        assert_eq!(forms.len(), count);
        let named = |name: &&str| forms.iter().any(|(have, _)| have == name);
        assert!(OPEN.iter().all(named) && OWN.iter().all(named));
    }

    #[test]
    fn an_endpoint_is_unknown_below_its_first_version() {
        let newest = |name, version| find(name, version, Version::NEWEST);
        assert!(newest("queues.get_all", Version(0, 1)).is_none());
        assert!(newest("queues.get_all", Version(999, 0)).is_some());
        assert!(newest("workers.get_runtime_properties", Version::NEWEST).is_none());
        // What came late answers to old versions too, but not on an old server.
        let edit = newest("tasks.edit_runtime", Version(2, 13)).unwrap();
        assert_eq!(edit.since, Version(1, 0));
        assert!(find("tasks.edit_runtime", Version(2, 13), Version(2, 33)).is_none());
        assert!(
            CAME.iter()
                .all(|(name, _)| TABLE.iter().any(|row| row.0 == *name))
        );
    }
}
