//! What a process of this machine occupies.

use std::fmt::Display;
use std::fs;

/// What it occupies now, in MiB.
pub fn resident(pid: impl Display) -> f64 {
    size(pid, "VmRSS:")
}

/// The most that it has occupied so far, in MiB.
pub fn peak(pid: impl Display) -> f64 {
    size(pid, "VmHWM:")
}

fn size(pid: impl Display, key: &str) -> f64 {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let size = status.lines().find_map(|line| line.strip_prefix(key));
    let kib = size.and_then(|size| size.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_else(|| panic!("{path} tells no {key}")) / 1024.0
}
