//! What is measured: the cells of the tables.

/// What a vDisk holds before a cell's first round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All of it, written from its start to its end, 1 MiB at a time.
    Sequential,
    /// All of it, every 4 KiB block once and in random order.
    Scattered,
    /// All of it, stored as the store leaves it when it has had time: zstd over 64 KiB.
    Cold,
    /// Nothing, and anew for each run.
    Fresh,
}

/// One kind of load.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// As on the command line and in the tables.
    pub name: &'static str,
    /// What it is, for people.
    pub about: &'static str,
    /// On what.
    pub state: State,
    /// Per cent of reads among the requests.
    pub reads: u8,
    /// Bytes per request.
    pub bytes: u32,
    /// Requests in flight, over all queues.
    pub depth: u16,
    /// Virtqueues.
    pub queues: u16,
    /// One after the other, or anywhere.
    pub sequential: bool,
    /// A flush after each write; both count as one operation.
    pub flush_each: bool,
    /// While a second vDisk of the same server is written sequentially, 1 MiB at a time.
    pub neighbour: bool,
    /// What Firn's ratio to the raw image is to be at least, on 2.0-compressible data; 0 for none.
    pub bar: f64,
}

/// What Firn's ratio to the raw image is to be at least on incompressible data, in every cell with a bar.
pub const BAR_INCOMPRESSIBLE: f64 = 0.9;

const RANDOM: Cell = Cell {
    name: "",
    about: "",
    state: State::Sequential,
    reads: 0,
    bytes: 4096,
    depth: 1,
    queues: 1,
    sequential: false,
    flush_each: false,
    neighbour: false,
    bar: 0.0,
};

const READ: Cell = Cell {
    reads: 100,
    ..RANDOM
};

const STREAM: Cell = Cell {
    bytes: 1 << 20,
    depth: 4,
    sequential: true,
    ..RANDOM
};

/// The neighbour's load.
pub const NEIGHBOUR: Cell = Cell {
    name: "neighbour",
    ..STREAM
};

/// Every cell, in the order of the tables. Those of one state stand together, reads before writes.
#[rustfmt::skip]
pub const CELLS: [Cell; 16] = [
    Cell { name: "randread-1", about: "random 4 KiB reads, depth 1", bar: 1.1, ..READ },
    Cell { name: "randread-32", about: "random 4 KiB reads, depth 32", depth: 32, bar: 1.1, ..READ },
    Cell { name: "seqread", about: "sequential 1 MiB reads, depth 4", reads: 100, bar: 1.4, ..STREAM },
    Cell { name: "randwrite-1", about: "random 4 KiB writes, depth 1", bar: 3.0, ..RANDOM },
    Cell { name: "randwrite-32", about: "random 4 KiB writes, depth 32", depth: 32, bar: 2.0, ..RANDOM },
    Cell { name: "randwrite-32x4", about: "random 4 KiB writes, depth 32 over 4 queues", depth: 32, queues: 4, ..RANDOM },
    Cell { name: "mixed70", about: "70 % reads, 30 % writes, random 16 KiB, depth 16", reads: 70, bytes: 16 << 10, depth: 16, bar: 1.3, ..RANDOM },
    Cell { name: "writeflush", about: "a write and a flush, depth 1", flush_each: true, bar: 1.3, ..RANDOM },
    Cell { name: "writeflush-x4", about: "a write and a flush, 4 queues", flush_each: true, depth: 4, queues: 4, bar: 2.5, ..RANDOM },
    Cell { name: "writeflush-beside", about: "a write and a flush, depth 1, beside a streaming vDisk", flush_each: true, neighbour: true, ..RANDOM },
    Cell { name: "seqwrite", about: "sequential 1 MiB writes over old data, depth 4", bar: 0.45, ..STREAM },
    Cell { name: "randread-1-scattered", about: "the same on data written in random order", state: State::Scattered, bar: 1.1, ..READ },
    Cell { name: "randread-32-scattered", about: "the same, depth 32", state: State::Scattered, depth: 32, bar: 1.1, ..READ },
    Cell { name: "randread-1-cold", about: "the same on cold data: zstd over 64 KiB", state: State::Cold, bar: 0.5, ..READ },
    Cell { name: "randread-32-cold", about: "the same, depth 32", state: State::Cold, depth: 32, bar: 0.5, ..READ },
    Cell { name: "seqwrite-fresh", about: "sequential 1 MiB writes to an empty vDisk, depth 4", state: State::Fresh, bar: 0.45, ..STREAM },
];

impl Cell {
    /// The cell of a name.
    pub fn named(name: &str) -> Result<Self, String> {
        CELLS
            .iter()
            .find(|cell| cell.name == name)
            .cloned()
            .ok_or_else(|| {
                let names: Vec<_> = CELLS.iter().map(|cell| cell.name).collect();
                format!("no cell {name}; there are {}", names.join(", "))
            })
    }

    /// Whether it writes without flushing at once, so that a write buffer could hide what it costs.
    pub fn buffered_writes(&self) -> bool {
        self.reads < 100 && !self.flush_each
    }
}
