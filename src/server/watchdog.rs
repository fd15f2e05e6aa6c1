//! What happens without a request: running tasks that have gone silent are stopped, what is old is thrown away
//! (§3.4), and users that another process added or removed become known.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::App;
use super::call::{Call, Request};
use super::events::forget::{self, Place};
use super::wire::{Answer, Refusal};
use super::{doc, events, files, query, rules, tasks, workers};

/// How often users and keys are looked at for a change, and files for their end.
const TURN: Duration = Duration::from_secs(2);
/// Blocks of old log lines that one write throws away: other writers wait for no more.
const FORGOTTEN: i64 = 2000;

/// Runs until the server stops.
pub(crate) async fn run(app: Arc<App>, every: Duration, stop: CancellationToken) {
    // Not at once: after a pause of the server itself, running tasks get the time to report again.
    let start = tokio::time::Instant::now() + every;
    let mut turns = tokio::time::interval_at(start, every);
    let mut place = Place::default();
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
        tokio::select! {
            () = stop.cancelled() => return,
            () = forget_old(&app, &mut place) => {}
        }
    }
}

/// Throws away what is older than it is kept.
async fn forget_old(app: &Arc<App>, place: &mut Place) {
    forget_logs(app).await;
    let Some(days) = app.keep_metrics else { return };
    match forget_metrics(app, place, days_before_now(days)).await {
        Ok(0) => {}
        Ok(tasks) => tracing::info!(tasks, "threw old metrics away"),
        Err(refusal) => tracing::warn!(error = refusal.text, "old metrics could not be deleted"),
    }
}

/// A moment in ms.
fn days_before_now(days: u32) -> i64 {
    jiff::Timestamp::now().as_millisecond() - i64::from(days) * 24 * 3600 * 1000
}

/// Throws log lines away that are older than they are kept, in as many writes as it takes.
async fn forget_logs(app: &App) {
    let Some(days) = app.keep_logs else { return };
    let until = days_before_now(days);
    loop {
        let answer = app.store.write(move |db| {
            let forgotten = events::log::forget_before(db, until, FORGOTTEN)?;
            Ok(json!(forgotten))
        });
        match answer.await {
            Ok(forgotten) if forgotten != json!(0) => {}
            Ok(_) => return,
            Err(refusal) => {
                tracing::warn!(error = refusal.text, "old log lines could not be deleted");
                return;
            }
        }
    }
}

/// Throws metrics away of tasks that have not changed since a moment (in ms), one task after the other; of how many. It
/// goes on behind the place where it ended before: a task that changes comes to stand behind it.
async fn forget_metrics(app: &Arc<App>, place: &mut Place, until: i64) -> Result<u64, Refusal> {
    let mut forgotten = 0;
    loop {
        let from = place.clone();
        let found = app.store.read(move |db| forget::due(db, &from, until));
        let Value::Array(found) = found.await? else {
            return Ok(forgotten);
        };
        if found.is_empty() {
            return Ok(forgotten);
        }
        for row in &found {
            let text = |column: usize| row[column].as_str().unwrap_or_default().to_owned();
            if row[2] == true {
                forget_task(app, &text(0), until).await?;
                forgotten += 1;
            }
            *place = Place {
                changed: text(1),
                task: text(0),
            };
        }
    }
}

/// The same of one task, in as many writes as it takes.
async fn forget_task(app: &Arc<App>, task: &str, until: i64) -> Result<(), Refusal> {
    loop {
        let (looking, task) = (Arc::clone(app), task.to_owned());
        let forgotten = app.store.write(move |db| {
            let request = Request::own();
            let call = Call::new(db, &looking, &request);
            Ok(json!(forget::some_of(&call, &task, until)?))
        });
        if forgotten.await? == json!(0) {
            return Ok(());
        }
    }
}

/// Every few seconds: reads users and keys again if `trainyard server user` has changed them, and takes doomed files
/// away.
pub(crate) async fn tidy(app: Arc<App>, stop: CancellationToken) {
    let mut turns = tokio::time::interval(TURN);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut known = Value::Null;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = turns.tick() => {}
        }
        match learn_accounts(&app, &known).await {
            Ok(noted) => known = noted,
            Err(refusal) => tracing::warn!(error = refusal.text, "users could not be read"),
        }
        files::doomed::sweep(&app, app.linger).await;
    }
}

/// Reads users and keys again if a change is noted that is not `known`; returns what is noted.
async fn learn_accounts(app: &Arc<App>, known: &Value) -> Answer {
    let noted = app.store.read(noted_change).await?;
    if noted == *known {
        return Ok(noted);
    }
    let learning = Arc::clone(app);
    // In the writer's turn: a snapshot from before a key pair was made or revoked, or a token logged out, would take
    // that back here although it has been answered.
    let learn = move |db: &Connection| {
        learning.auth.reload(db)?;
        noted_change(db)
    };
    app.store.write(learn).await
}

/// The mark that each change of users and keys leaves.
fn noted_change(db: &Connection) -> Answer {
    let sql = "SELECT value FROM settings WHERE key = 'accounts_changed'";
    let noted: Option<String> = db
        .prepare_cached(sql)?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(json!(noted))
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
        if let Some(change) = rules::watchdog(&task, call.at, call.app.silence) {
            let user = doc::text(&task, "user").to_owned();
            change.apply(&mut task, &call.now, &user);
            tasks::save(call.db, &task)?;
            stopped += 1;
        }
    }
    Ok(json!(stopped))
}
