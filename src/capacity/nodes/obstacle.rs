//! Why there is no place for a pod: on one node, and on all of them.

use std::collections::BTreeMap;
use std::fmt;

/// What keeps a pod off a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Obstacle {
    Lacks(String),
    Taint(String),
    Selector,
    Affinity,
    OtherNode,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lacks(resource) => write!(f, "not enough {resource}"),
            Self::Taint(key) => write!(f, "the taint {key}"),
            Self::Selector => f.write_str("other labels than its node selector asks for"),
            Self::Affinity => f.write_str("not what its node affinity requires"),
            Self::OtherNode => f.write_str("another name than its nodeName"),
        }
    }
}

/// Why no node has the room, by the number of nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplaced {
    pub(super) nodes: usize,
    pub(super) obstacles: BTreeMap<Obstacle, usize>,
}

impl fmt::Display for Unplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f
                .write_str("waiting for a node: the cluster has none (capacity FreeResources)");
        }
        write!(f, "waiting for room on a node: ")?;
        for (index, (obstacle, count)) in self.obstacles.iter().take(5).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{count} of {} have {obstacle}", self.nodes)?;
        }
        f.write_str(" (capacity FreeResources)")
    }
}
