//! PURE: samples -> what the server gets: the worker's `machine_stats` and the task's scalars.
//!
//! Source: `protocol.md` §5.2 and §5.3. A value that nobody could read is left out, never replaced; one that could be
//! read in some samples is the mean of those.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

const MIB_PER_GIB: f64 = 1024.0;

/// One reading of the container's share of the host.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct HostSample {
    /// Share of the processors that the container may use.
    pub cpu_percent: Option<f64>,
    /// Degrees Celsius, the hottest sensor.
    pub cpu_temperature: Option<f64>,
    pub memory_used_mib: Option<f64>,
    /// Up to the container's limit.
    pub memory_free_mib: Option<f64>,
    pub disk_free_percent: Option<f64>,
    /// MiB per second since the last sample, as the next three.
    pub disk_read_mib: Option<f64>,
    pub disk_write_mib: Option<f64>,
    pub network_rx_mib: Option<f64>,
    pub network_tx_mib: Option<f64>,
}

/// One reading of one GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct GpuSample {
    pub index: u32,
    pub utilization_percent: Option<f64>,
    pub memory_used_mib: Option<f64>,
    pub memory_free_mib: Option<f64>,
    pub memory_total_mib: Option<f64>,
    /// Degrees Celsius.
    pub temperature: Option<f64>,
    /// Watts.
    pub power: Option<f64>,
    /// What of the memory the task's own processes hold, where that can be told.
    pub memory_of_task_mib: Option<f64>,
}

/// Everything that was read at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    pub host: HostSample,
    pub gpus: Vec<GpuSample>,
}

/// One point of a task's plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    /// `:monitor:machine` or `:monitor:gpu`.
    pub metric: &'static str,
    pub variant: String,
    pub value: f64,
}

/// A mean that only knows the values it was given.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    count: u32,
}

impl Mean {
    fn add(&mut self, value: Option<f64>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.sum += value;
            self.count += 1;
        }
    }

    fn value(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }
}

/// Sums up samples until the next report.
#[derive(Debug, Clone, Default)]
pub struct Averages {
    host: [Mean; 9],
    gpus: BTreeMap<u32, [Mean; 7]>,
    samples: u32,
}

impl Averages {
    /// Takes one sample in.
    pub fn add(&mut self, sample: &Sample) {
        self.samples += 1;
        let host = &sample.host;
        let values = [
            host.cpu_percent,
            host.cpu_temperature,
            host.memory_used_mib,
            host.memory_free_mib,
            host.disk_free_percent,
            host.disk_read_mib,
            host.disk_write_mib,
            host.network_rx_mib,
            host.network_tx_mib,
        ];
        add_each(&mut self.host, values);
        for gpu in &sample.gpus {
            let values = [
                gpu.utilization_percent,
                gpu.memory_used_mib,
                gpu.memory_free_mib,
                gpu.memory_total_mib,
                gpu.temperature,
                gpu.power,
                gpu.memory_of_task_mib,
            ];
            add_each(self.gpus.entry(gpu.index).or_default(), values);
        }
    }

    /// The means since the last call; `None` if there was no sample.
    pub fn take(&mut self) -> Option<Report> {
        let taken = std::mem::take(self);
        if taken.samples == 0 {
            return None;
        }
        let [
            cpu_percent,
            cpu_temperature,
            memory_used_mib,
            memory_free_mib,
            disk_free_percent,
            disk_read_mib,
            disk_write_mib,
            network_rx_mib,
            network_tx_mib,
        ] = taken.host.map(Mean::value);
        let host = HostSample {
            cpu_percent,
            cpu_temperature,
            memory_used_mib,
            memory_free_mib,
            disk_free_percent,
            disk_read_mib,
            disk_write_mib,
            network_rx_mib,
            network_tx_mib,
        };
        let gpus = taken.gpus.into_iter().map(|(index, means)| {
            let [
                utilization_percent,
                memory_used_mib,
                memory_free_mib,
                memory_total_mib,
                temperature,
                power,
                memory_of_task_mib,
            ] = means.map(Mean::value);
            GpuSample {
                index,
                utilization_percent,
                memory_used_mib,
                memory_free_mib,
                memory_total_mib,
                temperature,
                power,
                memory_of_task_mib,
            }
        });
        Some(Report(Sample {
            host,
            gpus: gpus.collect(),
        }))
    }
}

fn add_each<const N: usize>(means: &mut [Mean; N], values: [Option<f64>; N]) {
    for (mean, value) in means.iter_mut().zip(values) {
        mean.add(value);
    }
}

/// The means of one report period; GPUs in the order of their numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report(pub Sample);

impl Report {
    /// `machine_stats` of `workers.status_report` (§5.2).
    pub fn machine_stats(&self) -> Map<String, Value> {
        let Sample { host, gpus } = &self.0;
        let mut stats = Map::new();
        for (name, value) in [
            ("cpu_usage", host.cpu_percent),
            ("cpu_temperature", host.cpu_temperature),
        ] {
            if let Some(value) = value {
                stats.insert(name.to_owned(), json!([rounded(value)]));
            }
        }
        for (name, value) in [
            ("memory_used", host.memory_used_mib),
            ("memory_free", host.memory_free_mib),
            ("disk_free_home", host.disk_free_percent),
            ("disk_read", host.disk_read_mib),
            ("disk_write", host.disk_write_mib),
            ("network_rx", host.network_rx_mib),
            ("network_tx", host.network_tx_mib),
        ] {
            if let Some(value) = value {
                stats.insert(name.to_owned(), json!(rounded(value)));
            }
        }
        let mut list = |name: &str, value: fn(&GpuSample) -> Option<f64>| {
            // A list with a gap would give each later GPU the value of its neighbour.
            let values: Option<Vec<f64>> = gpus.iter().map(|gpu| value(gpu).map(rounded)).collect();
            if let Some(values) = values.filter(|values| !values.is_empty()) {
                stats.insert(name.to_owned(), json!(values));
            }
        };
        list("gpu_usage", |gpu| gpu.utilization_percent);
        list("gpu_memory_used", |gpu| gpu.memory_used_mib);
        list("gpu_memory_free", |gpu| gpu.memory_free_mib);
        list("gpu_temperature", |gpu| gpu.temperature);
        stats
    }

    /// The plots that the SDK would report from inside the task (§5.3). For tasks without the SDK alone: never twice.
    pub fn scalars(&self) -> Vec<Scalar> {
        let Sample { host, gpus } = &self.0;
        let gib = |mib: Option<f64>| mib.map(|mib| mib / MIB_PER_GIB);
        let mut scalars = Vec::new();
        let mut push = |metric, variant: String, value: Option<f64>| {
            if let Some(value) = value.map(rounded) {
                scalars.push(Scalar {
                    metric,
                    variant,
                    value,
                });
            }
        };
        for (variant, value) in [
            ("cpu_usage", host.cpu_percent),
            ("memory_used_gb", gib(host.memory_used_mib)),
            ("memory_free_gb", gib(host.memory_free_mib)),
            ("disk_free_percent", host.disk_free_percent),
            ("cpu_temperature", host.cpu_temperature),
            ("network_tx_mbs", host.network_tx_mib),
            ("network_rx_mbs", host.network_rx_mib),
            ("io_read_mbs", host.disk_read_mib),
            ("io_write_mbs", host.disk_write_mib),
        ] {
            push(":monitor:machine", variant.to_owned(), value);
        }
        for gpu in gpus {
            let share = gpu
                .memory_used_mib
                .zip(gpu.memory_total_mib)
                .filter(|(_, total)| *total > 0.0)
                .map(|(used, total)| 100.0 * used / total);
            for (name, value) in [
                ("utilization", gpu.utilization_percent),
                ("temperature", gpu.temperature),
                ("mem_used_gb", gib(gpu.memory_used_mib)),
                ("mem_free_gb", gib(gpu.memory_free_mib)),
                ("mem_usage", share),
                ("power_draw", gpu.power),
                // Of our own: the SDK knows no such plot.
                ("mem_used_by_task_gb", gib(gpu.memory_of_task_mib)),
            ] {
                push(":monitor:gpu", format!("gpu_{}_{name}", gpu.index), value);
            }
        }
        scalars
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(index: u32, utilization: Option<f64>) -> GpuSample {
        GpuSample {
            index,
            utilization_percent: utilization,
            memory_used_mib: Some(1024.0),
            memory_free_mib: Some(3072.0),
            memory_total_mib: Some(4096.0),
            temperature: Some(61.0),
            power: Some(300.1234),
            memory_of_task_mib: Some(512.0),
        }
    }

    fn report(samples: &[Sample]) -> Report {
        let mut averages = Averages::default();
        for sample in samples {
            averages.add(sample);
        }
        averages.take().unwrap()
    }

    fn busy(cpu: f64, gpus: Vec<GpuSample>) -> Sample {
        let host = HostSample {
            cpu_percent: Some(cpu),
            memory_used_mib: Some(2048.0),
            ..HostSample::default()
        };
        Sample { host, gpus }
    }

    #[test]
    fn a_report_is_the_mean_of_what_was_known() {
        let mut unknown = busy(60.0, vec![]);
        unknown.host.memory_used_mib = None;
        let report = report(&[busy(10.0, vec![]), busy(20.0, vec![]), unknown]);
        assert_eq!(report.0.host.cpu_percent, Some(30.0));
        assert_eq!(report.0.host.memory_used_mib, Some(2048.0));
        let stats = Value::Object(report.machine_stats());
        assert_eq!(stats, json!({"cpu_usage": [30.0], "memory_used": 2048.0}));
    }

    #[test]
    fn no_sample_is_no_report_and_a_report_empties_the_sums() {
        let mut averages = Averages::default();
        assert_eq!(averages.take(), None);
        averages.add(&busy(1.0, vec![]));
        assert!(averages.take().is_some());
        assert_eq!(averages.take(), None);
    }

    #[test]
    fn gpus_stand_in_the_order_of_their_numbers() {
        let gpus = [10, 2, 0, 11, 1]
            .map(|index| gpu(index, Some(f64::from(index))))
            .to_vec();
        let report = report(&[busy(1.0, gpus)]);
        assert_eq!(
            report.machine_stats()["gpu_usage"],
            json!([0.0, 1.0, 2.0, 10.0, 11.0])
        );
        let named: Vec<String> = report
            .scalars()
            .into_iter()
            .filter(|scalar| scalar.variant.ends_with("utilization"))
            .map(|scalar| scalar.variant)
            .collect();
        assert_eq!(named[3], "gpu_10_utilization");
    }

    #[test]
    fn an_unknown_utilization_is_left_out_and_shifts_nothing() {
        let report = report(&[busy(1.0, vec![gpu(0, None), gpu(1, Some(50.0))])]);
        let stats = report.machine_stats();
        assert!(!stats.contains_key("gpu_usage"));
        assert_eq!(stats["gpu_temperature"], json!([61.0, 61.0]));
        let variants: Vec<String> = report
            .scalars()
            .into_iter()
            .map(|scalar| scalar.variant)
            .collect();
        assert!(!variants.contains(&"gpu_0_utilization".to_owned()));
        assert!(variants.contains(&"gpu_1_utilization".to_owned()));
    }

    #[test]
    fn scalars_have_the_sdks_names_and_units() {
        let report = report(&[busy(12.34567, vec![gpu(3, Some(97.0))])]);
        let scalars: Vec<(&str, String, f64)> = report
            .scalars()
            .into_iter()
            .map(|scalar| (scalar.metric, scalar.variant, scalar.value))
            .collect();
        let expected = [
            (":monitor:machine", "cpu_usage", 12.346),
            (":monitor:machine", "memory_used_gb", 2.0),
            (":monitor:gpu", "gpu_3_utilization", 97.0),
            (":monitor:gpu", "gpu_3_temperature", 61.0),
            (":monitor:gpu", "gpu_3_mem_used_gb", 1.0),
            (":monitor:gpu", "gpu_3_mem_free_gb", 3.0),
            (":monitor:gpu", "gpu_3_mem_usage", 25.0),
            (":monitor:gpu", "gpu_3_power_draw", 300.123),
            (":monitor:gpu", "gpu_3_mem_used_by_task_gb", 0.5),
        ]
        .map(|(metric, variant, value)| (metric, variant.to_owned(), value));
        assert_eq!(scalars, expected);
    }
}
