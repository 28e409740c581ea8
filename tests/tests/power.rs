//! Invariant 2 on the real backend: after the power failed, what was flushed is there, and the rest reads
//! as some value written since.
//!
//! The power fails by SIGKILL and a change of the boot id (a file mounted over the kernel's, in a namespace of
//! the backend's own), so that the next backend ignores the write buffer. What the kernel had been given
//! survives here: losing, tearing and reordering that too is the simulated disk's part.

use std::env;
use std::process::Command;
use std::time::{Duration, SystemTime};

use firn_tests::client::ClientOptions;
use firn_tests::rig::{PATIENCE, Rig};
use firn_tests::workload::{Mix, Workload};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const MIB: u64 = 1 << 20;

/// Whether a boot id can be replaced here: it takes root.
fn can_reboot() -> bool {
    let script = "mount --bind /dev/null /proc/sys/kernel/random/boot_id";
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-c", script]);
    let can = unshare.output().is_ok_and(|output| output.status.success());
    if !can {
        println!("not shown: replacing the boot id takes root and util-linux's unshare");
    }
    can
}

/// Kills the backend and starts one that believes in another boot.
fn fail_power(rig: &mut Rig, boot: u32) {
    rig.server.kill().unwrap();
    let file = rig.dir().join(format!("boot-{boot}"));
    std::fs::write(&file, format!("00000000-0000-4000-8000-{boot:012}\n")).unwrap();
    rig.firn = rig.firn.with_boot_id(&file);
    rig.server = rig.firn.start().unwrap();
    rig.server.listening(&rig.firn.control(), PATIENCE).unwrap();
}

fn lose_power_again_and_again(mix: Mix, write_cache: bool, losses: u32) {
    if !can_reboot() {
        return;
    }
    let clock = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let seed = match env::var("FIRN_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => u64::from(clock.subsec_nanos()),
    };
    println!("FIRN_SEED={seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut rig = Rig::new().unwrap();
    let options = ClientOptions {
        queues: 2,
        inflight: true,
        ..ClientOptions::default()
    };
    let client = rig.attach("disk", 8 * MIB, options.clone()).unwrap();
    client
        .session()
        .unwrap()
        .set_write_cache(write_cache)
        .unwrap();
    let mut load = Workload::new(client, 1, mix, seed);
    for loss in 1..=losses {
        load.run_for(Duration::from_millis(rng.random_range(5..300)), 16)
            .unwrap();
        fail_power(&mut rig, loss);
        load.power_loss(rig.connect("disk", options.clone()).unwrap());
        if let Err(failure) = load.verify(PATIENCE) {
            panic!(
                "loss {loss} of FIRN_SEED={seed}: {failure}\n{}",
                rig.last_words()
            );
        }
    }
    let tally = load.tally();
    println!(
        "{losses} losses: {} reads checked, {} writes, {} flushes",
        tally.reads, tally.writes, tally.flushes
    );
}

#[test]
fn flushed_writes_survive_the_power() {
    lose_power_again_and_again(
        Mix {
            flushes: 4,
            power: true,
            ..Mix::default()
        },
        true,
        12,
    );
}

#[test]
fn without_a_write_cache_every_write_survives_the_power() {
    let mix = Mix {
        flushes: 0,
        power: true,
        write_through: true,
        sectors: 1..=64,
        ..Mix::default()
    };
    lose_power_again_and_again(mix, false, 8);
}

/// Segments that only unflushed overwrites had emptied hold what was flushed: it comes back.
#[test]
fn what_unflushed_overwrites_replaced_comes_back() {
    if !can_reboot() {
        return;
    }
    let mut rig = Rig::new().unwrap();
    let options = ClientOptions {
        inflight: true,
        ..ClientOptions::default()
    };
    let client = rig.attach("disk", 16 * MIB, options.clone()).unwrap();
    let mix = Mix {
        sectors: 512..=512,
        reads: 0,
        flushes: 0,
        discards: 10,
        zeroes: 10,
        power: true,
        ..Mix::default()
    };
    let mut load = Workload::new(client, 1, mix, 1);
    for loss in 1..=3 {
        load.run_for(Duration::from_millis(200), 16).unwrap();
        load.drain(PATIENCE).unwrap();
        load.flush(PATIENCE).unwrap();
        // Several times the vDisk, so that whole segments have nothing live any more.
        load.run_for(Duration::from_millis(1500), 16).unwrap();
        fail_power(&mut rig, loss);
        load.power_loss(rig.connect("disk", options.clone()).unwrap());
        load.verify(PATIENCE)
            .unwrap_or_else(|failure| panic!("{failure}\n{}", rig.last_words()));
    }
}
