//! The processes that are visible here, as `/proc` shows them.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::users::{Process, Seen};

/// How far up an ancestor is looked for.
const DEEPEST: usize = 1000;

/// What one `stat` says.
struct Stat {
    name: String,
    parent: u32,
    /// It has ended, and holds nothing any more.
    ended: bool,
}

/// All of them, and whether those that descend from this one have a GPU open; nothing where there is no `/proc`.
pub(super) fn read() -> Option<Seen> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // One that has gone meanwhile is none.
        let Ok(bytes) = fs::read(entry.path().join("stat")) else {
            continue;
        };
        if let Some(stat) = of_stat(&String::from_utf8_lossy(&bytes)) {
            found.insert(pid, stat);
        }
    }
    let own = std::process::id();
    let mut seen = Seen::default();
    for (pid, stat) in &found {
        let of_task = descends(*pid, own, &found);
        seen.uses = seen.uses || (of_task && !stat.ended && has_a_gpu_open(*pid));
        let name = stat.name.clone();
        seen.processes.insert(*pid, Process { name, of_task });
    }
    Some(seen)
}

fn of_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.split_once('(')?;
    // A name may hold anything, brackets too.
    let (name, rest) = rest.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    Some(Stat {
        name: name.replace(char::is_control, "?"),
        parent: fields.next()?.parse().ok()?,
        ended: matches!(state, "Z" | "X"),
    })
}

fn descends(pid: u32, from: u32, found: &BTreeMap<u32, Stat>) -> bool {
    let parent = |pid: &u32| found.get(pid).map(|stat| stat.parent);
    std::iter::successors(parent(&pid), parent)
        .take(DEEPEST)
        .any(|one| one == from)
}

fn has_a_gpu_open(pid: u32) -> bool {
    match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(files) => files
            .flatten()
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|file| is_gpu(&file)),
        // What may not be looked at may have one open.
        Err(error) => error.kind() != ErrorKind::NotFound,
    }
}

/// `/dev/nvidia0`, or what CUDA needs beside it; not the control device, which holds no memory.
fn is_gpu(file: &Path) -> bool {
    let rest = file
        .to_str()
        .and_then(|file| file.strip_prefix("/dev/nvidia"));
    rest.is_some_and(|rest| rest == "-uvm" || rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_child_is_ours_and_a_parent_is_not() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let seen = read().unwrap();
        let ours = |pid: u32| seen.processes.get(&pid).map(|process| process.of_task);
        let found = [
            ours(child.id()),
            ours(std::process::id()),
            ours(std::os::unix::process::parent_id()),
        ];
        let _ = child.kill();
        let _ = child.wait();
        assert_eq!(found[..2], [Some(true), Some(false)]);
        // The parent may be of another namespace.
        assert_ne!(found[2], Some(true));
    }

    #[test]
    fn a_stat_is_read_whatever_the_name_holds() {
        let stat = of_stat("7 (a) b\n(c) Z 3 7 7 0 -1").unwrap();
        assert_eq!((stat.name.as_str(), stat.parent), ("a) b?(c", 3));
        assert!(stat.ended);
        assert!(of_stat("7").is_none());
    }

    #[test]
    fn the_devices_that_hold_memory_are_known() {
        for (file, expected) in [
            ("/dev/nvidia0", true),
            ("/dev/nvidia15", true),
            ("/dev/nvidia-uvm", true),
            ("/dev/nvidiactl", false),
            ("/dev/nvidia-uvm-tools", false),
            ("/dev/null", false),
        ] {
            assert_eq!(is_gpu(Path::new(file)), expected, "{file}");
        }
    }
}
