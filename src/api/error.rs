//! What can become of a request: try again, the server said no, or the answer was not understood.

use std::time::Duration;

/// How a call to the server failed. The variant alone decides between retry and report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No verdict: connection, timeout, 429 or 5xx. The same call may succeed later.
    #[error("no answer to {action} from {cause}")]
    Transient {
        action: String,
        cause: String,
        /// What the server asked for in `Retry-After`.
        retry_after: Option<Duration>,
        /// Whether the request may have taken effect. `false` only where it certainly was not processed.
        maybe_done: bool,
    },
    /// The server said no; asking again in the same way is of no use (`protocol.md` §1.8).
    #[error("the server refused {action}: {msg} ({http}/{subcode})")]
    Refused {
        action: String,
        http: u16,
        subcode: u32,
        msg: String,
    },
    /// An answer that is no ClearML answer: wrong address, a proxy's page, a body too large.
    #[error("the answer to {action} was not understood, from {cause}")]
    Protocol { action: String, cause: String },
}

impl Error {
    /// The same with the server's address in its words, where the address may be what is wrong.
    pub(super) fn at(self, origin: &str) -> Self {
        match self {
            Self::Transient {
                action,
                cause,
                retry_after,
                maybe_done,
            } => Self::Transient {
                action,
                cause: format!("{origin}: {cause}"),
                retry_after,
                maybe_done,
            },
            Self::Protocol { action, cause } => Self::Protocol {
                action,
                cause: format!("{origin}: {cause}"),
            },
            refused @ Self::Refused { .. } => refused,
        }
    }

    /// Whether the server refused with this pair of codes (§1.8).
    pub fn is(&self, code: u16, sub: u32) -> bool {
        matches!(self, Self::Refused { http, subcode, .. } if *http == code && *subcode == sub)
    }

    /// Whether the credentials were not accepted (§1.8: 401).
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Refused { http: 401, .. })
    }

    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. })
    }

    /// Whether the request certainly had no effect, so that even a call that must not happen twice may be repeated.
    pub fn is_undelivered(&self) -> bool {
        matches!(
            self,
            Self::Transient {
                maybe_done: false,
                ..
            }
        )
    }

    /// How long the server asked us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Transient { retry_after, .. } => *retry_after,
            Self::Refused { .. } | Self::Protocol { .. } => None,
        }
    }

    /// Whether the id in the request names nothing: unknown task (400/101, for `tasks.started` also 400/10).
    pub fn is_unknown_task(&self) -> bool {
        self.is(400, 101) || self.is(400, 10)
    }
}

/// Settings from which no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("API address {0:?} is no http or https URL")]
    BadUrl(String),
    #[error("the CA bundle of the server holds no readable PEM certificate")]
    BadCa,
    #[error("proxy address is no URL that can be used as a proxy")]
    BadProxy,
    #[error("{0} cannot be sent as an HTTP header")]
    BadHeader(&'static str),
    #[error("could not set up the HTTP client: {0}")]
    Build(String),
}

/// The whole chain of causes as one line, without the address (it may carry a password).
pub(super) fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    printable(&text, 400)
}

/// Foreign text made safe for one line: control characters become spaces, at most `limit` characters.
pub(super) fn printable(text: &str, limit: usize) -> String {
    let mut out: String = text
        .chars()
        .take(limit)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(limit).is_some() {
        out.push('…');
    }
    out.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_cut_and_kept_on_one_line() {
        assert_eq!(printable("a\nb\u{1b}[31mc", 100), "a b [31mc");
        assert_eq!(printable("abcdef", 3), "abc…");
    }
}
