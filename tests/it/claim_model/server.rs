//! The model's server: its calls follow the recorded facts (protocol.md §3.4, §4). Each method is one call, or the part
//! of one that happens at once.

use trainyard::claim::Reason;

use super::world::{Exec, NOBODY, S, State, USER, pending};

impl State {
    /// A status call that went through: texts are rewritten, `stopping` with them.
    fn write(&mut self, status: S, reason: Reason) {
        self.status = status;
        self.reason = reason;
        self.stopping = false;
        self.touched = true;
        if status != S::Queued {
            self.enqueue_status = None;
        }
    }

    fn exec_bit(&self) -> u8 {
        match self.exec {
            Exec::Unset => 0,
            Exec::User => USER,
            Exec::Pending => pending(0),
        }
    }

    /// First half of `tasks.enqueue`: status and entry. True: the second half, [`State::leave_others`], follows.
    /// `keep` is `update_execution_queue: false`: only of a task that is still queued and has a queue on record.
    pub fn enqueue(&mut self, queue: u8, keep: bool, reason: Reason) -> bool {
        if keep && (self.status != S::Queued || self.exec == Exec::Unset) {
            return false;
        }
        if !matches!(self.status, S::Created | S::Queued | S::Stopped | S::Failed) {
            return false;
        }
        if self.entries & queue != 0 || (queue == USER && self.queue_deleted) {
            self.touched = true;
            self.reason = Reason::FailedEnqueueing;
            self.enqueue_status = None;
            return false;
        }
        let before = if self.status == S::Queued {
            self.enqueue_status.or(Some(S::Queued))
        } else {
            Some(self.status)
        };
        self.write(S::Queued, reason);
        self.enqueue_status = before;
        self.entries |= queue;
        if !keep {
            self.exec = if queue == USER {
                Exec::User
            } else {
                Exec::Pending
            };
        }
        true
    }

    /// Second half of `tasks.enqueue`: the entries elsewhere go.
    pub fn leave_others(&mut self, queue: u8) {
        self.entries &= queue;
    }

    /// `queues.remove_task`: whether it was there.
    pub fn remove(&mut self, queue: u8) -> bool {
        let there = self.entries & queue != 0;
        self.entries &= !queue;
        there
    }

    /// `tasks.dequeue`; `None`: back to the status before the enqueue. False: `updated: 0`.
    pub fn dequeue(&mut self, new: Option<S>, reason: Reason) -> bool {
        match self.status {
            S::Queued | S::InProgress => {
                let status = new.or(self.enqueue_status).unwrap_or(S::Created);
                self.entries &= !self.exec_bit();
                self.write(status, reason);
                self.enqueue_status = None;
                true
            }
            S::Gone => {
                self.entries = 0;
                false
            }
            S::Created | S::Stopped | S::Failed | S::Completed => false,
        }
    }

    /// `tasks.stop`: at once, or as a message to the worker that runs it.
    pub fn stop(&mut self) {
        match self.status {
            S::Queued | S::Failed => {
                self.entries &= !self.exec_bit();
                self.write(S::Stopped, Reason::Other);
            }
            S::InProgress if self.last_worker == NOBODY => {
                self.entries &= !self.exec_bit();
                self.write(S::Stopped, Reason::Other);
            }
            S::InProgress => {
                self.stopping = true;
                self.touched = true;
            }
            S::Created | S::Stopped | S::Completed | S::Gone => {}
        }
    }

    /// `tasks.reset`.
    pub fn reset(&mut self) {
        if self.status != S::Gone {
            self.write(S::Created, Reason::Other);
            self.enqueue_status = None;
            self.entries = 0;
            self.exec = Exec::Unset;
            self.mark = NOBODY;
            self.last_worker = NOBODY;
        }
    }

    /// `tasks.delete`, forced.
    pub fn delete(&mut self) {
        self.reset();
        self.status = S::Gone;
    }

    /// `tasks.started`: whether it was accepted.
    pub fn started(&mut self, force: bool) -> bool {
        let accepted = match self.status {
            S::Created | S::Queued | S::InProgress | S::Stopped | S::Completed => true,
            S::Failed => force,
            S::Gone => false,
        };
        if accepted {
            self.write(S::InProgress, Reason::Other);
        }
        accepted
    }

    /// `tasks.failed`, `tasks.completed` or `tasks.stopped`, unforced.
    pub fn end(&mut self, status: S) -> bool {
        let accepted = match status {
            S::Stopped => matches!(
                self.status,
                S::Queued | S::InProgress | S::Failed | S::Stopped
            ),
            _ => self.status == status || matches!(self.status, S::InProgress | S::Stopped),
        };
        if accepted {
            self.write(status, Reason::Other);
        }
        accepted
    }

    /// `tasks.edit_runtime`.
    pub fn write_mark(&mut self, who: u8) -> bool {
        let accepted = matches!(self.status, S::Created | S::Queued | S::InProgress);
        if accepted {
            self.mark = who;
        }
        accepted
    }

    /// `workers.status_report` that names the task.
    pub fn report(&mut self, who: u8) {
        if self.status != S::Gone {
            self.last_worker = who;
        }
    }
}
