//! Questions that are laid down one by one and asked together.

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::api::Error;

/// Questions that wait to be asked together.
pub(super) struct Desk<Q, A> {
    waiting: Mutex<Vec<Laid<Q, A>>>,
}

/// A question, and where its answer goes.
type Laid<Q, A> = (Q, oneshot::Sender<Result<A, Error>>);

impl<Q, A> Default for Desk<Q, A> {
    fn default() -> Self {
        Self {
            waiting: Mutex::new(Vec::new()),
        }
    }
}

impl<Q, A: Clone> Desk<Q, A> {
    /// Lays a question down; whether it is the first, so that somebody has to be sent with it.
    pub fn lay(&self, question: Q) -> (bool, oneshot::Receiver<Result<A, Error>>) {
        let (answer, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push((question, answer));
        (waiting.len() == 1, receiver)
    }

    /// Takes all questions that wait, asks them together and hands the answer out.
    pub async fn carry<F>(&self, ask: impl FnOnce(Vec<Q>) -> F)
    where
        F: Future<Output = Result<A, Error>>,
    {
        let waiting = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *waiting)
        };
        let (questions, askers): (Vec<Q>, Vec<_>) = waiting.into_iter().unzip();
        let answer = ask(questions).await;
        for asker in askers {
            // Who has gone meanwhile wants no answer.
            let _ = asker.send(answer.clone());
        }
    }
}

/// The answer, once it has come.
pub(super) async fn answered<A>(receiver: oneshot::Receiver<Result<A, Error>>) -> Result<A, Error> {
    receiver.await.unwrap_or_else(|_| {
        Err(Error::Transient {
            action: "a look".to_owned(),
            cause: "the task that made it has ended".to_owned(),
            retry_after: None,
            maybe_done: true,
        })
    })
}
