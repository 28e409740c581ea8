//! Scrubbing, whatever else goes on: nothing here is damaged.

use super::History;
use block_store::{ScrubOptions, ScrubPass};
use rand::Rng;

impl History {
    /// Begins, stops, or goes on with a pass.
    pub fn scrub(&mut self) {
        let store = self.store();
        match store.scrub_status().pass {
            Some(pass) if pass.running && self.rng.random_bool(0.03) => drop(store.stop_scrub()),
            Some(pass) if pass.running => {}
            _ => {
                store.scrub_in_batches_of(self.rng.random_range(1..40));
                store.start_scrub(ScrubOptions::default());
            }
        }
        self.scrub_steps();
    }

    /// Goes on with a pass that is past what waits for checkpoints.
    pub fn scrub_data(&mut self) {
        let pass = self.store().scrub_status().pass;
        if pass.is_some_and(|pass| pass.stage == "data") {
            self.scrub_steps();
        }
    }

    fn scrub_steps(&mut self) {
        let store = self.store();
        for _ in 0..self.rng.random_range(1..8) {
            let before = store.scrub_status().pass;
            let of = |pass: &ScrubPass| (pass.extents, pass.damage + pass.notes);
            // What a process found whose disk was told to fail stays found.
            let (extents, found) = before.as_ref().map_or((0, 0), of);
            let Some(stepped) = store.scrub_step() else {
                return;
            };
            let status = store.scrub_status();
            let pass = match stepped.ended {
                true => status.last,
                false => status.pass,
            };
            let pass = pass.unwrap();
            self.totals.scrubbed += pass.extents.saturating_sub(extents);
            self.totals.passes += u64::from(stepped.ended);
            // A dead process reads nothing, and a disk that is told to fail may fail here.
            if self.disk.is_crashed() || self.faulty || self.has_failed() {
                return;
            }
            assert_eq!(of(&pass).1, found, "{:#?}", pass.findings);
            if stepped.ended {
                return;
            }
        }
    }
}
