//! What registries have said, for a short time; lookups run in the background and are never waited for.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::Finding;

/// How long a finding holds: an image that is there stays, one that is missing may be pushed.
#[derive(Debug, Clone, Copy)]
struct Times {
    there: Duration,
    missing: Duration,
    unknown: Duration,
    /// Who asked is told when a lookup has taken so long, so that others need not wait for it any longer.
    patience: Duration,
    /// No lookup takes longer, whatever the registry does.
    longest: Duration,
}

/// So long others wait for the answer to a question: a lookup that takes longer is told to be late when that is over.
pub const PATIENCE: Duration = Duration::from_millis(500);

const TIMES: Times = Times {
    there: Duration::from_mins(5),
    missing: Duration::from_secs(30),
    unknown: Duration::from_secs(15),
    patience: PATIENCE,
    longest: Duration::from_secs(5),
};
/// Lookups at once.
const AT_ONCE: usize = 16;
/// While so many answers are to come nothing is looked up ahead: who waits for a permit loses that time, and a registry
/// that is slow for some must not keep the others from being asked.
const AHEAD: usize = AT_ONCE / 2;
/// Findings that are kept.
const MOST: usize = 4096;

/// What is known of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T = ()> {
    Known(Finding<T>),
    /// Asked so long ago.
    Pending(Duration),
}

/// A cache of findings. Cheap to clone.
#[derive(Clone)]
pub struct Answers<T = ()> {
    known: Arc<Mutex<HashMap<String, Entry<T>>>>,
    permits: Arc<Semaphore>,
    times: Times,
}

enum Entry<T> {
    Asked(Instant),
    Found(Finding<T>, Instant),
}

impl<T> Default for Answers<T> {
    fn default() -> Self {
        Self {
            known: Arc::default(),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            times: TIMES,
        }
    }
}

impl<T: Clone + Send + 'static> Answers<T> {
    /// What is known of `question`; if nothing is, `look` is begun, and `told` notified once it has an answer, and before
    /// that if it takes longer than [`PATIENCE`].
    pub fn ask<F>(&self, question: &str, told: &Arc<Notify>, look: impl FnOnce() -> F) -> Answer<T>
    where
        F: Future<Output = Finding<T>> + Send + 'static,
    {
        let now = Instant::now();
        let mut known = self.lock();
        match known.get(question) {
            Some(Entry::Asked(since)) => return Answer::Pending(now.duration_since(*since)),
            Some(Entry::Found(finding, until)) if now < *until => {
                return Answer::Known(finding.clone());
            }
            Some(Entry::Found(..)) | None => {}
        }
        if known.len() >= MOST {
            known.retain(|_, entry| match entry {
                Entry::Asked(_) => true,
                Entry::Found(_, until) => now < *until,
            });
        }
        if known.len() >= MOST {
            let why = "too many images are looked up at once".to_owned();
            return Answer::Known(Finding::Unknown(why));
        }
        known.insert(question.to_owned(), Entry::Asked(now));
        drop(known);
        let (answers, told, question) = (self.clone(), told.clone(), question.to_owned());
        let look = look();
        tokio::spawn(async move {
            let limited = async {
                let _permit = answers.permits.acquire().await;
                look.await
            };
            let times = answers.times;
            let mut lookup = std::pin::pin!(tokio::time::timeout(times.longest, limited));
            let in_time = tokio::time::timeout(times.patience, lookup.as_mut()).await;
            let ended = if let Ok(ended) = in_time {
                ended
            } else {
                told.notify_one();
                lookup.await
            };
            let finding = ended.unwrap_or_else(|_| {
                Finding::Unknown(format!(
                    "the registry did not answer within {} s",
                    times.longest.as_secs()
                ))
            });
            let holds = match &finding {
                Finding::There(_) => times.there,
                Finding::Refused(_) => times.missing,
                Finding::Unknown(_) => times.unknown,
            };
            answers
                .lock()
                .insert(question, Entry::Found(finding, Instant::now() + holds));
            told.notify_one();
        });
        Answer::Pending(Duration::ZERO)
    }

    /// Whether there is room for a question whose answer is not needed yet.
    pub fn has_room_ahead(&self) -> bool {
        let known = self.lock();
        let open = |entry: &&Entry<T>| matches!(entry, Entry::Asked(_));
        known.values().filter(open).count() < AHEAD
    }

    /// Whether an answer is still to come.
    pub fn is_asking(&self) -> bool {
        let known = self.lock();
        known.values().any(|entry| matches!(entry, Entry::Asked(_)))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry<T>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    async fn settled(
        answers: &Answers,
        told: &Arc<Notify>,
        asked: &Arc<AtomicUsize>,
        finding: Finding,
    ) -> Finding {
        loop {
            let (asked, finding) = (asked.clone(), finding.clone());
            let answer = answers.ask("image", told, || async move {
                asked.fetch_add(1, Ordering::SeqCst);
                finding
            });
            match answer {
                Answer::Known(finding) => return finding,
                Answer::Pending(_) => told.notified().await,
            }
        }
    }

    fn brief(there: u64, missing: u64, longest: u64) -> Answers {
        let times = Times {
            there: Duration::from_millis(there),
            missing: Duration::from_millis(missing),
            longest: Duration::from_millis(longest),
            ..TIMES
        };
        Answers {
            times,
            ..Answers::default()
        }
    }

    #[tokio::test]
    async fn a_question_is_asked_once_and_again_when_its_answer_is_old() {
        let (answers, told, asked) = (
            brief(60_000, 20, 5000),
            Arc::new(Notify::new()),
            Arc::new(AtomicUsize::new(0)),
        );
        let missing = Finding::Refused("gone".into());
        assert_eq!(
            settled(&answers, &told, &asked, missing.clone()).await,
            missing
        );
        // The wait is the cache's own: what was missing may be pushed meanwhile.
        tokio::time::sleep(Duration::from_millis(50)).await;
        for _ in 0..5 {
            assert_eq!(
                settled(&answers, &told, &asked, Finding::There(())).await,
                Finding::There(())
            );
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    /// Else who waits for it would see only at the next look that it need not wait any longer.
    #[tokio::test]
    async fn a_registry_that_is_late_is_told_of_before_it_answers() {
        let times = Times {
            patience: Duration::from_millis(20),
            longest: Duration::from_secs(60),
            ..TIMES
        };
        let (answers, told) = (
            Answers {
                times,
                ..Answers::default()
            },
            Arc::new(Notify::new()),
        );
        let (answer, receiver) = tokio::sync::oneshot::channel::<Finding>();
        let look = || async move { receiver.await.unwrap() };
        let first = answers.ask("image", &told, look);
        assert_eq!(first, Answer::Pending(Duration::ZERO));
        told.notified().await;
        let late = answers.ask("image", &told, std::future::pending);
        assert!(
            matches!(late, Answer::Pending(asked) if asked >= times.patience),
            "{late:?}"
        );
        answer.send(Finding::There(())).unwrap();
        told.notified().await;
        let known = answers.ask("image", &told, std::future::pending);
        assert_eq!(known, Answer::Known(Finding::There(())));
    }

    #[tokio::test]
    async fn nothing_is_looked_up_ahead_while_many_answers_are_to_come() {
        let (answers, told) = (Answers::<()>::default(), Arc::new(Notify::new()));
        for number in 0..AHEAD {
            assert!(answers.has_room_ahead(), "{number}");
            let asked = answers.ask(&format!("image {number}"), &told, std::future::pending);
            assert_eq!(asked, Answer::Pending(Duration::ZERO));
        }
        assert!(!answers.has_room_ahead());
    }

    #[tokio::test]
    async fn a_registry_that_is_silent_is_not_waited_for() {
        let (answers, told) = (brief(60_000, 60_000, 30), Arc::new(Notify::new()));
        assert_eq!(
            answers.ask("image", &told, std::future::pending),
            Answer::Pending(Duration::ZERO)
        );
        told.notified().await;
        let answer = answers.ask("image", &told, std::future::pending);
        assert!(
            matches!(&answer, Answer::Known(Finding::Unknown(why)) if why.contains("did not answer")),
            "{answer:?}"
        );
    }
}
