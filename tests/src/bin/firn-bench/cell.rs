//! What is measured: the cells of the tables.

use firn_tests::pattern::Kind;

/// One kind of load.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// As on the command line and in the tables.
    pub name: &'static str,
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
}

const RANDOM: Cell = Cell {
    name: "",
    reads: 0,
    bytes: 4096,
    depth: 1,
    queues: 1,
    sequential: false,
    flush_each: false,
};

/// Every cell, in the order of the tables.
pub const CELLS: [Cell; 10] = [
    Cell {
        name: "randread-1",
        reads: 100,
        ..RANDOM
    },
    Cell {
        name: "randread-32",
        reads: 100,
        depth: 32,
        ..RANDOM
    },
    Cell {
        name: "randwrite-1",
        ..RANDOM
    },
    Cell {
        name: "randwrite-32",
        depth: 32,
        ..RANDOM
    },
    Cell {
        name: "randwrite-32x4",
        depth: 32,
        queues: 4,
        ..RANDOM
    },
    Cell {
        name: "writeflush",
        flush_each: true,
        ..RANDOM
    },
    Cell {
        name: "writeflush-x4",
        depth: 4,
        queues: 4,
        flush_each: true,
        ..RANDOM
    },
    Cell {
        name: "seqread",
        reads: 100,
        bytes: 1 << 20,
        depth: 4,
        sequential: true,
        ..RANDOM
    },
    Cell {
        name: "seqwrite",
        bytes: 1 << 20,
        depth: 4,
        sequential: true,
        ..RANDOM
    },
    Cell {
        name: "mixed70",
        reads: 70,
        bytes: 16 << 10,
        depth: 16,
        ..RANDOM
    },
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

/// When a cell's run ends: not before both are reached.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Seconds, at least.
    pub seconds: f64,
    /// Bytes written, at least; only for cells with [`Cell::buffered_writes`].
    pub written: u64,
}

/// The data written.
#[derive(Debug, Clone, Copy)]
pub struct Data {
    /// Compressibility.
    pub kind: Kind,
    /// Bytes of the vDisk that the load covers.
    pub span: u64,
}
