//! The process from start to end.
//!
//! # Start
//!
//! 1. take the control socket that systemd has kept, if any; claim the runtime directory (a lock keeps a second backend out of it),
//! 2. open the store (its lock keeps a second backend out; recovery happens here),
//! 3. start the workers, open every vDisk's socket,
//! 4. open the control socket (who finds it finds the vDisks' sockets too), and tell systemd that we are ready. From here on
//!    its watchdog is petted.
//!
//! # End, on SIGTERM or SIGINT
//!
//! 1. tell systemd, close the control socket,
//! 2. hang up on every front end and wait for what is in flight; requests that wait for space stay noted in their
//!    front ends' in-flight regions,
//! 3. end the workers, drain the store's write buffer, take its last checkpoint.
//!
//! A front end that reconnects goes on with the next backend. So does one whose backend was killed: a worker that
//! panics takes the whole process along on purpose, because a restart is exact and half a backend is not.

use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use block_store::{Store, StoreError};
use rustix::process::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;

use crate::control::{self, ExportedSockets, RunDir, StoreTarget};
use crate::exports::{ExportError, Exports};
use crate::settings::Settings;
use crate::store_engine::{StoreDisk, StoreEngine};
use crate::systemd::{self, Watchdog};
use crate::workers::{Pool, PoolError};

/// How often an end that takes long says why.
const TELL: Duration = Duration::from_secs(3);

/// Why the backend didn't start, or ended badly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The runtime directory.
    #[error("can't make the runtime directory {}: {source}", .path.display())]
    RunDir {
        /// Which one.
        path: std::path::PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The workers.
    #[error(transparent)]
    Workers(#[from] PoolError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] control::StartError),
    /// A vDisk's socket.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// Signals.
    #[error("can't wait for signals: {0}")]
    Signals(std::io::Error),
    /// The thread that pets systemd's watchdog.
    #[error("can't watch ourselves: {0}")]
    Watchdog(std::io::Error),
}

/// Serves until told to end.
pub fn run(settings: Settings) -> Result<(), DaemonError> {
    let inherited = systemd::inherited();
    abort_on_panic();
    raise_descriptor_limit();
    let signals = Signals::new().map_err(DaemonError::Signals)?;
    let run_dir = &settings.sockets.run;
    std::fs::create_dir_all(run_dir).map_err(|source| DaemonError::RunDir {
        path: run_dir.clone(),
        source,
    })?;

    let claimed = RunDir::claim(run_dir, inherited)?;
    let store = Store::open(settings.store.clone())?;
    let lanes = Arc::clone(&store);
    let pool = Pool::start(settings.workers, move || StoreEngine::new(&lanes))?;
    let pool = Arc::new(pool);
    let watchdog = watch(&store, &pool).map_err(DaemonError::Watchdog)?;
    let exports = Exports::new(settings.sockets.clone(), Arc::clone(&pool))?;
    let served = serve(&settings, claimed, &store, &exports, signals);
    watchdog.iter().for_each(Watchdog::ending);
    patiently("waiting for requests that are inside the store", || {
        exports.shut_down();
        drop(exports);
        drop(pool);
    });
    patiently("writing what is buffered, and a last checkpoint", || {
        store.shutdown()
    })?;
    log::info!("ended; everything is on disk");
    served
}

/// From the first socket to the signal to end.
fn serve(
    settings: &Settings,
    claimed: RunDir,
    store: &Arc<Store>,
    exports: &Exports<StoreDisk>,
    signals: Signals,
) -> Result<(), DaemonError> {
    let run_dir = &settings.sockets.run;
    for vdisk in store.vdisks() {
        exports.add(StoreDisk::new(Arc::clone(store), vdisk))?;
    }
    let sockets = ExportedSockets {
        store: Arc::clone(store),
        exports: exports.clone(),
        run: run_dir.clone(),
    };
    let target = StoreTarget::new(Arc::clone(store), Box::new(sockets), run_dir.clone());
    let control = claimed.serve(Arc::new(target))?;
    log::info!(
        "serving {} vDisks of {} in {} with {} workers",
        exports.list().len(),
        settings.store.dir.display(),
        run_dir.display(),
        settings.workers
    );
    systemd::tell(NotifyState::Ready);

    let signal = signals.wait();
    log::info!("{signal}: ending; front ends that reconnect will go on with the next backend");
    systemd::tell(NotifyState::Stopping);
    drop(control);
    Ok(())
}

/// What a restart would cure: a worker that is stuck, or the store's lock. Threads that die take us along anyway, and a disk that is
/// slow, or a store that takes no more writes, would be the same afterwards.
fn watch(store: &Arc<Store>, pool: &Pool<StoreDisk>) -> std::io::Result<Option<Watchdog>> {
    let (store, pulse) = (Arc::downgrade(store), pool.pulse());
    Watchdog::start(move |within| {
        pulse.answers(within).map_err(|worker| {
            format!(
                "worker {worker} has not answered for {} s",
                within.as_secs()
            )
        })?;
        // It takes the store's lock. Where that never comes, nor does the petting.
        drop(store.upgrade().map(|store| store.vdisks()));
        Ok(())
    })
}

/// A worker or a thread of the store that panics would leave guests without an answer for ever. The control API's
/// threads are nobody's data path: there a panic ends one request.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        let thread = std::thread::current();
        if !thread
            .name()
            .is_some_and(|name| name.starts_with("firn-control"))
        {
            std::process::abort();
        }
    }));
}

/// Each segment's file is open: what the host lets us have by its hard limit, we take. Who starts us by hand seldom thinks of it.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        log::debug!("can't raise the limit of open files: {e}");
    }
}

/// Runs `act`; as long as it lasts, says every few seconds what it is that we wait for: the disk's time is its own, and whoever
/// has told us to end should know.
fn patiently<T>(doing: &'static str, act: impl FnOnce() -> T) -> T {
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let teller = std::thread::Builder::new()
        .name("firn-ending".to_owned())
        .spawn(move || {
            let began = Instant::now();
            while ended.recv_timeout(TELL) == Err(RecvTimeoutError::Timeout) {
                log::warn!(
                    "still ending after {} s: {doing}",
                    began.elapsed().as_secs()
                );
            }
        });
    let outcome = act();
    drop(done);
    if let Ok(teller) = teller {
        let _ = teller.join();
    }
    outcome
}

/// SIGTERM and SIGINT.
struct Signals {
    runtime: tokio::runtime::Runtime,
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// From here on they no longer end the process at once: recovery, too, ends in good order.
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let entered = runtime.enter();
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        drop(entered);
        Ok(Self {
            runtime,
            terminate,
            interrupt,
        })
    }

    fn wait(mut self) -> &'static str {
        let (terminate, interrupt) = (&mut self.terminate, &mut self.interrupt);
        self.runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        })
    }
}
