//! Whose queues may run: one front end's, never two's.
//!
//! A vDisk's socket admits two front ends at a time, because QEMU migrates a guest so: the new one connects and
//! negotiates while the old one serves the guest, the old one stops its queues, the new one starts its own, and only then
//! the old one hangs up (or, if it has failed, the old one starts again). So **the write lease is the queues that run**. Nothing
//! here does anything; [`super::attachments`] asks before a session starts its first queue, and tells when it has stopped its last.
//!
//! ```text
//!               ask                    last queue stopped
//!    (free) ──────────> running ─────────────┬──────────────────> resting    its guest reboots or is paused: nobody else may
//!      ^                 │  ^  ^             │                       │
//!      │        hangs up │  │  └── ask ──────┼───────────────────────┤
//!      │                 v  │                │ while it was logged   │
//!      │              ending│                └──────> offered ───────┤    it is being migrated or saved: whoever asks
//!      │                 │  └── ask, of anybody ─────────┘           │    next is the holder
//!      └─────── gone ────┴──────────────────────────────── hangs up ─┘
//! ```
//!
//! | another one holds it and is | who asks |
//! |---|---|
//! | running | is refused: it is no successor, whatever happens next |
//! | offered | gets it |
//! | resting | waits, not for ever: a guest that is migrated while it is paused has its old front end hang up soon |
//! | ending | waits for the last requests |
//!
//! # Why a stop is no offer
//!
//! A guest that reboots stops its queues for seconds. Were the lease free meanwhile, a second domain that was started on
//! the vDisk by mistake, and whose QEMU connects again each second, would have it then, and there would be two guests on one filesystem.
//! What tells a migration apart is LOG_ALL: QEMU has writes noted only while it copies the guest's memory, and such a guest's next
//! QEMU starts after the old one's stop. Whoever asked before that stop is not it, and never gets what is offered.

/// A session of one vDisk. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id(pub u64);

/// What the holder does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Resting,
    Offered,
    Ending,
}

/// What somebody is told who wants to start queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It may, now. With whom it takes the lease from, if that one is still there.
    Yes {
        /// The one that offered it.
        from: Option<Id>,
    },
    /// Not yet, and it is not known whether ever.
    Wait(Id),
    /// When the holder's last requests are finished.
    Soon,
    /// Never, for this session: another one's queues run.
    No(Id),
}

/// Who may serve queues of one vDisk.
#[derive(Debug, Default)]
pub struct Lease {
    holder: Option<(Id, Phase)>,
    waiting: Vec<Id>,
    /// They waited, and another one has got it.
    passed_over: Vec<Id>,
}

impl Lease {
    /// Who has it.
    pub fn holder(&self) -> Option<Id> {
        self.holder.map(|(id, _)| id)
    }

    /// A session wants to start its first queue.
    pub fn ask(&mut self, id: Id) -> Answer {
        if self.passed_over.contains(&id) {
            return Answer::No(self.holder().unwrap_or(id));
        }
        let from = match self.holder {
            None => None,
            Some((holder, _)) if holder == id => None,
            // Who waits has been passed over when the holder ran.
            Some((holder, Phase::Offered)) => Some(holder),
            Some((holder, Phase::Resting)) => {
                self.wait(id);
                return Answer::Wait(holder);
            }
            Some((_, Phase::Ending)) => {
                self.wait(id);
                return Answer::Soon;
            }
            Some((holder, Phase::Running)) => return Answer::No(holder),
        };
        self.waiting.retain(|waiting| *waiting != id);
        self.passed_over.append(&mut self.waiting);
        self.holder = Some((id, Phase::Running));
        Answer::Yes { from }
    }

    fn wait(&mut self, id: Id) {
        if !self.waiting.contains(&id) {
            self.waiting.push(id);
        }
    }

    /// A session has stopped its last queue, and nothing is in flight. `logged`: its writes were being noted for a copy
    /// of the guest's memory.
    pub fn rest(&mut self, id: Id, logged: bool) {
        if self.holder == Some((id, Phase::Running)) {
            let phase = if logged {
                Phase::Offered
            } else {
                Phase::Resting
            };
            self.holder = Some((id, phase));
        }
    }

    /// A session no longer wants what it has asked for.
    pub fn withdraw(&mut self, id: Id) {
        self.waiting.retain(|waiting| *waiting != id);
    }

    /// A session has hung up; what it has in flight is being finished.
    pub fn end(&mut self, id: Id) {
        match self.holder {
            Some((holder, Phase::Running)) if holder == id => {
                self.holder = Some((id, Phase::Ending));
            }
            Some((holder, Phase::Resting | Phase::Offered)) if holder == id => self.holder = None,
            _ => {}
        }
        self.withdraw(id);
    }

    /// Nothing is left of a session.
    pub fn gone(&mut self, id: Id) {
        if self.holder() == Some(id) {
            self.holder = None;
        }
        self.withdraw(id);
        self.passed_over.retain(|over| *over != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Id = Id(1);
    const B: Id = Id(2);
    const C: Id = Id(3);
    const YES: Answer = Answer::Yes { from: None };

    /// Whether its queues may run, or are being stopped.
    fn runs(lease: &Lease, id: Id) -> bool {
        matches!(lease.holder, Some((holder, Phase::Running | Phase::Ending)) if holder == id)
    }

    fn held_by_a() -> Lease {
        let mut lease = Lease::default();
        assert_eq!(lease.ask(A), YES);
        lease
    }

    #[test]
    fn a_migration_hands_it_over_at_the_stop() {
        let mut lease = held_by_a();
        lease.rest(A, true);
        assert_eq!(lease.ask(B), Answer::Yes { from: Some(A) });
        assert_eq!(lease.ask(A), Answer::No(B), "the old one is too late");
        lease.end(A);
        lease.gone(A);
        assert_eq!((lease.holder(), runs(&lease, B)), (Some(B), true));
    }

    #[test]
    fn a_migration_that_fails_leaves_it_where_it_was() {
        let mut lease = held_by_a();
        lease.rest(A, true);
        assert_eq!(lease.ask(A), YES);
        assert_eq!(lease.ask(B), Answer::No(A));
        // And one that fails when the new one has started: it is ended, and the old one goes on.
        lease.rest(A, true);
        lease.ask(B);
        lease.end(B);
        assert_eq!(lease.ask(A), Answer::Soon);
        lease.gone(B);
        assert_eq!(lease.ask(A), YES);
    }

    #[test]
    fn a_reboot_hands_nothing_over() {
        let mut lease = held_by_a();
        lease.rest(A, false);
        assert_eq!(lease.ask(B), Answer::Wait(A));
        assert_eq!(lease.ask(A), YES);
        assert_eq!(lease.ask(B), Answer::No(A));
        // Not even what is offered next: it was there before.
        lease.rest(A, true);
        assert_eq!(lease.ask(B), Answer::No(A));
        lease.gone(B);
        assert_eq!(lease.ask(C), Answer::Yes { from: Some(A) });
    }

    #[test]
    fn one_that_is_migrated_paused_goes_on_when_the_old_one_hangs_up() {
        let mut lease = held_by_a();
        lease.rest(A, false);
        assert_eq!(lease.ask(B), Answer::Wait(A));
        lease.end(A);
        assert_eq!(lease.ask(B), YES);
        lease.gone(A);
        assert!(runs(&lease, B));
    }

    #[test]
    fn of_two_that_wait_the_second_is_passed_over() {
        let mut lease = held_by_a();
        lease.end(A);
        assert_eq!((lease.ask(B), lease.ask(C)), (Answer::Soon, Answer::Soon));
        lease.gone(A);
        assert_eq!(lease.ask(C), YES);
        assert_eq!(lease.ask(B), Answer::No(C));
        lease.gone(C);
        assert_eq!(lease.ask(B), Answer::No(B), "it has to connect again");
        lease.gone(B);
        assert_eq!(lease.ask(A), YES);
    }

    /// Whatever anybody does, in any order: whoever is told yes is the only one whose queues run.
    #[test]
    fn there_are_never_two() {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut lease = Lease::default();
        // Each session as it knows itself: (id, runs, hung up).
        let mut sessions = [
            (Id(0), false, false),
            (Id(1), false, false),
            (Id(2), false, false),
        ];
        let (mut fresh, mut granted) = (3, 0);
        for _ in 0..200_000 {
            let at = next(3) as usize;
            let (id, running, over) = &mut sessions[at];
            match next(5) {
                0 if *over => {
                    lease.gone(*id);
                    (*id, *running, *over) = (Id(fresh), false, false);
                    fresh += 1;
                }
                1 => {
                    lease.end(*id);
                    *over = true;
                }
                2 if *running && !*over => {
                    *running = false;
                    lease.rest(*id, next(2) == 0);
                }
                3 if !*running && !*over => {
                    *running = matches!(lease.ask(*id), Answer::Yes { .. });
                    granted += u32::from(*running);
                }
                4 => lease.withdraw(*id),
                _ => {}
            }
            let running: Vec<_> = sessions.iter().filter(|session| session.1).collect();
            assert!(running.len() < 2, "{running:?} {lease:?}");
            assert!(running.iter().all(|session| runs(&lease, session.0)));
            assert!(lease.waiting.len() + lease.passed_over.len() <= 3);
        }
        assert!(granted > 1000, "{granted}");
    }
}
