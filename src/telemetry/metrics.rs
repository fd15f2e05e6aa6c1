//! Metrics in an own registry. Labels are bounded: binding, queue, action, step, outcome; never a task id.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// Seconds: from an answer on the same machine to the longest request that is waited for.
const REQUEST_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 7.5];
/// Seconds: from an idle cluster to an hour in the queue.
const WAIT_BUCKETS: &[f64] = &[0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 3600.0];

/// All metrics of one process.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    api_requests: IntCounterVec,
    api_seconds: HistogramVec,
    passes: IntCounterVec,
    pass_seconds: HistogramVec,
    steps: IntCounterVec,
    queued: IntGaugeVec,
    tasks: IntGaugeVec,
    dispatch_seconds: Histogram,
    resident_bytes: IntGauge,
}

/// How many tasks of a binding stand where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TaskCounts {
    pub claimed: u64,
    pub running: u64,
}

impl Metrics {
    /// Registers everything; fails only if two metrics were given the same name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let metrics = Self {
            api_requests: counters(
                "trainyard_api_requests_total",
                "Requests to ClearML servers, by call and outcome.",
                &["action", "outcome"],
            )?,
            api_seconds: histograms(
                "trainyard_api_request_seconds",
                "How long requests to ClearML servers take.",
                &["action"],
            )?,
            passes: counters(
                "trainyard_passes_total",
                "Passes over a binding, by outcome.",
                &["binding", "outcome"],
            )?,
            pass_seconds: histograms(
                "trainyard_pass_seconds",
                "How long a pass over a binding takes.",
                &["binding"],
            )?,
            steps: counters(
                "trainyard_steps_total",
                "Steps carried out on tasks, by kind and outcome.",
                &["step", "outcome"],
            )?,
            queued: gauges(
                "trainyard_queued_tasks",
                "Entries of served queues.",
                &["binding", "queue"],
            )?,
            tasks: gauges(
                "trainyard_tasks",
                "Tasks of a binding that are claimed or running.",
                &["binding", "state"],
            )?,
            dispatch_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "trainyard_dispatch_seconds",
                    "From a task's entry in a queue to its Job.",
                )
                .buckets(WAIT_BUCKETS.to_vec()),
            )?,
            resident_bytes: IntGauge::new(
                "trainyard_process_resident_bytes",
                "Resident memory of this process.",
            )?,
            registry,
        };
        let build = IntGauge::with_opts(
            Opts::new("trainyard_build_info", "Always 1; the version is a label.")
                .const_label("version", env!("CARGO_PKG_VERSION")),
        )?;
        build.set(1);
        let collectors: [Box<dyn Collector>; 10] = [
            Box::new(metrics.api_requests.clone()),
            Box::new(metrics.api_seconds.clone()),
            Box::new(metrics.passes.clone()),
            Box::new(metrics.pass_seconds.clone()),
            Box::new(metrics.steps.clone()),
            Box::new(metrics.queued.clone()),
            Box::new(metrics.tasks.clone()),
            Box::new(metrics.dispatch_seconds.clone()),
            Box::new(metrics.resident_bytes.clone()),
            Box::new(build),
        ];
        for collector in collectors {
            metrics.registry.register(collector)?;
        }
        Ok(metrics)
    }

    /// One request to a server. `action` is one of the client's own constants, `outcome` a fixed word.
    pub fn request(&self, action: &str, outcome: &str, took: Duration) {
        self.api_requests
            .with_label_values(&[action, outcome])
            .inc();
        self.api_seconds
            .with_label_values(&[action])
            .observe(took.as_secs_f64());
    }

    /// One pass over a binding.
    pub fn pass(&self, binding: &str, outcome: &str, took: Duration) {
        self.passes.with_label_values(&[binding, outcome]).inc();
        self.pass_seconds
            .with_label_values(&[binding])
            .observe(took.as_secs_f64());
    }

    /// One step on a task.
    pub fn step(&self, step: &str, outcome: &str) {
        self.steps.with_label_values(&[step, outcome]).inc();
    }

    /// A Job was created this long after its task's entry.
    pub fn dispatched(&self, after: Duration) {
        self.dispatch_seconds.observe(after.as_secs_f64());
    }

    /// Entries in one served queue.
    pub fn queued(&self, binding: &str, queue: &str, entries: u64) {
        self.queued
            .with_label_values(&[binding, queue])
            .set(signed(entries));
    }

    /// Claimed and running tasks of a binding.
    pub fn tasks(&self, binding: &str, counts: TaskCounts) {
        self.tasks
            .with_label_values(&[binding, "claimed"])
            .set(signed(counts.claimed));
        self.tasks
            .with_label_values(&[binding, "running"])
            .set(signed(counts.running));
    }

    /// Drops the series of a binding that is gone, and of the queues that it served.
    pub fn forget(&self, binding: &str, queues: &[String]) {
        for outcome in ["ok", "error"] {
            let _ = self.passes.remove_label_values(&[binding, outcome]);
        }
        let _ = self.pass_seconds.remove_label_values(&[binding]);
        for state in ["claimed", "running"] {
            let _ = self.tasks.remove_label_values(&[binding, state]);
        }
        for queue in queues {
            let _ = self.queued.remove_label_values(&[binding, queue]);
        }
    }

    /// Everything in Prometheus' text format.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        if let Some(bytes) = resident_bytes() {
            self.resident_bytes.set(bytes);
        }
        let mut buffer = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer).into_owned())
    }
}

fn counters(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
    IntGaugeVec::new(Opts::new(name, help), labels)
}

fn histograms(name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
    HistogramVec::new(
        HistogramOpts::new(name, help).buckets(REQUEST_BUCKETS.to_vec()),
        labels,
    )
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Resident memory of this process in bytes, as the kernel tells.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_in_the_text() {
        let metrics = Metrics::new().unwrap();
        metrics.step("take", "done");
        metrics.queued("ns/gpu", "default", 7);
        metrics.request("queues.get_all", "ok", Duration::from_millis(3));
        let text = metrics.text().unwrap();
        assert!(
            text.contains(r#"trainyard_steps_total{outcome="done",step="take"} 1"#),
            "{text}"
        );
        assert!(text.contains(r#"trainyard_queued_tasks{binding="ns/gpu",queue="default"} 7"#));
        assert!(text.contains("trainyard_build_info{version="));
    }

    #[test]
    fn a_binding_that_is_gone_leaves_no_series() {
        let metrics = Metrics::new().unwrap();
        metrics.pass("ns/gpu", "ok", Duration::from_millis(3));
        metrics.tasks(
            "ns/gpu",
            TaskCounts {
                claimed: 1,
                running: 2,
            },
        );
        metrics.queued("ns/gpu", "default", 7);
        metrics.forget("ns/gpu", &["default".to_owned()]);
        assert!(!metrics.text().unwrap().contains("ns/gpu"));
    }
}
