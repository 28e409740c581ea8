//! One backend, one worker, two vDisks: the neighbour's, with a verified load on it all the while, and the one under attack.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use firn_tests::client::raw::{NEXT, Raw, WRITE};
use firn_tests::client::{ClientError, ClientOptions, Request, STATUS_OK};
use firn_tests::rig::{PATIENCE, Rig, Setup};
use firn_tests::workload::{Mix, Workload};

/// The longest that one request of the neighbour may take, on a machine that has much else to do. Without its defences
/// the backend lets it wait for minutes.
const SANE: Duration = Duration::from_secs(10);

pub struct Scene {
    pub rig: Rig,
    socket: PathBuf,
    /// How much of the log has been looked at.
    seen: usize,
    stop: Arc<AtomicBool>,
    neighbour: Option<JoinHandle<Duration>>,
}

impl Scene {
    pub fn new() -> Self {
        let serve = &["--workers", "1"];
        let mut rig = Rig::with(&Setup {
            serve,
            ..Setup::default()
        })
        .unwrap();
        let socket = rig.create("evil", 256 << 20).unwrap();
        let options = ClientOptions {
            max_bytes: 64 << 10,
            depth: 8,
            ..ClientOptions::default()
        };
        let client = rig.attach("honest", 8 << 20, options).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let mix = Mix {
            sectors: 1..=64,
            ..Mix::default()
        };
        let mut load = Workload::new(client, 1, mix, 1);
        let ended = Arc::clone(&stop);
        let neighbour = std::thread::spawn(move || {
            let mut worst = Duration::ZERO;
            // An attack may be over before the neighbour's first write is.
            while !ended.load(Ordering::Relaxed) || load.tally().writes == 0 {
                load.run_for(Duration::from_millis(20), 4).unwrap();
                load.drain(PATIENCE).unwrap();
                let begun = Instant::now();
                let done = load.client.run(Request::read(8, 4096), &mut [0; 4096]);
                assert_eq!(done.unwrap().status, STATUS_OK);
                worst = worst.max(begun.elapsed());
                std::thread::sleep(Duration::from_millis(10));
            }
            load.verify(PATIENCE).unwrap();
            worst
        });
        Self {
            rig,
            socket,
            seen: 0,
            stop,
            neighbour: Some(neighbour),
        }
    }

    /// A connection to the vDisk under attack, on which nothing was said.
    pub fn raw(&self) -> Raw {
        Raw::open(&self.socket, 256).unwrap()
    }

    /// One with so many queues running.
    pub fn running(&self, queues: u16) -> Raw {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut raw = self.raw();
            match raw.start(queues) {
                Ok(()) => return raw,
                // The front end before this one has not been noticed to be gone.
                Err(ClientError::Closed) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(e) => panic!("{e}"),
            }
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.rig.firn.log()).unwrap_or_default()
    }

    /// Waits until the log, from where it was looked at last, says this.
    pub fn says(&mut self, case: &str, words: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let log = self.log();
            if let Some(at) = log[self.seen..].find(words) {
                self.seen += at + words.len();
                return;
            }
            assert!(
                Instant::now() < until,
                "{case}: the log doesn't say {words:?}: {}",
                &log[self.seen..]
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Forgets what the log has said so far.
    pub fn turn_page(&mut self) {
        self.seen = self.log().len();
    }

    /// The backend has lived through it, and the neighbour has not suffered.
    pub fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let worst = self.neighbour.take().unwrap().join();
        let log = self.log();
        assert!(!log.contains("panicked"), "{log}");
        assert_eq!(self.rig.server.ended().unwrap(), None, "it died: {log}");
        let worst = worst.expect("the neighbour");
        assert!(worst < SANE, "the neighbour waited {worst:?}");
        let end = self.rig.server.terminate(PATIENCE).unwrap();
        assert!(end.success(), "{end}: {log}");
    }
}

/// Where [`good`] has its header, status and data.
const HEADER: usize = Raw::DATA + 0x10_0000;

/// Reads a block by descriptors 250 to 252 of a queue that has nothing else in flight; whether that was done.
pub fn good(raw: &mut Raw, queue: u16) -> bool {
    let (status, data) = (HEADER + 0x100, HEADER + 0x1000);
    raw.header(HEADER, 0, 0);
    raw.memory.fill(status, 1, 9);
    raw.put(queue, 250, (raw.guest(HEADER), 16, NEXT, 251));
    raw.put(queue, 251, (raw.guest(data), 4096, NEXT | WRITE, 252));
    raw.put(queue, 252, (raw.guest(status), 1, WRITE, 0));
    let next = raw.used(queue).wrapping_add(1);
    raw.offer(queue, 250);
    raw.kick(queue);
    let done = raw.wait_used(queue, next, PATIENCE);
    let mut byte = [0];
    raw.memory.read(status, &mut byte);
    done && byte == [STATUS_OK]
}
