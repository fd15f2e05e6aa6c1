//! What the kernel says about the container's memory: its limit, and how often it has killed for it.

use std::fs;
use std::path::Path;

use super::outcome::Memory;

/// Where the container's own control group is mounted.
const CGROUP: &str = "/sys/fs/cgroup";
/// From here on a limit of cgroup v1 means "none".
const NO_LIMIT: u64 = 1 << 62;

/// Kills so far, and the limit. What cannot be read is left out.
pub fn read() -> Memory {
    read_at(Path::new(CGROUP))
}

impl Memory {
    /// The same with only those kills that came after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            kills: self.kills.saturating_sub(earlier.kills),
            ..self
        }
    }
}

fn read_at(root: &Path) -> Memory {
    let text = |name: &str| fs::read_to_string(root.join(name)).ok();
    let events = text("memory.events")
        .or_else(|| text("memory/memory.oom_control"))
        .unwrap_or_default();
    let kills = events
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        .unwrap_or(0);
    let limit = text("memory.max").or_else(|| text("memory/memory.limit_in_bytes"));
    let limit = limit
        .and_then(|limit| limit.trim().parse().ok())
        .filter(|limit| *limit < NO_LIMIT);
    Memory { kills, limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_control_groups_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert_eq!(read_at(root), Memory::default());
        fs::create_dir(root.join("memory")).unwrap();
        fs::write(
            root.join("memory/memory.oom_control"),
            "under_oom 0\noom_kill 1\n",
        )
        .unwrap();
        fs::write(
            root.join("memory/memory.limit_in_bytes"),
            "9223372036854771712\n",
        )
        .unwrap();
        assert_eq!(
            read_at(root),
            Memory {
                kills: 1,
                limit: None
            }
        );
        fs::write(
            root.join("memory.events"),
            "max 9\noom 2\noom_kill 3\noom_group_kill 0\n",
        )
        .unwrap();
        fs::write(root.join("memory.max"), "268435456\n").unwrap();
        let now = read_at(root);
        assert_eq!(
            now,
            Memory {
                kills: 3,
                limit: Some(268_435_456)
            }
        );
        assert_eq!(
            now.since(Memory {
                kills: 2,
                limit: None
            })
            .kills,
            1
        );
    }
}
