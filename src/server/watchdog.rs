//! Every quarter of an hour: running tasks that have gone silent are stopped, old samples thrown away (§3.4).

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::App;
use super::call::{Call, Request};
use super::wire::Answer;
use super::{doc, query, rules, tasks, workers};

const INTERVAL: Duration = Duration::from_mins(15);

/// Runs until the server stops.
pub(crate) async fn run(app: Arc<App>, stop: CancellationToken) {
    // Not at once: after a pause of the server itself, running tasks get the time to report again.
    let start = tokio::time::Instant::now() + INTERVAL;
    let mut turns = tokio::time::interval_at(start, INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = turns.tick() => {}
        }
        let looking = Arc::clone(&app);
        let answer = app.store.write(move |db| {
            let request = Request::own();
            look(&Call::new(db, &looking, &request))
        });
        match answer.await {
            Ok(stopped) if stopped != json!(0) => {
                tracing::info!(tasks = %stopped, "stopped silent tasks");
            }
            Ok(_) => {}
            Err(refusal) => tracing::warn!(error = refusal.text, "the watchdog could not look"),
        }
    }
}

/// One look: stops what is silent, returns how many that were.
fn look(call: &Call) -> Answer {
    workers::clean(call)?;
    let mut statement = call
        .db
        .prepare_cached("SELECT id FROM tasks WHERE status = 'in_progress'")?;
    let running = statement
        .query_map([], |row| row.get(0))?
        .collect::<Result<Vec<String>, _>>()?;
    let mut stopped = 0;
    for id in running {
        let Some(mut task) = query::one(call.db, "SELECT doc FROM tasks WHERE id = ?1", &id)?
        else {
            continue;
        };
        if let Some(change) = rules::watchdog(&task, call.at) {
            let user = doc::text(&task, "user").to_owned();
            change.apply(&mut task, &call.now, &user);
            tasks::save(call.db, &task)?;
            stopped += 1;
        }
    }
    Ok(json!(stopped))
}
