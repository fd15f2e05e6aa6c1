//! The accounts that the kernel keeps of our container: control groups, version 1 and 2.

use std::fs;
use std::path::{Path, PathBuf};

/// From here on a limit of version 1 means "none".
const NO_LIMIT: u64 = 1 << 62;

/// The container's own control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cgroup {
    /// Version 2: one folder.
    Unified(PathBuf),
    /// Version 1: a folder for each controller.
    Split {
        cpu: PathBuf,
        accounting: PathBuf,
        memory: PathBuf,
        disk: PathBuf,
    },
    /// Not in a container, or not to be seen.
    None,
}

impl Cgroup {
    /// With a namespace of its own the container's group is the root of the mount; without one, the group that
    /// `/proc/self/cgroup` names. A root that accounts for no memory is the host's.
    pub(super) fn find(root: &Path) -> Self {
        let mount = root.join("sys/fs/cgroup");
        let named = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let place = |mount: PathBuf, controller: &str, file: &str| {
            let path = named.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let controllers = fields.next()?;
                let path = fields.next()?;
                controllers
                    .split(',')
                    .any(|name| name == controller)
                    .then_some(path)
            });
            let own = mount.join(path.unwrap_or_default().trim_start_matches('/'));
            [own, mount]
                .into_iter()
                .find(|folder| folder.join(file).is_file())
        };
        if let Some(folder) = place(mount.clone(), "", "memory.current") {
            return Self::Unified(folder);
        }
        let split = |controller: &str, file: &str| place(mount.join(controller), controller, file);
        match (
            split("cpuacct", "cpuacct.usage"),
            split("memory", "memory.usage_in_bytes"),
        ) {
            (Some(accounting), Some(memory)) => Self::Split {
                cpu: split("cpu", "cpu.cfs_quota_us").unwrap_or_default(),
                disk: split("blkio", "blkio.throttle.io_service_bytes").unwrap_or_default(),
                accounting,
                memory,
            },
            _ => Self::None,
        }
    }

    pub(super) fn cpu_seconds(&self) -> Option<f64> {
        match self {
            Self::Unified(folder) => {
                Some(keyed(&folder.join("cpu.stat"), "usage_usec")? as f64 / 1e6)
            }
            Self::Split { accounting, .. } => {
                Some(number(&accounting.join("cpuacct.usage"))? as f64 / 1e9)
            }
            Self::None => None,
        }
    }

    /// Processors that the container may use at once, if that is limited.
    pub(super) fn cpu_limit(&self) -> Option<f64> {
        let (quota, period) = match self {
            Self::Unified(folder) => {
                let text = fs::read_to_string(folder.join("cpu.max")).ok()?;
                let (quota, period) = text.trim().split_once(' ')?;
                (quota.parse().ok()?, period.parse().ok()?)
            }
            Self::Split { cpu, .. } => {
                let quota = number(&cpu.join("cpu.cfs_quota_us"))?;
                (quota as f64, number(&cpu.join("cpu.cfs_period_us"))? as f64)
            }
            Self::None => return None,
        };
        let limit: f64 = quota / period;
        (limit.is_finite() && limit > 0.0).then_some(limit)
    }

    /// Without the page cache that the kernel would give back at once, as Kubernetes counts.
    pub(super) fn memory_used(&self) -> Option<u64> {
        let (used, cache) = match self {
            Self::Unified(folder) => (
                number(&folder.join("memory.current"))?,
                keyed(&folder.join("memory.stat"), "inactive_file"),
            ),
            Self::Split { memory, .. } => (
                number(&memory.join("memory.usage_in_bytes"))?,
                keyed(&memory.join("memory.stat"), "total_inactive_file"),
            ),
            Self::None => return None,
        };
        Some(used.saturating_sub(cache.unwrap_or(0)))
    }

    pub(super) fn memory_limit(&self) -> Option<u64> {
        match self {
            Self::Unified(folder) => number(&folder.join("memory.max")),
            Self::Split { memory, .. } => {
                number(&memory.join("memory.limit_in_bytes")).filter(|limit| *limit < NO_LIMIT)
            }
            Self::None => None,
        }
    }

    /// Bytes read and written.
    pub(super) fn disk_bytes(&self) -> Option<(u64, u64)> {
        match self {
            Self::Unified(folder) => {
                let text = fs::read_to_string(folder.join("io.stat")).ok()?;
                let sum = |key: &str| {
                    text.split_whitespace()
                        .filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok())
                        .sum::<u64>()
                };
                Some((sum("rbytes="), sum("wbytes=")))
            }
            Self::Split { disk, .. } => {
                let text = fs::read_to_string(disk.join("blkio.throttle.io_service_bytes")).ok()?;
                let sum = |operation: &str| {
                    text.lines()
                        .filter_map(|line| {
                            let mut words = line.split_whitespace().skip(1);
                            (words.next()? == operation)
                                .then(|| words.next()?.parse::<u64>().ok())?
                        })
                        .sum::<u64>()
                };
                Some((sum("Read"), sum("Write")))
            }
            Self::None => None,
        }
    }
}

pub(super) fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn keyed(file: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        line.strip_prefix(key)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    })
}
