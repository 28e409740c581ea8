//! The servers that are compared, and their vDisks.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use firn_tests::client::{Client, ClientOptions};
use firn_tests::measure;
use firn_tests::pattern::{self, Kind};
use firn_tests::server::{Binaries, Firn, Format, Qemu, Server, convert_to_zstd, create_qcow2};

use crate::cell::{Cell, State};
use crate::load::{self, Outcome};
use crate::report::{Meter, Row};
use crate::results::label;

type Fallible<T> = Result<T, Box<dyn Error>>;

/// Queues that every server offers.
const QUEUES: u16 = 8;
const PATIENCE: Duration = Duration::from_secs(30);

/// What a server stores data with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Software {
    Firn,
    Qemu { format: Format, direct: bool },
}

/// One kind of server.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// As on the command line and in the tables.
    pub name: &'static str,
    /// What it is, for people.
    pub about: &'static str,
    software: Software,
    /// Its image is compressed before it is served.
    compressed: bool,
    /// A program that runs it, as `strace` would.
    pub tracer: Vec<String>,
}

const fn qemu(
    name: &'static str,
    about: &'static str,
    (format, direct, compressed): (Format, bool, bool),
) -> Spec {
    Spec {
        name,
        about,
        software: Software::Qemu { format, direct },
        compressed,
        tracer: Vec::new(),
    }
}

/// Every server; ratios are to the first of those that run.
#[rustfmt::skip]
pub const SERVERS: [Spec; 6] = [
    qemu("raw", "raw image, O_DIRECT", (Format::Raw, true, false)),
    Spec { name: "firn", about: "Firn as shipped", software: Software::Firn, compressed: false, tracer: Vec::new() },
    qemu("raw-cache", "raw image through the page cache", (Format::Raw, false, false)),
    qemu("qcow2", "qcow2, O_DIRECT", (Format::Qcow2, true, false)),
    qemu("qcow2-zstd", "qcow2 made by qemu-img convert -c (zstd), O_DIRECT", (Format::Qcow2, true, true)),
    qemu("qcow2-compress", "qcow2 (zstd) behind the compress filter, O_DIRECT", (Format::Qcow2Compress, true, false)),
];

impl Spec {
    /// The server of a name.
    pub fn named(name: &str) -> Result<Self, String> {
        SERVERS
            .iter()
            .find(|spec| spec.name == name)
            .cloned()
            .ok_or_else(|| {
                let names: Vec<_> = SERVERS.iter().map(|spec| spec.name).collect();
                format!("no server {name}; there are {}", names.join(", "))
            })
    }

    /// Whether the cell makes sense for it: the compress filter can only fill an empty image, and a
    /// compressed image isn't empty.
    pub fn runs(&self, cell: &Cell) -> bool {
        let fills_only = matches!(
            self.software,
            Software::Qemu {
                format: Format::Qcow2Compress,
                ..
            }
        );
        match cell.state {
            State::Fresh => !self.compressed,
            _ => !fills_only,
        }
    }
}

/// What the vDisk under test is to be.
#[derive(Debug, Clone, Copy)]
pub struct Want {
    /// Its contents.
    pub state: State,
    /// Their compressibility.
    pub kind: Kind,
    /// Its bytes.
    pub size: u64,
    /// A second vDisk, a quarter as large.
    pub neighbour: bool,
}

/// A running server with its vDisks.
pub struct Contender {
    /// What it is.
    pub spec: Spec,
    /// The process.
    pub server: Server,
    /// Of the vDisk under test.
    pub socket: PathBuf,
    /// Of the other one.
    pub neighbour: Option<PathBuf>,
    /// What lies on disk.
    pub disk: PathBuf,
    /// Versions of contents written so far.
    pub version: u32,
    /// How its vDisk was filled through it, if it was.
    pub filled: Option<Row>,
    home: PathBuf,
}

impl Contender {
    /// Starts a server in `home` and gives its vDisks the wanted contents.
    pub fn start(spec: &Spec, home: &Path, want: Want) -> Fallible<Self> {
        fs::create_dir_all(home)?;
        let mut contender = match spec.software {
            Software::Firn => start_firn(spec, home, want)?,
            Software::Qemu { format, direct } => start_qemu(spec, home, want, format, direct)?,
        };
        if let Some(socket) = contender.neighbour.clone() {
            contender.fill(&socket, neighbour_size(want.size), want.kind, false)?;
        }
        if want.state != State::Fresh && !spec.compressed {
            // Where a raw image's or a qcow2's blocks lie does not depend on the order of overwrites: they
            // get the best layout, a sequential one.
            let shuffled = want.state == State::Scattered && spec.software == Software::Firn;
            let socket = contender.socket.clone();
            let meter = Meter::new(contender.server.pid(), &contender.disk);
            let outcome = contender.fill(&socket, want.size, want.kind, shuffled)?;
            let way = match (shuffled, want.state) {
                (true, _) => "fill-scattered",
                (false, State::Cold) => "fill-cold",
                (false, _) => "fill-sequential",
            };
            let run = (spec.name, way, label(want.kind), 0);
            // A peer's image is the same in every state: one row says it.
            if want.state == State::Sequential || spec.software == Software::Firn {
                contender.filled = Some(meter.row(run, &outcome, want.size));
            }
        }
        contender.settle();
        Ok(contender)
    }

    fn fill(&mut self, socket: &Path, size: u64, kind: Kind, shuffled: bool) -> Fallible<Outcome> {
        let mut client = Client::connect(socket, options(1, 1 << 20))?;
        let outcome = load::fill(&mut client, size, Some(kind), shuffled, &mut self.version)?;
        client.stop()?;
        Ok(outcome)
    }

    /// Waits until it has no work left.
    pub fn settle(&self) {
        settle(self.server.pid());
    }

    /// Stops it and removes everything it had.
    pub fn remove(self) -> Fallible<()> {
        let home = self.home.clone();
        drop(self);
        Ok(fs::remove_dir_all(home)?)
    }
}

/// How the client connects. What it shares counts as memory of the server that touches it: no more than needed.
pub fn options(queues: u16, max_bytes: u32) -> ClientOptions {
    ClientOptions {
        queues,
        max_bytes,
        ..ClientOptions::default()
    }
}

/// Waits until a server has no work left, so that it does not disturb the next one's turn.
pub fn settle(pid: u32) {
    const STEP: Duration = Duration::from_millis(200);
    let until = Instant::now() + PATIENCE;
    let now = || measure::cpu_time(pid).unwrap_or_default();
    let mut before = now();
    while Instant::now() < until {
        std::thread::sleep(STEP);
        let after = now();
        if after - before < STEP / 10 {
            return;
        }
        before = after;
    }
}

/// Bytes of the neighbour of a vDisk.
pub fn neighbour_size(size: u64) -> u64 {
    (size / 4).next_multiple_of(1 << 20)
}

fn start_firn(spec: &Spec, home: &Path, want: Want) -> Fallible<Contender> {
    let firn = Firn::create(Binaries::find()?, home)?.with_tracer(&spec.tracer);
    let mut server = firn.serve()?;
    let mut create = |name: &str, size| -> Fallible<PathBuf> {
        firn.create_vdisk(name, size)?;
        let socket = firn.socket(name);
        server.listening(&socket, PATIENCE)?;
        Ok(socket)
    };
    let socket = create("disk", want.size)?;
    let neighbour = match want.neighbour {
        true => Some(create("neighbour", neighbour_size(want.size))?),
        false => None,
    };
    if want.state == State::Cold {
        // There is no command that ages data: write it as it would be stored then.
        let rules = home.join("cold.json");
        fs::write(&rules, COLD_RULES)?;
        firn.cli(&["rules", "set", &rules.display().to_string()])?;
    }
    Ok(Contender {
        spec: spec.clone(),
        server,
        socket,
        neighbour,
        disk: firn.store().into(),
        version: 0,
        filled: None,
        home: home.into(),
    })
}

/// Cold data, as the shipped rules would have it with all the time they want.
const COLD_RULES: &str = r#"{"rules": [
    {"name": "incompressible", "when": {"class": "incompressible"}, "use": {"codec": "none", "extent_kib": 16}},
    {"name": "cold", "use": {"codec": "zstd:3", "extent_kib": 64}}
]}"#;

fn start_qemu(
    spec: &Spec,
    home: &Path,
    want: Want,
    format: Format,
    direct: bool,
) -> Fallible<Contender> {
    let disk = home.join("images");
    fs::create_dir_all(&disk)?;
    let mut disks = vec![(disk.join("disk"), home.join("disk.sock"), want.size)];
    if want.neighbour {
        let size = neighbour_size(want.size);
        disks.push((disk.join("neighbour"), home.join("neighbour.sock"), size));
    }
    for (at, (image, _, size)) in disks.iter().enumerate() {
        match format {
            Format::Raw => File::create(image)?.set_len(*size)?,
            _ if spec.compressed && at == 0 => compressed_image(image, want)?,
            _ => create_qcow2(image, *size)?,
        }
    }
    let qemu = Qemu {
        format,
        direct,
        queues: QUEUES,
        tracer: spec.tracer.clone(),
        disks: disks
            .iter()
            .map(|(i, s, _)| (i.clone(), s.clone()))
            .collect(),
    };
    let mut server = qemu.start(&home.join("server.log"))?;
    for (_, socket, _) in &disks {
        server.listening(socket, PATIENCE)?;
    }
    let mut sockets = disks.into_iter().map(|(_, socket, _)| socket);
    Ok(Contender {
        spec: spec.clone(),
        server,
        socket: sockets.next().ok_or("no disk")?,
        neighbour: sockets.next(),
        disk,
        version: 0,
        filled: None,
        home: home.into(),
    })
}

/// Makes a compressed qcow2 image with the contents that a sequential fill gives.
fn compressed_image(image: &Path, want: Want) -> Fallible<()> {
    let raw = image.with_extension("raw");
    let mut file = File::create(&raw)?;
    let mut chunk = vec![0; 1 << 20];
    for at in 0..want.size.div_ceil(1 << 20) {
        pattern::fill(&mut chunk, want.kind, 1, at << 11, at as u32 + 1);
        file.write_all(&chunk)?;
    }
    file.set_len(want.size)?;
    convert_to_zstd(&raw, image)?;
    Ok(fs::remove_file(raw)?)
}
