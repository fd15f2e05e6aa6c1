//! Where PyTorch's builds are, as the configuration says.

use std::collections::BTreeMap;

use super::Agent;
use crate::exec::python::TORCH_INDEX;

/// Which of PyTorch's ways to find a build is meant.
const RESOLVE: &str = "agent.package_manager.pytorch_resolve";

/// Names the index of each build, or its page of links. Where packages come from an index of one's own, no other is asked
/// unless it is named.
pub(super) fn torch_index(
    agent: &Agent,
    variables: &BTreeMap<String, String>,
    indexed: bool,
) -> Option<String> {
    if agent.text(RESOLVE).as_deref() == Some("none") {
        return None;
    }
    if let Some((template, _)) = named(agent) {
        // The agent puts the number alone there, and knows no build for the CPU.
        return Some(template.replace("cu{}", "{}"));
    }
    let own = [
        "PIP_INDEX_URL",
        "PIP_NO_INDEX",
        "UV_INDEX_URL",
        "UV_DEFAULT_INDEX",
        "UV_OFFLINE",
    ]
    .iter()
    .any(|name| variables.get(*name).is_some_and(|value| !value.is_empty()));
    if own || indexed {
        return None;
    }
    let nightly = agent.flag("agent.package_manager.torch_nightly");
    Some(if nightly {
        TORCH_INDEX.replace("{}", "nightly/{}")
    } else {
        TORCH_INDEX.to_owned()
    })
}

/// Whether pages of links are named, and no index.
pub(super) fn is_page(agent: &Agent) -> bool {
    named(agent).is_some_and(|(_, page)| page)
}

/// What somebody has named, and whether it is a page. As with the agent pages are for `direct`, indexes for `pip`; one
/// that is named alone counts for both.
fn named(agent: &Agent) -> Option<(String, bool)> {
    let nightly = agent.flag("agent.package_manager.torch_nightly");
    let page = nightly
        .then(|| agent.text("agent.package_manager.torch_nightly_page"))
        .flatten()
        .or_else(|| agent.text("agent.package_manager.torch_page"))
        .map(|page| (page, true));
    let index = agent
        .text("agent.package_manager.extra_index_url_template")
        .map(|index| (index, false));
    if agent.text(RESOLVE).as_deref() == Some("direct") {
        page.or(index)
    } else {
        index.or(page)
    }
}
