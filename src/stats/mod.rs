//! What the host and its GPUs do while a task runs: one thread reads, the means are taken at each report.
//!
//! ```text
//! host ─┐
//!       ├▶ Sample ──each 1 to 5 s──▶ Averages ──each report──▶ Report ──▶ machine_stats, scalars
//! gpus ─┘
//! ```

pub mod gpu;
pub mod host;
pub mod report;

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use self::gpu::{Gpus, Table};
use self::host::Host;
use self::report::{Averages, Report, Sample};

/// A short task shall have numbers too: at first each second.
const FIRST_PERIOD: Duration = Duration::from_secs(1);
const FIRST_SAMPLES: u32 = 10;
const PERIOD: Duration = Duration::from_secs(5);

/// What is read.
pub struct SamplerSettings {
    /// The disk that counts is the one that holds this folder.
    pub disk: PathBuf,
    /// Whether GPUs are looked for.
    pub gpu: bool,
    /// Where NVML cannot be opened: asks nvidia-smi (`gpu::TABLE_QUERY`).
    pub table: Option<Table>,
}

/// A running thread that reads host and GPUs; ends when this is dropped.
pub struct Sampler {
    averages: Arc<Mutex<Averages>>,
    _alive: Sender<()>,
}

impl Sampler {
    /// Starts to read.
    pub fn start(settings: SamplerSettings) -> io::Result<Self> {
        let averages = Arc::new(Mutex::new(Averages::default()));
        let (alive, ended) = channel();
        let sums = averages.clone();
        // Not joined: a driver that hangs must not hold the end of the task.
        thread::Builder::new()
            .name("stats".to_owned())
            .spawn(move || sample(settings, &sums, &ended))?;
        Ok(Self {
            averages,
            _alive: alive,
        })
    }

    /// The means since the last call; `None` if nothing was read since.
    pub fn report(&self) -> Option<Report> {
        self.averages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

fn sample(settings: SamplerSettings, averages: &Mutex<Averages>, ended: &Receiver<()>) {
    let SamplerSettings { disk, gpu, table } = settings;
    let mut host = Host::new(&disk);
    let mut gpus = gpu.then(|| Gpus::new(table));
    let mut count = 0;
    loop {
        let now = Instant::now();
        let sample = Sample {
            host: host.sample(now),
            gpus: gpus
                .as_mut()
                .map(|gpus| gpus.sample(now))
                .unwrap_or_default(),
        };
        averages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(&sample);
        count = (count + 1).min(FIRST_SAMPLES);
        let period = if count < FIRST_SAMPLES {
            FIRST_PERIOD
        } else {
            PERIOD
        };
        match ended.recv_timeout(period) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_this_machine_has_real_numbers() {
        let settings = SamplerSettings {
            disk: "/".into(),
            gpu: true,
            table: None,
        };
        let sampler = Sampler::start(settings).unwrap();
        thread::sleep(Duration::from_millis(1300));
        let stats = sampler.report().unwrap().machine_stats();
        assert!(stats["memory_used"].as_f64().unwrap() > 0.0, "{stats:?}");
        assert!(stats["cpu_usage"][0].as_f64().unwrap() >= 0.0, "{stats:?}");
        let free = stats["disk_free_home"].as_f64().unwrap();
        assert!((0.0..=100.0).contains(&free), "{stats:?}");
    }
}
