//! A real guest on the real backend: Debian's kernel and userland, booted by firmware and boot loader from a vDisk.
//!
//! What a user would lose sleep over: the backend dies under load, the guest is saved and restored, it
//! reboots, it gives space back. Every test ends with a look at the guest kernel's log.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use control_api::Client;
use firn_tests::guest::{self, Machine, MachineSpec, Ticket};
use firn_tests::server::{Binaries, Firn, Server};
use tempfile::TempDir;

type TestResult = Result<(), Box<dyn Error>>;

const SECOND: Duration = Duration::from_secs(1);
const DATA_BYTES: u64 = 2 << 30;

/// Writes, then reads back and verifies, what adds up to its `--size`.
const FIO: &str = "fio --name=load --filename=/mnt/load --rw=randwrite --bsrange=4k-64k --ioengine=libaio \
                   --direct=1 --iodepth=16 --verify=crc32c --verify_fatal=1 --randrepeat=0 --eta=never --output=/tmp/fio.log";

#[test]
fn goes_on_through_kills_with_one_queue() -> TestResult {
    goes_on_through_kills(1)
}

#[test]
fn goes_on_through_kills_with_four_queues() -> TestResult {
    goes_on_through_kills(4)
}

fn goes_on_through_kills(queues: u32) -> TestResult {
    let mut host = Host::start()?;
    let mut machine = host.boot(queues)?;
    let seen = machine.must("ls /sys/block/vdb/mq | wc -l", 10 * SECOND)?;
    assert_eq!(seen, queues.to_string(), "queues that the guest uses");
    machine.must("mkfs.ext4 -q /dev/vdb && mount /dev/vdb /mnt", 60 * SECOND)?;

    let load = machine.begin(&format!(
        "{FIO} --size=96M || {{ cat /tmp/fio.log; false; }}"
    ))?;
    let kills = host.kill_until_done(&mut machine, &load)?;
    println!("{kills} kills under fio with {queues} queues");
    assert!(
        kills >= 3,
        "fio ended after {kills} kills: too early to tell anything"
    );

    // Once more from the disk, and not from the guest's page cache.
    machine.must(
        "sync; echo 3 >/proc/sys/vm/drop_caches; umount /mnt && e2fsck -f -n /dev/vdb",
        120 * SECOND,
    )?;
    machine.must(
        &format!("mount /dev/vdb /mnt && {FIO} --size=96M --verify_only"),
        120 * SECOND,
    )?;
    machine.assert_no_io_errors()?;
    machine.power_off(60 * SECOND)?;
    host.stop()
}

#[test]
fn is_saved_and_restored_under_load() -> TestResult {
    let mut host = Host::start()?;
    let mut machine = host.boot(4)?;
    machine.must("mkfs.ext4 -q /dev/vdb && mount /dev/vdb /mnt", 60 * SECOND)?;

    let load = machine.begin(&format!(
        "{FIO} --size=128M || {{ cat /tmp/fio.log; false; }}"
    ))?;
    std::thread::sleep(SECOND);
    let mut machine = machine.save_and_restore(120 * SECOND)?;
    assert!(
        machine.poll(&load, Duration::ZERO)?.is_none(),
        "fio was still to run when the guest was restored"
    );
    // The new QEMU's connection has to survive a backend's death as well.
    let kills = host.kill_until_done(&mut machine, &load)?;
    println!("{kills} kills after the restore");
    machine.must("umount /mnt && e2fsck -f -n /dev/vdb", 120 * SECOND)?;
    machine.assert_no_io_errors()?;
    machine.power_off(60 * SECOND)?;
    host.stop()
}

#[test]
fn reboots_and_finds_its_data() -> TestResult {
    let mut host = Host::start()?;
    let mut machine = host.boot(4)?;
    let before = machine.must(
        "dd if=/dev/urandom of=/data bs=1M count=16 status=none && sha256sum /data",
        60 * SECOND,
    )?;
    machine.reboot()?;
    assert_eq!(machine.must("sha256sum /data", 60 * SECOND)?, before);
    machine.assert_no_io_errors()?;
    machine.power_off(60 * SECOND)?;

    // And once more from a backend that was stopped in order, and a QEMU that is new.
    host.server.terminate(30 * SECOND)?;
    host.server = host.firn.serve()?;
    let mut machine = host.boot(1)?;
    assert_eq!(machine.must("sha256sum /data", 60 * SECOND)?, before);
    machine.power_off(60 * SECOND)?;
    host.stop()
}

#[test]
fn gives_space_back_by_fstrim() -> TestResult {
    const WRITTEN: u64 = 192 << 20;
    let host = Host::start()?;
    let mut machine = host.boot(1)?;
    machine.must("mkfs.ext4 -q /dev/vdb && mount /dev/vdb /mnt", 60 * SECOND)?;
    let empty = host.data_bytes()?;
    let fill = "dd if=/dev/urandom of=/mnt/file bs=1M count=192 status=none && sync";
    machine.must(fill, 120 * SECOND)?;
    let (full, store_full) = (host.data_bytes()?, host.store_bytes()?);
    assert!(
        full >= empty + WRITTEN,
        "{WRITTEN} bytes were written: {empty} before, {full} after"
    );

    machine.must("rm /mnt/file && sync && fstrim -v /mnt", 60 * SECOND)?;
    let trimmed = host.data_bytes()?;
    assert!(
        trimmed < empty + (2 << 20),
        "all was trimmed: {empty} at first, {full} full, {trimmed} now"
    );
    // The vDisk has given it back to the store; the store gives it back to the host when it next
    // reclaims segments.
    let deadline = Instant::now() + 90 * SECOND;
    while host.store_bytes()? + WRITTEN / 2 > store_full {
        assert!(
            Instant::now() < deadline,
            "of {WRITTEN} bytes trimmed, the store of {store_full} still has {} after 90 s",
            host.store_bytes()?
        );
        std::thread::sleep(SECOND);
    }
    machine.assert_no_io_errors()?;
    machine.power_off(60 * SECOND)?;
    host.stop()
}

/// A store with two vDisks, served: `system` (imported) and `data` (empty).
struct Host {
    // Dropped in this order: nobody serves from a directory that is gone.
    server: Server,
    firn: Firn,
    dir: TempDir,
    /// One guest at a time: on TCG two would only make both slow, and their timeouts guesses.
    _turn: MutexGuard<'static, ()>,
}

impl Host {
    fn start() -> Result<Self, Box<dyn Error>> {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let image = guest::image()?;
        let dir = TempDir::new()?;
        let firn = Firn::create(Binaries::find()?, dir.path())?;
        let server = firn.serve()?;
        firn.cli(&["vdisk", "import", &image.display().to_string(), "system"])?;
        firn.create_vdisk("data", DATA_BYTES)?;
        Ok(Self {
            server,
            firn,
            dir,
            _turn: turn,
        })
    }

    fn boot(&self, queues: u32) -> Result<Machine, Box<dyn Error>> {
        let spec = MachineSpec {
            disks: vec![self.firn.socket("system"), self.firn.socket("data")],
            vcpus: queues,
            memory_mib: 512,
        };
        let started = Instant::now();
        let machine = Machine::boot(&spec, &self.machine_dir()?)?;
        println!(
            "booted from the vDisk in {:.1} s",
            started.elapsed().as_secs_f32()
        );
        Ok(machine)
    }

    fn machine_dir(&self) -> std::io::Result<PathBuf> {
        let dir = self.dir.path().join("vm");
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// SIGKILLs and restarts the backend again and again until the command in the guest has ended,
    /// in success. Returns how often.
    fn kill_until_done(
        &mut self,
        machine: &mut Machine,
        load: &Ticket,
    ) -> Result<u32, Box<dyn Error>> {
        let deadline = Instant::now() + 240 * SECOND;
        let mut kills = 0;
        loop {
            // Lengths of life that differ, so that death comes in different states.
            let life = Duration::from_millis(600 + 370 * u64::from(kills % 5));
            if let Some(answer) = machine.poll(load, life)? {
                assert_eq!(
                    answer.code, 0,
                    "the load failed after {kills} kills: {}",
                    answer.output
                );
                return Ok(kills);
            }
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.firn.log()).unwrap_or_default();
                return Err(format!(
                    "the guest's load hangs after {kills} kills; the backend said:\n{log}"
                )
                .into());
            }
            self.server.kill()?;
            self.server = self.firn.serve()?;
            kills += 1;
        }
    }

    /// Bytes of the vDisk `data` that hold data.
    fn data_bytes(&self) -> Result<u64, Box<dyn Error>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut client = Client::connect(self.firn.run()).await?;
            let (mut bytes, mut next) = (0, Some(0));
            while let Some(offset) = next {
                let part = client.allocated("data", offset).await?;
                bytes += part.ranges.iter().map(|range| range.length).sum::<u64>();
                next = part.next;
            }
            Ok(bytes)
        })
    }

    /// Bytes that the store's files take on the host.
    fn store_bytes(&self) -> Result<u64, Box<dyn Error>> {
        let output = Command::new("du")
            .args(["-s", "-B1"])
            .arg(self.firn.store())
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        Ok(text
            .split_whitespace()
            .next()
            .ok_or("du says nothing")?
            .parse()?)
    }

    fn stop(mut self) -> TestResult {
        let status = self.server.terminate(30 * SECOND)?;
        assert!(status.success(), "the backend ended with {status}");
        Ok(())
    }
}
