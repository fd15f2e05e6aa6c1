//! The table of endpoints: name, since which version, whether it writes, and the function that answers.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::call::Call;
use super::events::{self, charts, log, series};
use super::queues::{self, change, moves};
use super::tasks::{self, attached, clone, edit, params, read, status};
use super::wire::{Answer, Refusal, Version};
use super::{auth, models, projects, users, workers};

/// What an endpoint needs of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// One endpoint.
pub(crate) struct Route {
    pub(crate) since: Version,
    pub(crate) access: Access,
    /// Credentials may be absent (§1.4).
    pub(crate) open: bool,
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

#[rustfmt::skip]
const TABLE: &[Row] = &[
    ("auth.create_credentials", V1, W, users::create_credentials),
    ("auth.fixed_users_mode", V1, R, users::fixed_users_mode),
    ("auth.get_credentials", V1, R, users::get_credentials),
    ("auth.get_token_for_user", V1, R, users::token_for_user),
    ("auth.login", V1, W, users::login),
    ("auth.logout", Version(2, 2), W, users::logout),
    ("auth.revoke_credentials", V1, W, users::revoke_credentials),
    ("auth.validate_token", V1, R, users::validate_token),
    ("debug.ping", V1, R, ping),
    ("events.add", V1, W, events::add),
    ("events.add_batch", V1, W, events::add_batch),
    ("events.debug_images", V1, R, charts::debug_images),
    ("events.download_task_log", V1, R, log::download_task_log),
    ("events.get_multi_task_metrics", V1, R, series::metrics_and_variants),
    ("events.get_multi_task_plots", V1, R, charts::multi_task_plots),
    ("events.get_scalar_metrics_and_variants", V1, R, series::metrics_and_variants),
    ("events.get_task_events", V1, R, charts::task_events),
    ("events.get_task_latest_scalar_values", V1, R, series::latest_values),
    ("events.get_task_log", Version(1, 5), R, log::get_task_log),
    ("events.get_task_metrics", V1, R, series::metrics_of_type),
    ("events.get_task_plots", V1, R, charts::task_plots),
    ("events.get_task_single_value_metrics", V1, R, series::single_values),
    ("events.multi_task_scalar_metrics_iter_histogram", V1, R, charts::multi_task_histogram),
    ("events.scalar_metrics_iter_histogram", V1, R, charts::histogram),
    ("login.logout", V1, W, users::logout),
    ("login.supported_modes", V1, R, users::supported_modes),
    ("models.add_or_update_metadata", Version(2, 13), W, models::add_or_update_metadata),
    ("models.archive_many", V1, W, models::archive_many),
    ("models.create", V1, W, models::create),
    ("models.delete", V1, W, models::delete),
    ("models.delete_metadata", Version(2, 13), W, models::delete_metadata),
    ("models.edit", V1, W, models::edit),
    ("models.get_all", V1, R, models::get_all),
    ("models.get_all_ex", V1, R, models::get_all),
    ("models.get_by_id", V1, R, models::get_by_id),
    ("models.get_by_id_ex", V1, R, models::get_by_id),
    ("models.get_by_task_id", V1, R, models::get_by_task_id),
    ("models.set_ready", V1, W, models::set_ready),
    ("models.unarchive_many", V1, W, models::unarchive_many),
    ("models.update", V1, W, models::edit),
    ("models.update_for_task", V1, W, models::update_for_task),
    ("projects.create", V1, W, projects::create),
    ("projects.delete", V1, W, projects::delete),
    ("projects.get_all", V1, R, projects::get_all),
    ("projects.get_all_ex", V1, R, projects::get_all_ex),
    ("projects.get_by_id", V1, R, projects::get_by_id),
    ("projects.get_model_tags", V1, R, projects::model_tags),
    ("projects.get_task_tags", V1, R, projects::task_tags),
    ("projects.update", V1, W, projects::update),
    ("queues.add_task", V2_4, W, change::add_task),
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
    ("server.config", V1, R, not_for_users),
    ("server.endpoints", V1, R, not_for_users),
    ("server.get_stats", V1, R, not_for_users),
    ("server.info", V1, R, info),
    ("tasks.add_or_update_artifacts", V1, W, attached::add_or_update_artifacts),
    ("tasks.add_or_update_model", V1, W, attached::add_or_update_model),
    ("tasks.archive", V1, W, status::archive),
    ("tasks.archive_many", V1, W, status::archive_many),
    ("tasks.clone", V1, W, clone::clone),
    ("tasks.close", V1, W, status::close),
    ("tasks.close_many", V1, W, status::close_many),
    ("tasks.completed", V1, W, status::completed),
    ("tasks.completed_many", V1, W, status::completed_many),
    ("tasks.create", V1, W, tasks::create),
    ("tasks.delete", V1, W, status::delete),
    ("tasks.delete_artifacts", V1, W, attached::delete_artifacts),
    ("tasks.delete_configuration", V1, W, params::delete_configuration),
    ("tasks.delete_hyper_params", V1, W, params::delete_hyper_params),
    ("tasks.delete_many", V1, W, status::delete_many),
    ("tasks.delete_models", V1, W, attached::delete_models),
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
    ("tasks.validate", V1, R, tasks::validate),
    ("users.get_all", V1, R, users::get_all),
    ("users.get_all_ex", V1, R, users::get_all),
    ("users.get_current_user", V1, R, users::current_user),
    ("workers.get_activity_report", V2_4, R, workers::stats::get_activity_report),
    ("workers.get_all", V2_4, R, workers::get_all),
    ("workers.get_count", V2_4, R, workers::get_count),
    ("workers.get_metric_keys", V2_4, R, workers::stats::get_metric_keys),
    ("workers.get_stats", V2_4, R, workers::stats::get_stats),
    ("workers.register", V2_4, W, workers::register),
    ("workers.status_report", V2_4, W, workers::status_report),
    ("workers.unregister", V2_4, W, workers::unregister),
];

/// The endpoint of that name that a version has.
pub(crate) fn find(name: &str, version: Version) -> Option<&'static Route> {
    static ROUTES: OnceLock<HashMap<&'static str, Route>> = OnceLock::new();
    let routes = ROUTES.get_or_init(|| {
        TABLE
            .iter()
            .map(|&(name, since, access, run)| {
                (
                    name,
                    Route {
                        since,
                        access,
                        open: OPEN.contains(&name),
                        run,
                    },
                )
            })
            .collect()
    });
    routes.get(name).filter(|route| route.since <= version)
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
        info["api_version"] = Version::NEWEST.to_string().into();
    }
    Ok(info)
}

/// `server.config` and the like are for roles that no user of this server has (§2.1).
fn not_for_users(_: &Call) -> Answer {
    Err(Refusal::new(403, 20, "Forbidden (role not allowed)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_once_and_open_ones_exist() {
        let mut names: Vec<&str> = TABLE.iter().map(|row| row.0).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(OPEN.iter().all(|name| names.contains(name)));
    }

    #[test]
    fn an_endpoint_is_unknown_below_its_first_version() {
        assert!(find("queues.get_all", Version(0, 1)).is_none());
        assert!(find("queues.get_all", Version(999, 0)).is_some());
        assert!(find("workers.get_runtime_properties", Version::NEWEST).is_none());
    }
}
