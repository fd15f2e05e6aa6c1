//! What the host and its GPUs do while a task runs: one thread reads, the means are taken at each report.
//!
//! ```text
//! host ─┐
//!       ├▶ Sample ──each 1 to 5 s──▶ Averages ──each report──▶ Report ──▶ machine_stats, scalars
//! gpus ─┘
//! ```
//!
//! Where a driver answers, another thread waits in it for faults of its GPUs. Faults, and others that use the task's GPUs,
//! are told at once.

pub mod gpu;
pub mod host;
pub mod report;

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use self::gpu::{Gpus, Table, Xid};
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
    /// Hears of each fault of a GPU, and of others that use it, once, from threads of their own.
    pub tell: Tell,
}

/// Takes a sentence for the task's user.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// Faults so far, each once.
type Faults = Mutex<Vec<Xid>>;

/// A running thread that reads host and GPUs; ends when this is dropped.
pub struct Sampler {
    averages: Arc<Mutex<Averages>>,
    faults: Arc<Faults>,
    _alive: Sender<()>,
}

impl Sampler {
    /// Starts to read.
    pub fn start(settings: SamplerSettings) -> io::Result<Self> {
        let averages = Arc::new(Mutex::new(Averages::default()));
        let faults = Arc::new(Faults::default());
        let (alive, ended) = channel();
        let (sums, found) = (averages.clone(), Arc::downgrade(&faults));
        // Not joined: a driver that hangs must not hold the end of the task.
        thread::Builder::new()
            .name("stats".to_owned())
            .spawn(move || sample(settings, &sums, found, &ended))?;
        Ok(Self {
            averages,
            faults,
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

    /// The faults of GPUs that the driver has reported so far, in order, each once.
    pub fn faults(&self) -> Vec<Xid> {
        self.faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn sample(
    settings: SamplerSettings,
    averages: &Mutex<Averages>,
    faults: Weak<Faults>,
    ended: &Receiver<()>,
) {
    let SamplerSettings {
        disk,
        gpu,
        table,
        tell,
    } = settings;
    let mut host = Host::new(&disk);
    let mut gpus = gpu.then(|| Gpus::new(table));
    // What is needed to listen, until somebody does.
    let mut to_listen = Some((faults, tell.clone()));
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
        for others in gpus.as_mut().map(Gpus::others).unwrap_or_default() {
            tell(&others);
        }
        if gpus.as_ref().is_some_and(Gpus::has_driver)
            && let Some((faults, tell)) = to_listen.take()
        {
            listen(faults, tell);
        }
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

/// Listens to the driver until nobody wants the faults any more.
fn listen(faults: Weak<Faults>, tell: Tell) {
    let listening = thread::Builder::new()
        .name("gpu faults".to_owned())
        .spawn(move || {
            let mut take = |xid: Xid| {
                let Some(faults) = faults.upgrade() else {
                    return;
                };
                let mut faults = faults.lock().unwrap_or_else(PoisonError::into_inner);
                // A fault is often reported by the thousand.
                if !faults.contains(&xid) {
                    faults.push(xid);
                    tell(&xid.describe());
                }
            };
            gpu::listen(&mut take, &|| faults.strong_count() > 0);
        });
    if let Err(error) = listening {
        tracing::debug!(%error, "nobody listens to the driver");
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
            tell: Arc::new(|_: &str| {}),
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
