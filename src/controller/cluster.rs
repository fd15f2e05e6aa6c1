//! Calls to the Kubernetes API server: bounded in time, with errors told as one sentence.

use std::future::Future;
use std::time::Duration;

use kube::core::Status;
use kube::runtime::watcher;

/// Longest time that one call may take, its client's own retries included.
const CALL_TIMEOUT: Duration = Duration::from_secs(7);

/// What an API server says of an object that its store does not take, and of one that it cannot even send there.
const TOO_LARGE: [&str; 2] = [
    "request is too large",
    "trying to send message larger than max",
];

/// A call to the API server that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the Kubernetes API server did not answer within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
    /// The API server said no.
    #[error("{}", said(.0))]
    Refused(Box<Status>),
    #[error("{0}")]
    Transport(String),
}

impl Error {
    fn code(&self) -> Option<u16> {
        match self {
            Self::Refused(status) => Some(status.code),
            Self::Timeout | Self::Transport(_) => None,
        }
    }

    /// No such object.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// It is there already, has changed meanwhile, or is not the one that was meant.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// The object itself was judged and refused: malformed, invalid, too large or against a policy.
    pub fn is_verdict(&self) -> bool {
        match self {
            // What only the store behind the API server finds too large is told as an error of the server's own.
            Self::Refused(status) if status.code == 500 => {
                TOO_LARGE.iter().any(|words| status.message.contains(words))
            }
            other => matches!(other.code(), Some(400 | 403 | 413 | 422)),
        }
    }

    /// The namespace's quota is used up: a matter of time, not of the object.
    pub fn is_quota(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code == 403 && status.message.contains("exceeded quota"))
    }
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused(status),
            other => Self::Transport(told(&other)),
        }
    }
}

/// Runs one call within its time.
pub(super) async fn call<T>(
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(answer) => answer.map_err(Error::from),
        Err(_) => Err(Error::Timeout),
    }
}

/// The same where "no such object" is an answer.
pub(super) async fn find<T>(
    request: impl Future<Output = Result<Option<T>, kube::Error>>,
) -> Result<Option<T>, Error> {
    call(request).await
}

fn said(status: &Status) -> String {
    let text = if status.message.is_empty() {
        &status.reason
    } else {
        &status.message
    };
    bounded(text)
}

/// An error and its causes in one line.
pub(super) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    bounded(&text)
}

/// Why a watch fails, with what to do where that is known.
pub(super) fn watch_failure(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404 => {
            "the API server does not know this kind of object; install the definition: trainyard crd | kubectl apply -f -".into()
        }
        watcher::Error::InitialListFailed(kube::Error::Api(status)) => said(status),
        other => told(other),
    }
}

/// A text that is told when it changes, not each time it is said.
#[derive(Debug, Default)]
pub(super) struct Once {
    last: Option<String>,
}

impl Once {
    /// Whether this has not just been told.
    pub fn is_new(&mut self, text: &str) -> bool {
        let new = self.last.as_deref() != Some(text);
        if new {
            self.last = Some(text.to_owned());
        }
        new
    }

    /// What was told is over; if it comes again it is new.
    pub fn over(&mut self) {
        self.last = None;
    }
}

/// A name as it stands in a JSON pointer.
pub(super) fn pointed(name: &str) -> String {
    let mut pointer = String::with_capacity(name.len() + 2);
    for letter in name.chars() {
        match letter {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
    pointer
}

/// At most a thousand characters, on one line.
pub(super) fn bounded(text: &str) -> String {
    text.chars()
        .take(1000)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_is_too_large_is_judged_and_not_tried_for_ever() {
        let is_verdict = |code: u16, message: &str| {
            let status = Status {
                code,
                message: message.to_owned(),
                ..Status::default()
            };
            Error::Refused(Box::new(status)).is_verdict()
        };
        assert!(is_verdict(
            413,
            "Request entity too large: limit is 3145728"
        ));
        assert!(is_verdict(500, "etcdserver: request is too large"));
        assert!(is_verdict(
            500,
            "rpc error: code = ResourceExhausted desc = trying to send message larger than max (2179626 vs. 2097152)"
        ));
        assert!(!is_verdict(500, "etcdserver: leader changed"));
        assert!(!is_verdict(409, "the object is being deleted"));
        assert!(!Error::Timeout.is_verdict());
    }
}
