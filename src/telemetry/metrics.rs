//! Metrics in an own registry. Labels are bounded: binding, queue, action, step, outcome; never a task id.

use std::collections::HashMap;
use std::time::Duration;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
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
    phase_seconds: HistogramVec,
    pending: IntGaugeVec,
    stranded: IntGaugeVec,
    head_seconds: IntGaugeVec,
    ended: IntCounterVec,
    conditions: IntGaugeVec,
    leader: IntGaugeVec,
    kubernetes_requests: IntCounterVec,
    resident_bytes: IntGauge,
    build: IntGauge,
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
            phase_seconds: HistogramVec::new(
                HistogramOpts::new(
                    "trainyard_phase_seconds",
                    "How long tasks spend in each phase, from their entry in a queue to their process.",
                )
                .buckets(WAIT_BUCKETS.to_vec()),
                &["binding", "phase"],
            )?,
            pending: gauges(
                "trainyard_pending_tasks",
                "Claimed tasks whose pod does not start, by what stands in its way.",
                &["binding", "reason"],
            )?,
            stranded: gauges(
                "trainyard_stranded_tasks",
                "Tasks of served queues that are queued and stand in no queue.",
                &["binding"],
            )?,
            head_seconds: gauges(
                "trainyard_queue_head_age_seconds",
                "For how long the first entry of a served queue has stood there.",
                &["binding", "queue"],
            )?,
            ended: counters(
                "trainyard_ended_tasks_total",
                "Runs that came to an end, by what ended them.",
                &["binding", "category"],
            )?,
            conditions: gauges(
                "trainyard_condition",
                "Conditions of a binding: 1 true, 0 false, -1 unknown.",
                &["binding", "condition"],
            )?,
            leader: gauges(
                "trainyard_leader",
                "Whether this replica holds the Lease of a binding.",
                &["binding"],
            )?,
            kubernetes_requests: counters(
                "trainyard_kubernetes_requests_total",
                "Requests to the Kubernetes API server, by verb, kind and outcome.",
                &["verb", "resource", "outcome"],
            )?,
            resident_bytes: IntGauge::new(
                "trainyard_process_resident_bytes",
                "Resident memory of this process.",
            )?,
            build: IntGauge::with_opts(
                Opts::new("trainyard_build_info", "Always 1; the version is a label.")
                    .const_label("version", env!("CARGO_PKG_VERSION")),
            )?,
            registry,
        };
        metrics.build.set(1);
        let collectors: [Box<dyn Collector>; 18] = [
            Box::new(metrics.phase_seconds.clone()),
            Box::new(metrics.pending.clone()),
            Box::new(metrics.stranded.clone()),
            Box::new(metrics.head_seconds.clone()),
            Box::new(metrics.ended.clone()),
            Box::new(metrics.conditions.clone()),
            Box::new(metrics.leader.clone()),
            Box::new(metrics.kubernetes_requests.clone()),
            Box::new(metrics.api_requests.clone()),
            Box::new(metrics.api_seconds.clone()),
            Box::new(metrics.passes.clone()),
            Box::new(metrics.pass_seconds.clone()),
            Box::new(metrics.steps.clone()),
            Box::new(metrics.queued.clone()),
            Box::new(metrics.tasks.clone()),
            Box::new(metrics.dispatch_seconds.clone()),
            Box::new(metrics.resident_bytes.clone()),
            Box::new(metrics.build.clone()),
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

    /// A task was in this phase for so long.
    pub fn phase(&self, binding: &str, phase: &str, seconds: f64) {
        self.phase_seconds
            .with_label_values(&[binding, phase])
            .observe(seconds);
    }

    /// Claimed tasks whose pod does not start, by reason; reasons that are not named have none.
    pub fn pending(&self, binding: &str, by_reason: &[(&str, u64)], all_reasons: &[&str]) {
        for reason in all_reasons {
            let count = by_reason
                .iter()
                .find(|(known, _)| known == reason)
                .map_or(0, |(_, count)| *count);
            let gauge = [binding, *reason];
            if count > 0 {
                self.pending.with_label_values(&gauge).set(signed(count));
            } else {
                let _ = self.pending.remove_label_values(&gauge);
            }
        }
    }

    /// Tasks that somebody popped and dropped.
    pub fn stranded(&self, binding: &str, count: usize) {
        self.stranded
            .with_label_values(&[binding])
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// For how long the first entry of a queue has stood there; 0 without one.
    pub fn head_age(&self, binding: &str, queue: &str, age: Duration) {
        self.head_seconds
            .with_label_values(&[binding, queue])
            .set(signed(age.as_secs()));
    }

    /// A run came to its end. `category` is one of the diagnosis' fixed words.
    pub fn ended(&self, binding: &str, category: &str) {
        self.ended.with_label_values(&[binding, category]).inc();
    }

    /// Counts of ends by these categories begin at 0 where there are none yet: what Prometheus sees first counts as no
    /// rise, and a node that is lost may end many runs between two looks.
    pub fn may_end(&self, binding: &str, categories: &[&str]) {
        for category in categories {
            self.ended
                .with_label_values(&[binding, *category])
                .inc_by(0);
        }
    }

    /// A condition as it stands: 1 true, 0 false, -1 unknown.
    pub fn condition(&self, binding: &str, condition: &str, value: i64) {
        self.conditions
            .with_label_values(&[binding, condition])
            .set(value);
    }

    /// Whether this replica works on the binding.
    pub fn leads(&self, binding: &str, leads: bool) {
        self.leader
            .with_label_values(&[binding])
            .set(i64::from(leads));
    }

    /// One request to the Kubernetes API server.
    pub fn kubernetes_request(&self, verb: &str, resource: &str, outcome: &str) {
        self.kubernetes_requests
            .with_label_values(&[verb, resource, outcome])
            .inc();
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

    /// Drops the series that say how a binding stands: another replica tells that now. What was counted stays.
    pub fn stand_by(&self, binding: &str) {
        let states: [&dyn Forget; 6] = [
            &self.tasks,
            &self.queued,
            &self.pending,
            &self.stranded,
            &self.head_seconds,
            &self.conditions,
        ];
        for metric in states {
            metric.forget(binding);
        }
    }

    /// Drops every series of a binding that is gone.
    pub fn forget(&self, binding: &str) {
        let labelled: [&dyn Forget; 11] = [
            &self.passes,
            &self.pass_seconds,
            &self.tasks,
            &self.queued,
            &self.phase_seconds,
            &self.pending,
            &self.stranded,
            &self.head_seconds,
            &self.ended,
            &self.conditions,
            &self.leader,
        ];
        for metric in labelled {
            metric.forget(binding);
        }
    }

    /// Names of all metrics, whether they have a value yet or not.
    pub fn names(&self) -> Vec<String> {
        let described: [&dyn Collector; 18] = [
            &self.api_requests,
            &self.api_seconds,
            &self.passes,
            &self.pass_seconds,
            &self.steps,
            &self.queued,
            &self.tasks,
            &self.dispatch_seconds,
            &self.phase_seconds,
            &self.pending,
            &self.stranded,
            &self.head_seconds,
            &self.ended,
            &self.conditions,
            &self.leader,
            &self.kubernetes_requests,
            &self.resident_bytes,
            &self.build,
        ];
        described
            .iter()
            .flat_map(|collector| collector.desc())
            .map(|description| description.fq_name.clone())
            .collect()
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

/// Metrics with the label `binding`.
trait Forget {
    /// Drops the series of this binding.
    fn forget(&self, binding: &str);
}

impl<T: MetricVecBuilder> Forget for MetricVec<T> {
    fn forget(&self, binding: &str) {
        let series: Vec<Vec<(String, String)>> = self
            .collect()
            .iter()
            .flat_map(prometheus::proto::MetricFamily::get_metric)
            .map(|metric| {
                metric
                    .get_label()
                    .iter()
                    .map(|pair| (pair.name().to_owned(), pair.value().to_owned()))
                    .collect()
            })
            .collect();
        for labels in series {
            if labels
                .iter()
                .any(|(name, value)| name == "binding" && value == binding)
            {
                let labels: HashMap<&str, &str> = labels
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()))
                    .collect();
                let _ = self.remove(&labels);
            }
        }
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
        metrics.leads("ns/gpu", true);
        metrics.queued("ns/gpu-2", "default", 7);
        metrics.forget("ns/gpu");
        let text = metrics.text().unwrap();
        assert!(!text.contains("\"ns/gpu\""), "{text}");
        assert!(text.contains("\"ns/gpu-2\""), "{text}");
    }

    #[test]
    fn what_may_end_a_run_is_counted_from_0_on() {
        let metrics = Metrics::new().unwrap();
        metrics.ended("ns/gpu", "evicted");
        metrics.may_end("ns/gpu", &["evicted", "preempted"]);
        let text = metrics.text().unwrap();
        for (category, count) in [("evicted", 1), ("preempted", 0)] {
            let series = format!(
                "trainyard_ended_tasks_total{{binding=\"ns/gpu\",category=\"{category}\"}} {count}\n"
            );
            assert!(text.contains(&series), "{series}{text}");
        }
    }

    #[test]
    fn a_binding_that_another_replica_works_on_keeps_only_what_was_counted() {
        let metrics = Metrics::new().unwrap();
        metrics.pass("ns/gpu", "ok", Duration::from_millis(3));
        metrics.queued("ns/gpu", "default", 7);
        metrics.condition("ns/gpu", "Ready", 0);
        metrics.leads("ns/gpu", false);
        metrics.stand_by("ns/gpu");
        let text = metrics.text().unwrap();
        let has = |name: &str| text.contains(&format!("{name}{{binding=\"ns/gpu\""));
        assert!(has("trainyard_passes_total") && has("trainyard_leader"));
        assert!(!has("trainyard_queued_tasks") && !has("trainyard_condition"));
    }
}
