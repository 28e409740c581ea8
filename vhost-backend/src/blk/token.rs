//! Every request is answered: a token that is dropped answers with an I/O error.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::memory::{GuestMemory, Place};

/// The status byte of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// Failed, or asked for something impossible.
    IoError = 1,
    /// Not something this device does.
    Unsupported = 2,
}

/// Where a status byte goes.
#[derive(Debug)]
pub struct StatusByte {
    /// The snapshot that `place` belongs to.
    pub memory: Arc<GuestMemory>,
    /// One byte.
    pub place: Place,
}

/// An answer that waits to be put into the used ring.
#[derive(Debug)]
pub struct Answer {
    /// The request's head.
    pub head: u16,
    /// Its status byte, unless the chain has no room for one.
    pub status: Option<(StatusByte, Status)>,
    /// Bytes written to the guest, status included.
    pub written: u32,
}

/// The answers of one queue that are to be published together.
#[derive(Debug, Clone, Default)]
pub struct Answers(Rc<RefCell<Vec<Answer>>>);

impl Answers {
    /// The token of a request that was just taken.
    pub fn token(&self, head: u16, status: Option<StatusByte>) -> Token {
        Token {
            answers: self.clone(),
            head,
            status,
            armed: true,
        }
    }

    /// Takes what has come in since the last time; `into` must be empty, its room is reused.
    pub fn take(&self, into: &mut Vec<Answer>) {
        std::mem::swap(&mut *self.0.borrow_mut(), into);
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }
}

/// The duty to answer one request.
#[derive(Debug)]
pub struct Token {
    answers: Answers,
    head: u16,
    status: Option<StatusByte>,
    armed: bool,
}

impl Token {
    /// Answers; `data` is the number of bytes written to the guest beside the status.
    pub fn finish(mut self, status: Status, data: u32) {
        self.answer(status, data);
    }

    /// Lets go of the request without an answer: it stays with the guest, to be executed again later.
    pub fn leave(mut self) -> u16 {
        self.armed = false;
        self.head
    }

    fn answer(&mut self, status: Status, data: u32) {
        if !std::mem::replace(&mut self.armed, false) {
            return;
        }
        let status = self.status.take().map(|byte| (byte, status));
        let written = if status.is_some() {
            data.saturating_add(1)
        } else {
            0
        };
        self.answers.0.borrow_mut().push(Answer {
            head: self.head,
            status,
            written,
        });
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.answer(Status::IoError, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_request_is_answered_with_an_error_and_a_finished_one_once() {
        let answers = Answers::default();
        drop(answers.token(3, None));
        answers.token(4, None).finish(Status::Ok, 512);
        assert_eq!(answers.token(5, None).leave(), 5);
        let mut got = Vec::new();
        answers.take(&mut got);
        let got: Vec<_> = got.iter().map(|a| (a.head, a.written)).collect();
        assert_eq!(got, [(3, 0), (4, 0)], "no status byte: nothing was written");
        assert!(answers.is_empty());
    }
}
