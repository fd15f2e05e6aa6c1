//! Reports host and GPUs while the task runs: the worker's `machine_stats` always, the task's `:monitor:` plots unless
//! the SDK inside the task draws them itself (`protocol.md` §5.2, §5.3, §11).
//!
//! The SDK tells by its own doing: `Task.init` describes machine and Python in the task's `runtime`. Before that it
//! reports nothing, so the plots are ours until then and the SDK's from then on.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::settings::Settings;
use super::smi;
use super::spool::Spool;
use super::start::DEFAULT_PATH;
use crate::api::{Client, Error, Event, StatusReport};
use crate::stats::gpu::Xid;
use crate::stats::report::Report;
use crate::stats::{Sampler, SamplerSettings, Tell};
use crate::task::Task;

/// The first report comes early: a short task shall have numbers too.
const FIRST: Duration = Duration::from_secs(3);

/// Reads and reports until it is dropped.
pub struct Statistics {
    client: Client,
    settings: Settings,
    sampler: Sampler,
    started: Instant,
    /// `runtime` as it was before the task was started.
    before: Map<String, Value>,
    host: String,
    sdk: bool,
}

impl Statistics {
    /// Starts to read; absent where no thread can be had.
    pub fn start(client: &Client, settings: &Settings, task: &Task) -> Option<Self> {
        let path = settings
            .inherited
            .get("PATH")
            .cloned()
            .unwrap_or_else(|| DEFAULT_PATH.to_owned());
        let sampler = Sampler::start(SamplerSettings {
            disk: settings
                .disk
                .clone()
                .unwrap_or_else(|| settings.layout.root().to_owned()),
            gpu: settings.gpu != "off",
            table: smi::table(&path),
            tell: noting(settings),
        });
        let sampler = match sampler {
            Ok(sampler) => sampler,
            Err(error) => {
                tracing::warn!(%error, "no statistics");
                return None;
            }
        };
        let host = nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        Some(Self {
            client: client.clone(),
            settings: settings.clone(),
            sampler,
            started: Instant::now(),
            before: task.runtime.clone(),
            host,
            sdk: false,
        })
    }

    /// The faults of GPUs that the driver has reported so far.
    pub fn faults(&self) -> Vec<Xid> {
        self.sampler.faults()
    }

    /// Reports each period, for ever.
    pub async fn run(&mut self) {
        let period = self.settings.report_period;
        let mut ticks = interval_at(Instant::now() + FIRST.min(period), period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.report().await;
        }
    }

    /// One report of what was read since the last.
    pub async fn report(&mut self) {
        let Some(report) = self.sampler.report() else {
            return;
        };
        if let Err(error) = self.send(&report).await {
            tracing::debug!(%error, "statistics not sent");
        }
    }

    async fn send(&mut self, report: &Report) -> Result<(), Error> {
        let now = Timestamp::now().as_millisecond();
        let of_worker = StatusReport {
            worker: self.settings.worker.clone(),
            timestamp: now,
            queues: Vec::new(),
            queue: None,
            task: Some(self.settings.task.clone()),
            machine_stats: Some(Value::Object(report.machine_stats())),
        };
        self.client.report_worker(&of_worker).await?;
        if !self.sdk {
            let task = self.client.task(&self.settings.task).await?;
            self.sdk =
                task.is_none_or(|task| reports_itself(&task.runtime, &self.before, &self.host));
        }
        if self.sdk {
            return Ok(());
        }
        // Like the SDK without iterations: the axis is seconds since the start.
        let seconds = i64::try_from(self.started.elapsed().as_secs()).unwrap_or(i64::MAX);
        let events: Vec<Event> = report
            .scalars()
            .into_iter()
            .map(|scalar| Event::Scalar {
                task: self.settings.task.clone(),
                worker: self.settings.worker.clone(),
                metric: scalar.metric.to_owned(),
                variant: scalar.variant,
                iter: seconds,
                value: scalar.value,
                timestamp: now,
            })
            .collect();
        self.client.add_events(&events).await.map(|_| ())
    }
}

/// Writes into the task's log what is found about its GPUs, when it is found: the script may not say what has happened to
/// it, and cannot see who else is there.
fn noting(settings: &Settings) -> Tell {
    match Spool::open(&settings.layout.spool()) {
        Ok(spool) => Arc::new(move |text: &str| {
            if let Err(error) = spool.note(text) {
                tracing::warn!(%error, "could not write to the spool");
            }
        }),
        Err(error) => {
            tracing::warn!(%error, "faults of GPUs will not be in the log");
            Arc::new(|_: &str| {})
        }
    }
}

/// Whether an SDK has attached to the task since it was started on this host. It describes the machine and the Python
/// that it runs in; what an SDK elsewhere or an earlier run has written stands there unchanged.
fn reports_itself(now: &Map<String, Value>, before: &Map<String, Value>, host: &str) -> bool {
    let member = |runtime: &Map<String, Value>, name: &str| runtime.get(name).cloned();
    let here = member(now, "hostname").is_some_and(|name| name == host);
    here && ["hostname", "python_exec"]
        .iter()
        .any(|name| member(now, name) != member(before, name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_sdk_shows_itself_by_the_name_of_its_host() {
        let object = |value: Value| value.as_object().cloned().unwrap();
        let (local, pod) = (
            object(json!({"hostname": "laptop"})),
            object(json!({"hostname": "pod-1"})),
        );
        assert!(
            !reports_itself(&local, &local, "pod-1"),
            "the SDK ran where the task was made"
        );
        assert!(reports_itself(&pod, &local, "pod-1"));
        assert!(reports_itself(&pod, &object(json!({})), "pod-1"));
        assert!(!reports_itself(
            &object(json!({})),
            &object(json!({})),
            "pod-1"
        ));
    }
}
