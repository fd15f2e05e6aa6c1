//! What the container uses of its host: processors and memory from its control group (v1 or v2), its disk, and the
//! network of its pod. Where a number of the container is not to be had, the host's stands in; where neither is, none.

mod cgroup;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use sysinfo::{Disks, System};

use self::cgroup::{Cgroup, number};
use super::report::HostSample;

const MIB: f64 = 1024.0 * 1024.0;

/// Reads the host; remembers the last counters for the rates.
pub struct Host {
    cgroup: Cgroup,
    proc: PathBuf,
    hwmon: PathBuf,
    /// The disk that counts is the one that holds this folder.
    disk: PathBuf,
    system: Option<System>,
    last: Option<(Instant, Counters)>,
}

/// Values that only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Counters {
    cpu_seconds: Option<f64>,
    /// Seconds of processor time that were to be had per second.
    cpus: f64,
    disk_read: Option<u64>,
    disk_written: Option<u64>,
    received: Option<u64>,
    sent: Option<u64>,
}

impl Host {
    /// Reads below `/sys` and `/proc`; `disk` is the folder whose disk counts.
    pub fn new(disk: &Path) -> Self {
        Self::at(Path::new("/"), disk)
    }

    fn at(root: &Path, disk: &Path) -> Self {
        Self {
            cgroup: Cgroup::find(root),
            proc: root.join("proc"),
            hwmon: root.join("sys/class/hwmon"),
            disk: disk.to_owned(),
            system: System::new().ok(),
            last: None,
        }
    }

    /// One sample. The first has no rates: they need two.
    pub fn sample(&mut self, now: Instant) -> HostSample {
        if let Some(system) = &mut self.system {
            system.refresh_memory();
        }
        let counters = self.counters();
        let last = self.last.replace((now, counters));
        let (memory_used_mib, memory_free_mib) = self.memory();
        let mut sample = HostSample {
            cpu_temperature: temperature(&self.hwmon),
            memory_used_mib,
            memory_free_mib,
            disk_free_percent: disk_free(&self.disk),
            ..HostSample::default()
        };
        if let Some((then, before)) = last {
            rates(
                &mut sample,
                &before,
                &counters,
                now.duration_since(then).as_secs_f64(),
            );
        }
        sample
    }

    fn counters(&self) -> Counters {
        let text = |name: &str| fs::read_to_string(self.proc.join(name)).unwrap_or_default();
        let stat = text("stat");
        let processors = stat
            .lines()
            .filter(|line| {
                line.strip_prefix("cpu")
                    .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            })
            .count();
        let cpus = self.cgroup.cpu_limit().unwrap_or(processors as f64);
        let (disk_read, disk_written) = self
            .cgroup
            .disk_bytes()
            .or_else(|| host_disk(&text("diskstats")))
            .unzip();
        let (received, sent) = network(&text("net/dev")).unzip();
        Counters {
            cpu_seconds: self
                .cgroup
                .cpu_seconds()
                .or_else(|| host_cpu_seconds(&stat)),
            cpus: cpus.min(processors.max(1) as f64),
            disk_read,
            disk_written,
            received,
            sent,
        }
    }

    /// Used and free, in MiB: of the container's limit if it has one, else of the host.
    fn memory(&self) -> (Option<f64>, Option<f64>) {
        let system = self
            .system
            .as_ref()
            .filter(|system| system.total_memory() > 0);
        let total = system.map(System::total_memory);
        let available = system.map(System::available_memory);
        let mib = |bytes: u64| bytes as f64 / MIB;
        let Some(used) = self.cgroup.memory_used() else {
            let used = total
                .zip(available)
                .map(|(total, free)| mib(total.saturating_sub(free)));
            return (used, available.map(mib));
        };
        let limit = self
            .cgroup
            .memory_limit()
            .filter(|limit| total.is_none_or(|total| *limit <= total));
        let free = match limit {
            Some(limit) => Some(limit.saturating_sub(used)),
            None => available,
        };
        (Some(mib(used)), free.map(mib))
    }
}

fn rates(sample: &mut HostSample, before: &Counters, after: &Counters, seconds: f64) {
    if seconds <= 0.0 {
        return;
    }
    if let (Some(before), Some(now)) = (before.cpu_seconds, after.cpu_seconds)
        && after.cpus > 0.0
        && now >= before
    {
        sample.cpu_percent = Some(100.0 * (now - before) / seconds / after.cpus);
    }
    let rate = |before: Option<u64>, after: Option<u64>| {
        let grown = after?.checked_sub(before?)?;
        Some(grown as f64 / MIB / seconds)
    };
    sample.disk_read_mib = rate(before.disk_read, after.disk_read);
    sample.disk_write_mib = rate(before.disk_written, after.disk_written);
    sample.network_rx_mib = rate(before.received, after.received);
    sample.network_tx_mib = rate(before.sent, after.sent);
}

/// Busy time of all processors, from `/proc/stat` in hundredths of a second.
fn host_cpu_seconds(stat: &str) -> Option<f64> {
    let line = stat.lines().find(|line| line.starts_with("cpu "))?;
    let times: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .map_while(|word| word.parse().ok())
        .collect();
    // user, nice, system; idle and iowait are left out; irq, softirq, steal
    let busy: u64 = times
        .iter()
        .enumerate()
        .filter(|(at, _)| !matches!(at, 3 | 4))
        .take(6)
        .map(|(_, time)| time)
        .sum();
    (times.len() >= 4).then_some(busy as f64 / 100.0)
}

/// Bytes of all whole disks, from `/proc/diskstats`.
fn host_disk(diskstats: &str) -> Option<(u64, u64)> {
    const SECTOR: u64 = 512;
    let disks: Vec<(u64, u64)> = diskstats
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let name = words.get(2)?;
            let virtual_or_part = ["loop", "ram", "dm-", "zram", "md"]
                .iter()
                .any(|kind| name.starts_with(kind))
                || is_partition(name);
            let sectors = |at: usize| words.get(at)?.parse::<u64>().ok();
            (!virtual_or_part).then(|| Some((sectors(5)? * SECTOR, sectors(9)? * SECTOR)))?
        })
        .collect();
    (!disks.is_empty()).then(|| {
        disks
            .iter()
            .fold((0, 0), |sum, disk| (sum.0 + disk.0, sum.1 + disk.1))
    })
}

/// `sda1`, `vdb2`, `nvme0n1p3`.
fn is_partition(name: &str) -> bool {
    let digits = name.chars().rev().take_while(char::is_ascii_digit).count();
    match name {
        _ if digits == 0 => false,
        _ if name.starts_with("nvme") || name.starts_with("mmcblk") => {
            name[..name.len() - digits].ends_with('p')
        }
        _ => ["sd", "vd", "xvd", "hd"]
            .iter()
            .any(|kind| name.starts_with(kind)),
    }
}

/// Bytes received and sent by all interfaces but the loopback, from `/proc/net/dev`: the pod's, since it has a network
/// namespace of its own.
fn network(dev: &str) -> Option<(u64, u64)> {
    let interfaces: Vec<(u64, u64)> = dev
        .lines()
        .filter_map(|line| {
            let (name, counters) = line.split_once(':')?;
            let counters: Vec<u64> = counters
                .split_whitespace()
                .map_while(|word| word.parse().ok())
                .collect();
            (name.trim() != "lo").then(|| Some((*counters.first()?, *counters.get(8)?)))?
        })
        .collect();
    (!interfaces.is_empty()).then(|| {
        interfaces
            .iter()
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    })
}

/// The hottest sensor of the processors.
fn temperature(hwmon: &Path) -> Option<f64> {
    let entries = |folder: &Path| {
        fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
    };
    let mut hottest: Option<f64> = None;
    for chip in entries(hwmon) {
        let name = fs::read_to_string(chip.join("name")).unwrap_or_default();
        if !["coretemp", "k10temp", "zenpower", "cpu_thermal"].contains(&name.trim()) {
            continue;
        }
        for file in entries(&chip) {
            let name = file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if name.starts_with("temp")
                && name.ends_with("_input")
                && let Some(thousandths) = number(&file)
            {
                let degrees = thousandths as f64 / 1000.0;
                hottest = Some(hottest.map_or(degrees, |hottest| hottest.max(degrees)));
            }
        }
    }
    hottest
}

/// Free share of the disk that holds `folder`.
fn disk_free(folder: &Path) -> Option<f64> {
    let folder = folder.canonicalize().ok()?;
    let disks = Disks::new_with_refreshed_list_specifics(
        sysinfo::DiskRefreshKind::nothing().with_storage(),
    )
    .ok()?;
    let disk = disks
        .iter()
        .filter(|disk| folder.starts_with(disk.mount_point()) && disk.total_space() > 0)
        .max_by_key(|disk| disk.mount_point().components().count())?;
    Some(100.0 * disk.available_space() as f64 / disk.total_space() as f64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A made-up `/sys` and `/proc`.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            machine.write(
                "proc/stat",
                "cpu  100 0 100 900 50 0 0 0 0 0\ncpu0 1\ncpu1 1\ncpu2 1\ncpu3 1\nintr 1\n",
            );
            machine
        }

        fn write(&self, path: &str, text: &str) {
            let file = self.0.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }

        fn host(&self) -> Host {
            Host::at(self.0.path(), self.0.path())
        }
    }

    fn is_near(value: Option<f64>, expected: f64) -> bool {
        value.is_some_and(|value| (value - expected).abs() < 1e-6)
    }

    #[test]
    fn version_2_counts_the_container_against_its_limits() {
        let machine = Machine::new();
        machine.write("proc/self/cgroup", "0::/\n");
        machine.write(
            "proc/net/dev",
            "Inter|\n face |\n  lo: 9 0 0 0 0 0 0 0 9\neth0: 1048576 1 0 0 0 0 0 0 0 1\n",
        );
        machine.write(
            "sys/fs/cgroup/cpu.stat",
            "usage_usec 1000000\nuser_usec 1\n",
        );
        machine.write("sys/fs/cgroup/cpu.max", "200000 100000\n");
        machine.write("sys/fs/cgroup/memory.current", "314572800\n");
        machine.write(
            "sys/fs/cgroup/memory.stat",
            "anon 1\ninactive_file 104857600\n",
        );
        machine.write("sys/fs/cgroup/memory.max", "419430400\n");
        machine.write("sys/fs/cgroup/io.stat", "8:0 rbytes=0 wbytes=0 rios=0\n");
        let mut host = machine.host();
        let begun = Instant::now();
        let first = host.sample(begun);
        assert_eq!(first.cpu_percent, None, "a rate needs two samples");
        assert!(is_near(first.memory_used_mib, 200.0) && is_near(first.memory_free_mib, 200.0));
        machine.write("sys/fs/cgroup/cpu.stat", "usage_usec 3000000\n");
        machine.write(
            "sys/fs/cgroup/io.stat",
            "8:0 rbytes=2097152 wbytes=4194304\n8:16 rbytes=2097152 wbytes=0\n",
        );
        machine.write("proc/net/dev", "eth0: 3145728 1 0 0 0 0 0 0 1048576 1\n");
        let second = host.sample(begun + Duration::from_secs(2));
        assert!(
            is_near(second.cpu_percent, 50.0),
            "one of two processors: {second:?}"
        );
        assert!(is_near(second.disk_read_mib, 2.0) && is_near(second.disk_write_mib, 2.0));
        assert!(is_near(second.network_rx_mib, 1.0) && is_near(second.network_tx_mib, 0.5));
    }

    #[test]
    fn version_1_is_read_with_and_without_a_namespace() {
        let machine = Machine::new();
        machine.write(
            "proc/self/cgroup",
            "4:memory:/pods/a\n3:cpu,cpuacct:/pods/a\n2:blkio:/pods/a\n0::/\n",
        );
        let group = |controller: &str, file: &str, text: &str| {
            machine.write(&format!("sys/fs/cgroup/{controller}/{file}"), text);
        };
        group("cpuacct/pods/a", "cpuacct.usage", "1000000000\n");
        group("memory", "memory.usage_in_bytes", "1048576\n");
        group("memory", "memory.limit_in_bytes", "9223372036854771712\n");
        group("cpu", "cpu.cfs_quota_us", "-1\n");
        group("cpu", "cpu.cfs_period_us", "100000\n");
        group(
            "blkio",
            "blkio.throttle.io_service_bytes",
            "8:0 Read 0\n8:0 Write 0\n8:0 Total 0\n",
        );
        let mut host = machine.host();
        let begun = Instant::now();
        let first = host.sample(begun);
        assert!(is_near(first.memory_used_mib, 1.0));
        group("cpuacct/pods/a", "cpuacct.usage", "5000000000\n");
        group(
            "blkio",
            "blkio.throttle.io_service_bytes",
            "8:0 Read 1048576\n8:0 Write 0\n",
        );
        let second = host.sample(begun + Duration::from_secs(1));
        assert!(
            is_near(second.cpu_percent, 100.0),
            "all of four processors: {second:?}"
        );
        assert!(is_near(second.disk_read_mib, 1.0) && is_near(second.disk_write_mib, 0.0));
    }

    #[test]
    fn without_a_container_the_host_stands_in() {
        let machine = Machine::new();
        machine.write(
            "proc/diskstats",
            " 8 0 sda 1 0 0 0 1 0 0 0\n 8 1 sda1 1 0 99 0 1 0 99 0\n 7 0 loop0 1 0 9 0 1 0 9 0\n",
        );
        let mut host = machine.host();
        let begun = Instant::now();
        host.sample(begun);
        machine.write(
            "proc/stat",
            "cpu  200 0 200 900 50 0 0 0 0 0\ncpu0 1\ncpu1 1\ncpu2 1\ncpu3 1\n",
        );
        machine.write(
            "proc/diskstats",
            " 8 0 sda 1 0 2048 0 1 0 4096 0\n 8 1 sda1 1 0 2048 0 1 0 4096 0\n",
        );
        let sample = host.sample(begun + Duration::from_secs(1));
        assert!(is_near(sample.cpu_percent, 50.0), "{sample:?}");
        assert!(is_near(sample.disk_read_mib, 1.0) && is_near(sample.disk_write_mib, 2.0));
        assert!(sample.memory_used_mib.is_some() && sample.disk_free_percent.is_some());
        assert_eq!(sample.network_rx_mib, None);
    }

    #[test]
    fn the_hottest_processor_sensor_counts() {
        let machine = Machine::new();
        for (file, text) in [
            ("hwmon0/name", "coretemp\n"),
            ("hwmon0/temp1_input", "45000\n"),
            ("hwmon0/temp2_input", "61500\n"),
            ("hwmon1/name", "nvme\n"),
            ("hwmon1/temp1_input", "90000\n"),
        ] {
            machine.write(&format!("sys/class/hwmon/{file}"), text);
        }
        assert_eq!(
            machine.host().sample(Instant::now()).cpu_temperature,
            Some(61.5)
        );
    }

    #[test]
    fn partitions_are_told_from_disks() {
        for (name, expected) in [
            ("sda", false),
            ("sda1", true),
            ("nvme0n1", false),
            ("nvme0n1p2", true),
            ("vdb3", true),
        ] {
            assert_eq!(is_partition(name), expected, "{name}");
        }
    }
}
