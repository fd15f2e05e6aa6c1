//! Free resources of the nodes: which node has the room for one more pod, as the scheduler would see it.
//!
//! Source: Kubernetes, "Assigning Pods to Nodes", "Taints and Tolerations". Looked at: allocatable less the requests of
//! pods that have not ended, node selector, required node affinity, taints, `nodeName`. Not looked at: spreading,
//! affinity between pods, volumes, ports and priorities; what they forbid, the scheduler tells after the claim.

mod node;
mod obstacle;
mod placement;

use std::collections::BTreeMap;

use self::obstacle::Obstacle;
use crate::crd::{Quantity, Resources};

pub use self::node::Node;
pub use self::obstacle::Unplaced;
pub use self::placement::Placement;

/// The resource by which the number of pods of a node is bounded.
const PODS: &str = "pods";

/// What is free on each node.
#[derive(Debug, Clone, Default)]
pub struct Free {
    nodes: Vec<(Node, Resources)>,
}

impl Free {
    /// All that the nodes have.
    pub fn of(nodes: impl Iterator<Item = Node>) -> Self {
        Self {
            nodes: nodes.map(|node| (node.clone(), node.allocatable)).collect(),
        }
    }

    /// Counts a pod that runs on this node.
    pub fn bind(&mut self, node: &str, requests: &Resources) {
        if let Some((_, free)) = self.nodes.iter_mut().find(|(known, _)| known.name == node) {
            take(free, requests);
            take(
                free,
                &Resources::from_iter([(PODS.to_owned(), Quantity::whole(1))]),
            );
        }
    }

    /// Counts pods on their nodes.
    pub fn bind_all<'a>(&mut self, pods: impl Iterator<Item = (&'a str, &'a Resources)>) {
        let mut by_node: BTreeMap<&str, (Resources, i64)> = BTreeMap::new();
        for (node, requests) in pods {
            let (sum, count) = by_node.entry(node).or_default();
            sum.add(requests);
            *count += 1;
        }
        for (node, free) in &mut self.nodes {
            if let Some((sum, count)) = by_node.get(node.name.as_str()) {
                take(free, sum);
                take(
                    free,
                    &Resources::from_iter([(PODS.to_owned(), Quantity::whole(*count))]),
                );
            }
        }
    }

    /// The node on which the pod would come to stand: of those that have the room, the one with the most left, as the
    /// scheduler chooses by default.
    fn choose(&self, pod: &Placement) -> Result<usize, Unplaced> {
        let mut obstacles = BTreeMap::new();
        let mut best: Option<(usize, Quantity)> = None;
        for (index, (node, free)) in self.nodes.iter().enumerate() {
            let lacking = || {
                let lacks =
                    |(name, asked): &(&str, Quantity)| !asked.is_zero() && free.get(name) < *asked;
                let found = pod
                    .requests
                    .iter()
                    .filter(|(name, _)| is_of_nodes(name))
                    .find(lacks);
                found.map(|(name, _)| Obstacle::Lacks(name.to_owned()))
            };
            if let Some(obstacle) = pod.refusal(node).or_else(lacking) {
                *obstacles.entry(obstacle).or_default() += 1;
                continue;
            }
            let left = scarcest(&pod.requests, free);
            if best.is_none_or(|(_, most)| left > most) {
                best = Some((index, left));
            }
        }
        best.map(|(index, _)| index).ok_or(Unplaced {
            nodes: self.nodes.len(),
            obstacles,
        })
    }

    /// Whether some node has the room; else why none has.
    pub fn fits(&self, pod: &Placement) -> Result<(), Unplaced> {
        self.choose(pod).map(|_| ())
    }

    /// Counts a pod where it would come to stand; `false`: nowhere, and it is not counted.
    pub fn occupy(&mut self, pod: &Placement) -> bool {
        let Ok(index) = self.choose(pod) else {
            return false;
        };
        if let Some((_, free)) = self.nodes.get_mut(index) {
            take(free, &pod.requests);
        }
        true
    }
}

/// Claims of devices are counted by limits, not by nodes.
fn is_of_nodes(resource: &str) -> bool {
    !resource.starts_with(crate::render::CLAIMS)
}

/// What is left of the rarest thing that the pod asks for: devices before the CPU that every node has.
fn scarcest(requests: &Resources, free: &Resources) -> Quantity {
    let device = requests
        .iter()
        .find(|(name, asked)| name.contains('/') && !asked.is_zero() && is_of_nodes(name));
    free.get(device.map_or("cpu", |(name, _)| name))
}

fn take(free: &mut Resources, requests: &Resources) {
    for (name, amount) in requests.iter() {
        let left = free.get(name).minus(amount);
        free.set(name, left);
    }
}

#[cfg(test)]
mod tests;
