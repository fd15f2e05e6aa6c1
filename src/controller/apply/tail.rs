//! The end of a dead pod's log: what its container had shown and the server never got, because the pod died as a
//! whole. It is read from the container and appended, each line once.
//!
//! ```text
//! server:     … epoch 3  epoch 4
//! container:  … epoch 3  epoch 4  epoch 5  Killed
//!                                 └─ missing ─┘
//! ```

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;

use super::{Case, Hands};
use crate::api::{Event, LogLine};
use crate::controller::row::PodRow;
use crate::controller::{fault, verdict};
use crate::render::JobName;
use crate::task::{Attempt, WorkerId};

/// Lines and bytes that are read of the container's log.
const LINES: i64 = 1000;
const BYTES: i64 = 1 << 20;
/// Lines that are read of the task's log on the server.
const KNOWN: u32 = 200;
/// Lines that have to agree for a place to be found again, if there are so many.
const AGREE: usize = 20;
/// Lines that are sent where the place is not found again.
const AT_LEAST: usize = 50;
/// Lines to one event.
const CHUNK: usize = 100;
/// A node that is lost does not answer; nothing waits for it any longer than this.
const PATIENCE: Duration = Duration::from_secs(2);

/// A line and when it was written, in milliseconds.
type Line = (i64, String);

impl Hands<'_> {
    /// Appends to the task's log what its dead pod could not send. Nothing rests on it: what cannot be read is lost.
    ///
    /// Whether it was tried, which takes time.
    ///
    /// Death after it: the next time nothing is missing any more.
    pub(super) async fn send_tail(&self, attempt: Attempt, case: &Case) -> bool {
        let name = JobName::of(&case.task, attempt);
        let Some(job) = Self::known_job(case, attempt) else {
            return false;
        };
        let Some(pod) = verdict::last_pod(&job.uid, &case.objects.pods) else {
            return false;
        };
        // A pod whose executor came to its end had the sidecar send everything.
        if verdict::diagnosis(job, &case.objects.pods).reported || !self.told.is_new_tail(&job.uid)
        {
            return false;
        }
        let read = tokio::time::timeout(PATIENCE, self.missing(attempt, pod, case)).await;
        let missing = match read {
            Ok(Ok(missing)) => missing,
            Ok(Err(error)) => {
                tracing::debug!(task = %case.task, job = %name, error, "log of the dead pod was not read");
                return true;
            }
            Err(_) => {
                tracing::debug!(task = %case.task, job = %name, "log of the dead pod was not read in time");
                return true;
            }
        };
        let worker = WorkerId::of_attempt(&self.identity.worker, &case.task, attempt);
        let events: Vec<Event> = missing
            .chunks(CHUNK)
            .map(|lines| Event::Log {
                task: case.task.clone(),
                worker: worker.clone(),
                level: "DEBUG",
                msg: lines
                    .iter()
                    .flat_map(|(_, text)| [text.as_str(), "\n"])
                    .collect(),
                timestamp: lines.first().map_or(0, |(at, _)| *at),
            })
            .collect();
        if let Err(error) = self.client.add_events(&events).await {
            tracing::debug!(task = %case.task, %error, "the end of the pod's log was not sent");
        }
        fault::point!("tail/sent");
        true
    }

    /// The lines of the container that the server lacks.
    async fn missing(
        &self,
        attempt: Attempt,
        pod: &PodRow,
        case: &Case,
    ) -> Result<Vec<Line>, String> {
        let pods: Api<Pod> = Api::namespaced(self.context.kube.clone(), self.namespace);
        let params = LogParams {
            container: Some(pod.main().to_owned()),
            tail_lines: Some(LINES),
            limit_bytes: Some(BYTES),
            timestamps: true,
            ..LogParams::default()
        };
        let text = pods
            .logs(&pod.name, &params)
            .await
            .map_err(|error| error.to_string())?;
        fault::point!("tail/read");
        let shown: Vec<Line> = text.lines().filter_map(stamped).collect();
        let open = !text.ends_with('\n');
        let known = self
            .client
            .log_tail(&case.task, KNOWN)
            .await
            .map_err(|error| error.to_string())?;
        fault::point!("tail/known-read");
        let worker = WorkerId::of_attempt(&self.identity.worker, &case.task, attempt);
        Ok(beyond(&sent_by(&worker, &known), shown, open))
    }
}

/// A line as the API server gives it with its time; what stands before the last carriage return was overwritten.
fn stamped(line: &str) -> Option<Line> {
    let (at, text) = line.split_once(' ').unwrap_or((line, ""));
    let at: Timestamp = at.parse().ok()?;
    let text = text.trim_end_matches('\r');
    let text = text.rsplit('\r').next().unwrap_or(text);
    Some((at.as_millisecond(), text.to_owned()))
}

/// The lines of one attempt's pod that the server has; the last may be unfinished.
fn sent_by(worker: &WorkerId, known: &[LogLine]) -> Vec<String> {
    let text: String = known
        .iter()
        .filter(|line| line.worker == worker.0)
        .map(|line| line.msg.as_str())
        .collect();
    text.lines().map(str::to_owned).collect()
}

/// What `shown` has behind the last of the lines that the server `has`; `open` if its own last line has no end.
fn beyond(has: &[String], shown: Vec<Line>, open: bool) -> Vec<Line> {
    let Some((last, before)) = has.split_last() else {
        return shown;
    };
    let agree = before.len().min(AGREE);
    let before = &before[before.len() - agree..];
    // From the end: of equal passages the last is the one.
    let place = (agree..shown.len()).rev().find(|&at| {
        let whole = shown[at - agree..at]
            .iter()
            .map(|(_, text)| text)
            .eq(before);
        whole && shown[at].1.starts_with(last.as_str())
    });
    if let Some(at) = place {
        let mut rest = shown;
        rest.drain(..at);
        // The line that agreed, or what the server lacks of it.
        let (time, text) = rest.remove(0);
        let end = text[last.len()..].to_owned();
        if !end.is_empty() {
            rest.insert(0, (time, end));
        }
        return rest;
    }
    // The server has more than the container still keeps, or something else: its end is better twice than not at all.
    // A line without an end says nothing about it: of a progress bar the server may have a later state.
    let known: HashSet<&String> = has.iter().collect();
    let ended = &shown[..shown.len().saturating_sub(usize::from(open))];
    if ended
        .last()
        .is_none_or(|(_, text)| known.contains(text) || text.is_empty())
    {
        return Vec::new();
    }
    let skipped = shown.len().saturating_sub(AT_LEAST);
    let mut rest: Vec<Line> = shown.into_iter().skip(skipped).collect();
    if let Some((at, _)) = rest.first() {
        let note = "the last lines of the pod, some of which may stand above:".to_owned();
        rest.insert(0, (*at, note));
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: &[&str]) -> Vec<Line> {
        texts.iter().map(|text| (1, (*text).to_owned())).collect()
    }

    fn missing(has: &[&str], shown: &[&str]) -> Vec<String> {
        let has: Vec<String> = has.iter().map(|text| (*text).to_owned()).collect();
        beyond(&has, lines(shown), false)
            .into_iter()
            .map(|(_, text)| text)
            .collect()
    }

    #[test]
    fn what_stands_behind_the_last_known_line_is_missing() {
        assert_eq!(missing(&["a", "b"], &["a", "b", "c", "d"]), ["c", "d"]);
        assert_eq!(missing(&["a", "b"], &["a", "b"]), [""; 0]);
        assert_eq!(missing(&[], &["a", "b"]), ["a", "b"]);
    }

    #[test]
    fn of_equal_lines_the_whole_passage_tells_the_place() {
        assert_eq!(missing(&["x", "a", "a"], &["x", "a", "a", "a"]), ["a"]);
        assert_eq!(
            missing(
                &["1", "loss", "2", "loss"],
                &["1", "loss", "2", "loss", "3"]
            ),
            ["3"]
        );
    }

    #[test]
    fn the_rest_of_an_unfinished_line_is_sent() {
        assert_eq!(missing(&["a", "wor"], &["a", "world", "c"]), ["ld", "c"]);
    }

    #[test]
    fn an_end_that_is_not_found_again_is_sent_with_a_word() {
        let rest = missing(&["a", "b"], &["p", "q"]);
        assert!(rest[0].contains("may stand above"), "{rest:?}");
        assert_eq!(rest[1..], ["p", "q"]);
        assert_eq!(missing(&["a", "b", "q"], &["p", "q"]), [""; 0]);
    }

    #[test]
    fn a_bar_of_which_the_server_has_a_later_state_doubles_nothing() {
        let open = |has: &str, shown: &[&str]| {
            let has = ["a".to_owned(), has.to_owned()];
            beyond(&has, lines(shown), true).len()
        };
        assert_eq!(open("12%", &["a", "11%"]), 0);
        assert_eq!(open("12%", &["11%"]), 0);
        // What is missing before it is missing all the same; a word stands above it.
        assert_eq!(open("b", &["p", "q", "11%"]), 4);
        // And it is sent itself where the server has all that stands before it.
        assert_eq!(open("b", &["a", "b", "11%"]), 1);
    }

    #[test]
    fn a_line_comes_with_its_time_and_without_what_was_overwritten() {
        let (at, text) = stamped("2026-01-01T00:00:01.5Z 10%\r50%\r").unwrap();
        assert_eq!((at % 10_000, text.as_str()), (1500, "50%"));
        assert!(stamped("no time here").is_none());
    }

    #[test]
    fn lines_of_others_are_not_the_pods() {
        let line = |worker: &str, msg: &str| LogLine {
            msg: msg.into(),
            level: String::new(),
            worker: worker.into(),
            timestamp: 0,
        };
        let known = [line("w", "a\nb"), line("other", "x\n"), line("w", "c\nd\n")];
        assert_eq!(sent_by(&WorkerId("w".into()), &known), ["a", "bc", "d"]);
    }
}
