//! The backend as a service, systemd being played by the test: what it tells, and what is kept for it.

use std::error::Error;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use firn_tests::rig::PATIENCE;
use firn_tests::server::{Binaries, Firn};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tempfile::TempDir;

type TestResult = Result<(), Box<dyn Error>>;

/// What a notification says, and what came with it.
type Told = (String, Option<OwnedFd>);

/// systemd, as far as a service sees it.
struct Manager {
    notify: UnixDatagram,
    dir: TempDir,
    firn: Firn,
    backend: String,
}

/// A backend that ends with the test.
struct Backend(Child);

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Manager {
    fn new() -> Result<Self, Box<dyn Error>> {
        let dir = TempDir::with_prefix("firn-service-")?;
        let notify = UnixDatagram::bind(dir.path().join("notify"))?;
        notify.set_read_timeout(Some(PATIENCE))?;
        let binaries = Binaries::find()?;
        let backend = binaries.backend.display().to_string();
        let firn = Firn::create(binaries, dir.path())?;
        Ok(Self {
            notify,
            dir,
            firn,
            backend,
        })
    }

    /// Starts the backend as a unit with `WatchdogSec=1`, and hands it what was kept.
    fn start(&self, kept: Option<OwnedFd>) -> std::io::Result<Backend> {
        const PASS: &str = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\" 3<&0 </dev/null";
        let mut command = Command::new("sh");
        match kept {
            Some(kept) => command.args(["-c", PASS, "sh"]).stdin(kept),
            None => command
                .args(["-c", "exec \"$@\"", "sh"])
                .stdin(Stdio::null()),
        };
        let (store, run) = (self.firn.store(), self.firn.run());
        command.arg(&self.backend).arg("--store").arg(store);
        command.arg("--run").arg(run);
        command
            .env("NOTIFY_SOCKET", self.dir.path().join("notify"))
            .env("WATCHDOG_USEC", "1000000");
        Ok(Backend(command.spawn()?))
    }

    /// The next notification.
    fn hear(&self) -> Result<Told, Box<dyn Error>> {
        let mut text = [0; 512];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [IoSliceMut::new(&mut text)];
        let got = recvmsg(&self.notify, into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let mut passed = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
                passed = descriptors.next();
            }
        }
        Ok((String::from_utf8(text[..got.bytes].to_vec())?, passed))
    }

    /// The next notification that says that.
    fn hear_of(&self, what: &str) -> Result<Told, Box<dyn Error>> {
        let began = Instant::now();
        loop {
            let told = self.hear()?;
            if told.0.lines().any(|line| line == what) {
                return Ok(told);
            }
            assert!(began.elapsed() < PATIENCE, "{what} was not told");
        }
    }

    /// What the last process has told, and nobody has listened to.
    fn forget(&self) -> TestResult {
        self.notify.set_nonblocking(true)?;
        while self.hear().is_ok() {}
        self.notify.set_nonblocking(false)?;
        Ok(())
    }

    fn ask(&self) -> std::io::Result<Child> {
        let mut firn = Command::new(&Binaries::find()?.cli);
        firn.args(["store", "status"]).stdout(Stdio::null());
        firn.env("FIRN_RUN", self.firn.run()).spawn()
    }
}

#[test]
fn clients_wait_while_the_backend_is_started_anew() -> TestResult {
    let manager = Manager::new()?;
    let mut backend = manager.start(None)?;
    let (text, kept) = manager.hear_of("FDSTORE=1")?;
    assert!(text.contains("FDNAME=control"), "{text}");
    let kept = kept.ok_or("no descriptor came with it")?;
    manager.hear_of("READY=1")?;
    assert!(manager.ask()?.wait()?.success());

    backend.0.kill()?;
    backend.0.wait()?;
    manager.forget()?;
    let mut client = manager.ask()?;
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(client.try_wait()?, None, "it was turned away");
    let mut backend = manager.start(Some(kept.try_clone()?))?;
    assert!(client.wait()?.success());
    manager.hear_of("READY=1")?;

    // So it is when it is told to end, by an upgrade say.
    let pid = rustix::process::Pid::from_child(&backend.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    manager.hear_of("STOPPING=1")?;
    backend.0.wait()?;
    let mut client = manager.ask()?;
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(client.try_wait()?, None, "it was turned away");
    let _backend = manager.start(Some(kept))?;
    assert!(client.wait()?.success());
    Ok(())
}

/// What was handed over without being ours does no harm: the descriptor of something else.
#[test]
fn what_is_inherited_and_not_ours_is_passed_over() -> TestResult {
    let manager = Manager::new()?;
    let odd = std::fs::File::open("/dev/null")?;
    let _backend = manager.start(Some(odd.into()))?;
    manager.hear_of("READY=1")?;
    assert!(manager.ask()?.wait()?.success());
    Ok(())
}

#[test]
fn the_watchdog_is_petted_while_it_runs() -> TestResult {
    let manager = Manager::new()?;
    let backend = manager.start(None)?;
    manager.hear_of("READY=1")?;
    let began = Instant::now();
    for _ in 0..5 {
        manager.hear_of("WATCHDOG=1")?;
    }
    // Three a second are sent, and systemd waits for one.
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let pid = rustix::process::Pid::from_child(&backend.0);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP)?;
    manager.forget()?;
    let silence = Duration::from_secs(2);
    manager.notify.set_read_timeout(Some(silence))?;
    assert!(manager.hear().is_err(), "petted by one that stands still");
    assert!(Path::new(&manager.firn.control()).exists());
    Ok(())
}
