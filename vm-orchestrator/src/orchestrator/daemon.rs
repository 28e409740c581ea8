//! The process: what runs until SIGTERM.

use super::journal::Journal;
use super::remote::{self, Remote};
use super::{Orchestrator, Trouble, api};
use crate::hypervisor::libvirt::{Libvirt, Listener};
use crate::hypervisor::{Event, Hypervisor};
use control_api::{Client, ORCHESTRATOR_SOCKET};
use sd_notify::NotifyState;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Between two questions whether the backend is there: its end is noticed within a second.
const ASK_BACKEND: Duration = Duration::from_millis(250);
/// How long its answer may take.
const BACKEND_ANSWERS: Duration = Duration::from_millis(700);
/// Between two attempts to reach libvirt.
const ASK_LIBVIRT: Duration = Duration::from_millis(500);
/// Between two looks at everything, for what no event tells.
const LOOK_AT_ALL: Duration = Duration::from_secs(5);
/// Between two attempts to go on with what was interrupted.
const FINISH: Duration = Duration::from_secs(1);

/// How long the end waits for what is under way.
const LAST: Duration = Duration::from_secs(10);

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The backend's runtime directory; the API's socket is there too.
    pub run: PathBuf,
    /// The journal's directory; it is made if it is not there.
    pub state: PathBuf,
    /// libvirt's URI.
    pub connect: String,
    /// The API on TCP, too.
    pub remote: Option<Remote>,
}

/// Runs until SIGTERM or SIGINT.
pub fn run(settings: &Settings) -> Result<(), Trouble> {
    std::fs::create_dir_all(&settings.state).map_err(io_trouble(&settings.state))?;
    let journal = Journal::open(&settings.state)?;
    let (events, happened) = unbounded_channel();
    let listener: Listener = Arc::new(move |event| {
        // Nobody listens: the process ends.
        let _ = events.send(event);
    });
    let libvirt = Arc::new(Libvirt::new(&settings.connect, listener)?);
    let orchestrator = Arc::new(Orchestrator::new(
        libvirt,
        &settings.connect,
        settings.run.clone(),
        journal,
    ));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(io_trouble(&settings.state))?;
    let served = runtime.block_on(serve(settings, &orchestrator, happened));
    // A call that libvirt does not answer must not hold up the end: the journal knows what was under way.
    runtime.shutdown_background();
    served
}

async fn serve(
    settings: &Settings,
    orchestrator: &Arc<Orchestrator>,
    happened: UnboundedReceiver<Event>,
) -> Result<(), Trouble> {
    let socket = settings.run.join(ORCHESTRATOR_SOCKET);
    let listener = bind(&socket).map_err(io_trouble(&socket))?;
    orchestrator.tell_unfinished()?;
    let term = signal(SignalKind::terminate()).map_err(io_trouble(&socket))?;
    let interrupt = signal(SignalKind::interrupt()).map_err(io_trouble(&socket))?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(watch_backend(orchestrator.clone()));
    tasks.spawn(watch_libvirt(orchestrator.clone()));
    tasks.spawn(follow_events(orchestrator.clone(), happened));
    tasks.spawn(finish(orchestrator.clone()));
    tokio::spawn(pet_watchdog());
    let router = api::router(orchestrator.clone());
    if let Some(remote) = &settings.remote {
        remote::serve(remote, router.clone()).await?;
    }
    tokio::spawn(async move { axum::serve(listener, router).await });
    log::info!("API on {}", socket.display());
    notify(NotifyState::Ready);
    let ended = ended(term, interrupt).await;
    notify(NotifyState::Stopping);
    drop(std::fs::remove_file(&socket));
    log::info!("{ended}: ending");
    tasks.shutdown().await;
    // Nobody is to be left paused or frozen until the next one comes.
    if tokio::time::timeout(LAST, orchestrator.come_to_an_end())
        .await
        .is_err()
    {
        log::warn!("what is under way is left to the next orchestrator: the journal has it");
    }
    Ok(())
}

async fn ended(
    mut term: tokio::signal::unix::Signal,
    mut interrupt: tokio::signal::unix::Signal,
) -> &'static str {
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// The journal's lock keeps a second orchestrator out, so that a socket that is there is a dead one's.
fn bind(socket: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Nobody else's from the first moment on.
    let before = rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(socket);
    rustix::process::umask(before);
    let listener = bound?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn io_trouble(path: &Path) -> impl Fn(io::Error) -> Trouble {
    move |error| Trouble::Settings(format!("{}: {error}", path.display()))
}

fn notify(state: NotifyState<'_>) {
    // Without systemd there is nobody to tell.
    drop(sd_notify::notify(&[state]));
}

/// As long as this runtime gets round, the process is well.
async fn pet_watchdog() {
    let Some(every) = sd_notify::watchdog_enabled() else {
        return;
    };
    loop {
        tokio::time::sleep(every / 2).await;
        notify(NotifyState::Watchdog);
    }
}

/// libvirt raises no event when a backend ends, and guests only wait.
async fn watch_backend(orchestrator: Arc<Orchestrator>) {
    let mut client: Option<Client> = None;
    loop {
        let answer = tokio::time::timeout(BACKEND_ANSWERS, async {
            let mut connected = match client.take() {
                Some(client) => client,
                None => Client::connect(&orchestrator.run).await?,
            };
            connected.health().await?;
            Ok::<_, control_api::ClientError>(connected)
        });
        let answer = match answer.await {
            Ok(Ok(connected)) => {
                client = Some(connected);
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!(
                "no answer within {} ms",
                BACKEND_ANSWERS.as_millis()
            )),
        };
        if orchestrator.links.backend(answer) {
            // What waited for it goes on.
            let orchestrator = orchestrator.clone();
            tokio::spawn(async move { orchestrator.look_at_all().await });
        }
        tokio::time::sleep(ASK_BACKEND).await;
    }
}

async fn watch_libvirt(orchestrator: Arc<Orchestrator>) {
    loop {
        let answer = orchestrator.ask(|h: &dyn Hypervisor| h.connect()).await;
        if orchestrator
            .links
            .libvirt(answer.map_err(|error| error.to_string()))
        {
            let orchestrator = orchestrator.clone();
            tokio::spawn(async move { orchestrator.look_at_all().await });
        }
        tokio::time::sleep(ASK_LIBVIRT).await;
    }
}

async fn follow_events(orchestrator: Arc<Orchestrator>, mut happened: UnboundedReceiver<Event>) {
    let mut all = tokio::time::interval(LOOK_AT_ALL);
    all.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            event = happened.recv() => event,
            _ = all.tick() => Some(Event::Connection),
        };
        match event {
            Some(Event::Changed(uuid)) => orchestrator.notice(uuid),
            Some(Event::Connection) => {
                let orchestrator = orchestrator.clone();
                tokio::spawn(async move { orchestrator.look_at_all().await });
            }
            None => return,
        }
    }
}

async fn finish(orchestrator: Arc<Orchestrator>) {
    loop {
        let (libvirt, backend) = orchestrator.links.both();
        if libvirt.up {
            orchestrator.finish_all(backend.up).await;
        }
        tokio::time::sleep(FINISH).await;
    }
}
