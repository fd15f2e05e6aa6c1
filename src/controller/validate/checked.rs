//! The verdicts that are kept: templates that were accepted, and for a while what was refused.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::{AGAIN, NOT_JUDGED, Templates, Trouble};

/// What the API server says of templates, by their hashes.
pub(super) type Verdicts = HashMap<String, Result<(), Trouble>>;
/// What it has refused, and until when that holds.
pub(super) type Refusals = HashMap<String, (Trouble, Instant)>;

/// Templates with the verdicts on them.
#[derive(Debug)]
pub(in crate::controller) struct Checked {
    pub(super) made_from: String,
    pub(super) next: Instant,
    pub(super) templates: Arc<Templates>,
    pub(super) refusals: Refusals,
}

impl Checked {
    /// What need not be asked again: what was accepted, and what was refused a short while ago for the same binding.
    pub(super) fn verdicts(&self, made_from: &str, now: Instant) -> Verdicts {
        let accepted = self.templates.of_queue.iter().flatten();
        let accepted = accepted.map(|template| (template.hash().to_owned(), Ok(())));
        let holds = |until: Instant| self.made_from == made_from && now < until;
        let refused = self.refusals.iter().filter(|(_, (_, until))| holds(*until));
        let refused = refused.map(|(hash, (trouble, _))| (hash.clone(), Err(trouble.clone())));
        accepted.chain(refused).collect()
    }
}

/// What of these verdicts is a refusal: one of before ends when it would have ended.
pub(super) fn refusals(judged: Verdicts, before: &Refusals, now: Instant) -> Refusals {
    let refused = judged.into_iter().filter_map(|(hash, verdict)| {
        let trouble = verdict
            .err()
            .filter(|trouble| trouble.reason != NOT_JUDGED)?;
        let until = before.get(&hash).map(|(_, until)| *until);
        let until = until.filter(|until| now < *until);
        Some((hash, (trouble, until.unwrap_or(now + AGAIN))))
    });
    refused.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::crd::condition;

    #[test]
    fn a_refusal_holds_for_its_time_and_for_the_binding_as_it_was() {
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let trouble =
            |reason, message: &str| Trouble::new(condition::TEMPLATE_VALID, reason, message);
        let refused = trouble("RefusedByCluster", "no such field");
        let unheard = trouble(NOT_JUDGED, "no answer");
        let judged = HashMap::from([
            ("refused".to_owned(), Err(refused.clone())),
            ("accepted".to_owned(), Ok(())),
            ("unheard".to_owned(), Err(unheard)),
        ]);
        let checked = Checked {
            made_from: "1/true".into(),
            next: now,
            templates: Arc::new(Templates {
                of_queue: Vec::new(),
            }),
            refusals: refusals(judged.clone(), &Refusals::new(), now),
        };
        let known = HashMap::from([("refused".to_owned(), Err(refused))]);
        assert_eq!(checked.verdicts("1/true", later(29)), known);
        assert_eq!(checked.verdicts("1/true", later(30)), HashMap::new());
        assert_eq!(checked.verdicts("2/true", later(1)), HashMap::new());
        // That its ConfigMap is read meanwhile does not prolong it.
        let again = refusals(judged, &checked.refusals, later(25));
        assert_eq!(again["refused"].1, later(30));
    }
}
