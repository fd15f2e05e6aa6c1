//! GPUs, as the driver shows them to this container.
//!
//! ```text
//! NVML, opened at run time ──not there, or we are static──▶ the table of nvidia-smi ──not there──▶ no GPUs
//! ```
//!
//! Which GPUs are ours is the driver's knowledge, not that of an environment variable. A GPU that is divided (MIG) counts
//! as its slices. A failure is waited out, longer each time, and never switches anything off for good. Which processes use
//! a GPU, by far the dearest question, is asked less often than the rest ([`users`]).

#[cfg(all(feature = "gpu", not(target_feature = "crt-static")))]
mod library;
mod processes;
pub mod users;
mod xid;

use std::time::{Duration, Instant};

use self::users::Users;
pub use self::xid::Xid;
use super::report::GpuSample;

/// Waiting time after the first failure, and the longest.
const WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_mins(5);
/// nvidia-smi starts a process: not at every sample.
const TABLE_PERIOD: Duration = Duration::from_secs(10);

/// Asks nvidia-smi with [`TABLE_QUERY`]; `None` if it is not there or fails.
pub type Table = Box<dyn FnMut() -> Option<String> + Send>;

/// Arguments of nvidia-smi that give the table which [`parse_table`] reads.
pub const TABLE_QUERY: [&str; 2] = [
    "--query-gpu=index,utilization.gpu,memory.used,memory.free,memory.total,temperature.gpu,power.draw",
    "--format=csv,noheader,nounits",
];

/// Reads the GPUs of this container.
pub struct Gpus {
    library: library::Library,
    /// When NVML may be tried again, and how long to wait after the next failure.
    library_pause: Pause,
    users: Users,
    table: Option<Table>,
    table_pause: Pause,
    /// The last table, repeated until the next is due.
    last_table: Vec<GpuSample>,
}

#[derive(Default)]
struct Pause {
    until: Option<Instant>,
    failures: u32,
}

impl Pause {
    fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }

    fn failed(&mut self, now: Instant) {
        let wait = WAIT * 2_u32.saturating_pow(self.failures.min(16));
        self.failures += 1;
        self.until = Some(now + wait.min(LONGEST_WAIT));
    }

    fn worked(&mut self, next: Option<Instant>) {
        *self = Self {
            until: next,
            failures: 0,
        };
    }
}

impl Gpus {
    /// Nothing is opened yet. `table` is the fall-back where NVML cannot be loaded.
    pub fn new(table: Option<Table>) -> Self {
        Self {
            library: library::Library::default(),
            library_pause: Pause::default(),
            users: Users::default(),
            table,
            table_pause: Pause::default(),
            last_table: Vec::new(),
        }
    }

    /// All GPUs that the driver shows, by number; empty if there is none or the driver does not answer now.
    pub fn sample(&mut self, now: Instant) -> Vec<GpuSample> {
        if self.library_pause.is_over(now) {
            let by_whom = self.users.is_due(now);
            match self.library.sample(by_whom) {
                Ok(parts) => {
                    self.library_pause.worked(None);
                    return if by_whom {
                        self.users.judge(now, parts, processes::read)
                    } else {
                        parts.into_iter().map(|part| part.sample).collect()
                    };
                }
                Err(why) => {
                    if self.library_pause.failures == 0 {
                        tracing::debug!(%why, "NVML gives no numbers, trying again later");
                    }
                    self.library.close();
                    self.library_pause.failed(now);
                }
            }
        }
        // A library that worked and fails for a moment is waited for; nvidia-smi asks the same driver.
        if self.library.has_worked() {
            Vec::new()
        } else {
            self.sample_table(now)
        }
    }

    /// What is to be told of others that use these GPUs, once of each.
    pub fn others(&mut self) -> Vec<String> {
        self.users.sentences()
    }

    /// Whether the driver's library has given numbers.
    pub fn has_driver(&self) -> bool {
        self.library.has_worked()
    }

    fn sample_table(&mut self, now: Instant) -> Vec<GpuSample> {
        let Some(table) = &mut self.table else {
            return Vec::new();
        };
        if self.table_pause.is_over(now) {
            if let Some(text) = table() {
                self.table_pause.worked(Some(now + TABLE_PERIOD));
                self.last_table = parse_table(&text);
            } else {
                self.table_pause.failed(now);
                self.last_table.clear();
            }
        }
        self.last_table.clone()
    }
}

/// PURE: the answer to [`TABLE_QUERY`]; what the driver does not know stays unknown.
pub fn parse_table(text: &str) -> Vec<GpuSample> {
    let mut gpus: Vec<GpuSample> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(',').map(str::trim);
            let index = fields.next()?.parse().ok()?;
            let mut value = || fields.next()?.parse::<f64>().ok();
            Some(GpuSample {
                index,
                utilization_percent: value(),
                memory_used_mib: value(),
                memory_free_mib: value(),
                memory_total_mib: value(),
                temperature: value(),
                power: value(),
                memory_of_task_mib: None,
            })
        })
        .collect();
    gpus.sort_by_key(|gpu| gpu.index);
    gpus
}

/// The newest CUDA version that the driver runs: 124 for 12.4. Nothing without a driver, or where it does not answer.
pub fn driver_cuda() -> Option<u32> {
    library::driver_cuda()
}

/// Tells each fault that the driver reports, until `goes_on` says no, which is asked each second. Returns at once where
/// the driver cannot tell of any.
pub fn listen(tell: &mut dyn FnMut(Xid), goes_on: &dyn Fn() -> bool) {
    if let Err(why) = library::listen(tell, goes_on) {
        tracing::debug!(%why, "the driver tells of no more faults");
    }
}

/// PURE: the same from what nvidia-smi prints.
pub fn parse_cuda(printed: &str) -> Option<u32> {
    let (_, rest) = printed.split_once("CUDA Version:")?;
    let version = rest.split_whitespace().next()?;
    let (major, minor) = version.split_once('.')?;
    Some(major.parse::<u32>().ok()? * 10 + minor.parse::<u32>().ok()?)
}

#[cfg(not(all(feature = "gpu", not(target_feature = "crt-static"))))]
mod library {
    use super::Xid;
    use super::users::Part;

    const WHY: &str = "this program is linked statically";

    pub(super) fn driver_cuda() -> Option<u32> {
        None
    }

    /// A static program cannot open the driver's library.
    #[derive(Default)]
    pub(super) struct Library;

    impl Library {
        #[expect(clippy::unused_self, reason = "same shape as where NVML can be opened")]
        pub(super) fn has_worked(&self) -> bool {
            false
        }

        #[expect(clippy::unused_self, reason = "same shape as where NVML can be opened")]
        pub(super) fn close(&mut self) {}

        #[expect(clippy::unused_self, reason = "same shape as where NVML can be opened")]
        pub(super) fn sample(&mut self, _by_whom: bool) -> Result<Vec<Part>, &'static str> {
            Err(WHY)
        }
    }

    pub(super) fn listen(
        _tell: &mut dyn FnMut(Xid),
        _goes_on: &dyn Fn() -> bool,
    ) -> Result<(), &'static str> {
        Err(WHY)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn the_table_of_nvidia_smi_keeps_unknown_values_unknown() {
        let gpus = parse_table(
            "10, 97, 30211, 51348, 81559, 61, 300.12\n2, [N/A], 1, 2, 3, [Not Supported], [N/A]\n",
        );
        assert_eq!(
            gpus.iter().map(|gpu| gpu.index).collect::<Vec<_>>(),
            [2, 10]
        );
        assert_eq!(
            (gpus[0].utilization_percent, gpus[0].memory_used_mib),
            (None, Some(1.0))
        );
        assert_eq!(
            (gpus[1].utilization_percent, gpus[1].power),
            (Some(97.0), Some(300.12))
        );
        assert_eq!(parse_table("NVIDIA-SMI has failed\n"), []);
        let header = "| NVIDIA-SMI 550.54  Driver Version: 550.54   CUDA Version: 12.4     |\n";
        assert_eq!(parse_cuda(header), Some(124));
        assert_eq!(parse_cuda("CUDA Version: N/A"), None);
    }

    #[test]
    fn pauses_grow_to_a_limit_and_end_with_the_first_success() {
        let begun = Instant::now();
        let mut pause = Pause::default();
        assert!(pause.is_over(begun));
        pause.failed(begun);
        assert!(!pause.is_over(begun + Duration::from_secs(4)));
        assert!(pause.is_over(begun + WAIT));
        for _ in 0..100 {
            pause.failed(begun);
        }
        assert!(pause.is_over(begun + LONGEST_WAIT));
        assert!(!pause.is_over(begun + LONGEST_WAIT / 2));
        pause.worked(None);
        pause.failed(begun);
        assert!(pause.is_over(begun + WAIT));
    }

    #[test]
    fn a_table_that_fails_is_asked_again_later() {
        let asked = Arc::new(AtomicU32::new(0));
        let count = asked.clone();
        let table: Table = Box::new(move || {
            let number = count.fetch_add(1, Ordering::Relaxed);
            (number >= 1).then(|| format!("0, {number}, 1, 1, 2, 30, 50\n"))
        });
        let mut gpus = Gpus::new(Some(table));
        let begun = Instant::now();
        let first = gpus.sample_table(begun);
        assert_eq!(first, []);
        assert_eq!(gpus.sample_table(begun + Duration::from_secs(1)), []);
        let later = gpus.sample_table(begun + WAIT);
        assert_eq!(later[0].utilization_percent, Some(1.0));
        assert_eq!(
            gpus.sample_table(begun + WAIT + Duration::from_secs(1)),
            later
        );
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}
