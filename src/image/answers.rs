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
    /// No lookup takes longer, whatever the registry does.
    longest: Duration,
}

const TIMES: Times = Times {
    there: Duration::from_mins(5),
    missing: Duration::from_secs(30),
    unknown: Duration::from_secs(15),
    longest: Duration::from_secs(5),
};
/// Lookups at once.
const AT_ONCE: usize = 16;
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
    /// What is known of `question`; if nothing is, `look` is begun, and `told` notified once it has an answer.
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
            let finding = tokio::time::timeout(times.longest, limited)
                .await
                .unwrap_or_else(|_| {
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
