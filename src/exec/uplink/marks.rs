//! PURE: when which byte of the spool was there.
//!
//! While the server cannot be reached the log goes on growing; its lines keep the time at which they were written.

use std::collections::VecDeque;

/// Marks beyond this number are thinned out: half a minute at ten a second, then coarser.
const MOST: usize = 256;

/// Ends of the log at known times, oldest first.
#[derive(Debug, Default)]
pub struct Marks {
    marks: VecDeque<(u64, i64)>,
    length: u64,
}

impl Marks {
    /// The log is now that long.
    pub fn observe(&mut self, length: u64, now: i64) {
        if length < self.length {
            self.marks.clear();
        }
        if length != self.length {
            self.length = length;
            self.marks.push_back((length, now));
        }
        if self.marks.len() > MOST {
            let mut index = 0;
            // Every second one goes; its bytes take the time of the next.
            self.marks.retain(|_| {
                index += 1;
                index % 2 == 1 || index > MOST
            });
        }
    }

    /// The log's length when it was last looked at.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The first end of the log that includes the byte before `offset`, and its time.
    pub fn covering(&self, offset: u64) -> Option<(u64, i64)> {
        self.marks.iter().find(|(end, _)| *end >= offset).copied()
    }

    /// Everything before `offset` is done.
    pub fn forget_before(&mut self, offset: u64) {
        while self.marks.len() > 1 && self.marks.front().is_some_and(|(end, _)| *end < offset) {
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_has_the_time_at_which_it_was_first_seen() {
        let mut marks = Marks::default();
        marks.observe(10, 100);
        marks.observe(10, 200);
        marks.observe(30, 300);
        assert_eq!(marks.covering(1), Some((10, 100)));
        assert_eq!(marks.covering(10), Some((10, 100)));
        assert_eq!(marks.covering(11), Some((30, 300)));
        assert_eq!(marks.covering(31), None);
        marks.forget_before(11);
        assert_eq!(marks.covering(1), Some((30, 300)));
    }

    #[test]
    fn a_long_outage_keeps_few_marks_and_all_bytes() {
        let mut marks = Marks::default();
        for n in 1..100_000_u32 {
            marks.observe(u64::from(n), i64::from(n));
        }
        assert!(marks.marks.len() <= MOST);
        assert_eq!(marks.covering(99_999), Some((99_999, 99_999)));
        let (end, time) = marks.covering(5).unwrap();
        assert!(end >= 5 && time >= 5);
    }

    #[test]
    fn a_truncated_log_starts_anew() {
        let mut marks = Marks::default();
        marks.observe(100, 1);
        marks.observe(20, 2);
        assert_eq!((marks.length(), marks.covering(20)), (20, Some((20, 2))));
    }
}
