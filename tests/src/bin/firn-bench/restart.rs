//! From the start after a SIGKILL to the first read.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use firn_tests::client::{Client, ClientOptions, Op, Request, STATUS_OK};
use firn_tests::measure;
use firn_tests::pattern::{self, Found, Kind};
use firn_tests::server::{Binaries, Firn, Server};

use crate::cell::Cell;
use crate::load::{self, Amount, Data, Until};
use crate::results::Results;

const PATIENCE: Duration = Duration::from_secs(120);

/// Fills a vDisk; then, for each amount, writes at random that much, kills the backend under the load and
/// times its return. Every restart ends with a read of contents that are checked.
pub fn restart(
    dir: &Path,
    size: u64,
    written_mib: &[u64],
    results: &mut Results,
) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(dir)?;
    let firn = Firn::create(Binaries::find()?, dir)?;
    let mut server = firn.serve()?;
    firn.create_vdisk("disk", size)?;
    server.listening(&firn.socket("disk"), PATIENCE)?;
    let options = ClientOptions {
        inflight: true,
        max_bytes: 1 << 20,
        ..ClientOptions::default()
    };
    let mut client = Client::connect(&firn.socket("disk"), options)?;
    let mut version = 0;
    let filled = load::fill(&mut client, size, Some(Kind::Half), false, &mut version)?;
    println!(
        "filled {} MiB in {:.1} s; {} MiB on disk",
        size >> 20,
        filled.elapsed.as_secs_f64(),
        measure::disk_bytes(firn.store())? >> 20
    );
    let cell = Cell::named("randwrite-32")?;
    for (seed, &mib) in (1..).zip(written_mib) {
        let amount = Amount {
            seconds: 0.0,
            written: mib << 20,
        };
        let data = Data {
            kind: Kind::Half,
            span: size,
            filled: true,
        };
        let until = Until::Amount(amount);
        load::run_without_flush(&mut client, &cell, data, until, seed, &mut version)?;
        let (listening, read) = kill_and_time(&firn, &mut server, &mut client, size, seed)?;
        let own = measure::memory(server.pid())?.anonymous;
        let values = [
            ("listening s", listening),
            ("first read s", read),
            ("own MiB", (own >> 20) as f64),
        ];
        results.point("restart", &format!("{mib} MiB written"), &values)?;
    }
    drop(server);
    fs::remove_dir_all(dir)?;
    Ok(())
}

/// Kills the backend while requests are in flight, starts another one, and returns the seconds until its
/// socket listens and until a first read is answered.
fn kill_and_time(
    firn: &Firn,
    server: &mut Server,
    client: &mut Client,
    size: u64,
    seed: u64,
) -> Result<(f64, f64), Box<dyn Error>> {
    server.kill()?;
    let begin = Instant::now();
    *server = firn.start()?;
    server.listening(&firn.socket("disk"), PATIENCE)?;
    let listening = begin.elapsed().as_secs_f64();
    client.reconnect(PATIENCE)?;
    // A block far from what the caches may hold.
    let sector = (seed * 7919 * 4096 % size) / 512;
    let mut done = Vec::new();
    let queue = &mut client.queues[0];
    while queue.in_flight() > 31 {
        firn_tests::client::wait(std::slice::from_ref(queue), PATIENCE);
        queue.poll(&mut done)?;
    }
    let tag = queue.reserve().ok_or("no free slot")?;
    queue.submit(tag, Request::read(sector, 4096));
    queue.publish();
    let read = loop {
        if !firn_tests::client::wait(std::slice::from_ref(queue), PATIENCE) {
            return Err("no read within two minutes".into());
        }
        done.clear();
        queue.poll(&mut done)?;
        if let Some(read) = done.iter().find(|c| c.request.op == Op::Read) {
            break *read;
        }
    };
    let first_read = begin.elapsed().as_secs_f64();
    let mut block = [0; 512];
    queue.get_data(tag, 0, &mut block);
    match pattern::inspect(&block) {
        Found::Version {
            vdisk: 1,
            sector: at,
            ..
        } if at == sector && read.status == STATUS_OK => {}
        found => {
            return Err(format!("sector {sector}: status {}, found {found:?}", read.status).into());
        }
    }
    while client.in_flight() > 0 {
        if !client.wait(PATIENCE) {
            return Err("requests in flight never complete".into());
        }
        client.queues[0].poll(&mut done)?;
    }
    Ok((listening, first_read))
}
