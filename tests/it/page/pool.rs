//! The browsers, which tests use one after the other: to start one takes longer than most tests.

use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::browser::Browser;
use crate::shared::Shared;

/// Browsers are large: no more at a time.
const MOST: usize = 2;

/// The pool of the tests that run or wait now.
static POOL: Shared<Pool> = Shared::new();

#[derive(Default)]
struct Pool {
    browsers: Mutex<Browsers>,
    given_back: Condvar,
}

#[derive(Default)]
struct Browsers {
    free: Vec<Browser>,
    lent: usize,
}

/// A browser that is this test's alone, as one that has just been started.
pub struct Lent {
    browser: Option<Browser>,
    /// The server whose page it shows.
    origin: String,
    pool: Arc<Pool>,
}

impl Pool {
    fn browsers(&self) -> MutexGuard<'_, Browsers> {
        self.browsers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lent {
    /// Waits until one can be had.
    pub fn new(origin: &str) -> Self {
        let pool = POOL.get(Pool::default);
        let mut browsers = pool
            .given_back
            .wait_while(pool.browsers(), |browsers| browsers.lent == MOST)
            .unwrap_or_else(PoisonError::into_inner);
        browsers.lent += 1;
        let free = browsers.free.pop();
        drop(browsers);
        // From here on it is given back, also if none can be started.
        let mut lent = Self {
            browser: None,
            origin: origin.to_owned(),
            pool,
        };
        let free = free.filter(Browser::answers);
        lent.browser = Some(free.unwrap_or_else(|| Browser::start(1360, 940)));
        lent
    }
}

impl Deref for Lent {
    type Target = Browser;

    fn deref(&self) -> &Browser {
        self.browser.as_ref().unwrap()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // After a failure it may be in any state: the next test gets another one.
        let kept = self
            .browser
            .take()
            .filter(|browser| !thread::panicking() && browser.reset(&self.origin));
        let mut browsers = self.pool.browsers();
        browsers.lent -= 1;
        browsers.free.extend(kept);
        drop(browsers);
        self.pool.given_back.notify_one();
    }
}
