//! Subtrees that no map names any more: their entries are walked so that what they kept alive is let go.

use crate::core::Core;
use crate::error::StoreError;
use crate::format::Dropped;
use crate::map::{Freed, Map, Missing, NodeKey};
use crate::read::NodeRead;

/// How a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walk {
    /// Nodes walked.
    pub nodes: usize,
    /// Whether any are left.
    pub more: bool,
}

/// Walks at most `limit` nodes of dropped subtrees: checkpoints must not wait for a large delete.
pub fn walk(core: &Core, limit: usize) -> Result<Walk, StoreError> {
    let mut nodes = 0;
    while nodes < limit {
        let Some(dropped) = core.state.lock().catalogue.dropped.last().copied() else {
            return Ok(Walk { nodes, more: false });
        };
        walk_node(core, dropped);
        nodes += 1;
    }
    Ok(Walk {
        nodes,
        more: !core.state.lock().catalogue.dropped.is_empty(),
    })
}

/// Replaces one subtree by the subtrees below it, and lets go of its top node and, in a leaf, of its blocks. Reading is
/// done outside of the lock; the change is one critical section, so that a checkpoint sees it whole or not.
fn walk_node(core: &Core, dropped: Dropped) {
    let top = NodeKey::new(dropped.layer, dropped.level, dropped.number);
    let missing = Missing {
        key: top,
        at: dropped.at,
    };
    let plan = NodeRead::plan(&core.state.lock(), missing);
    let slots =
        plan.and_then(|read| read.read_now(&mut |o, l| o == l || core.state.lock().is_heir(o, l)));
    let mut state = core.state.lock();
    // Others only push: it is still at or near the end.
    if let Some(n) = state.catalogue.dropped.iter().rposition(|d| *d == dropped) {
        state.catalogue.dropped.swap_remove(n);
    }
    state.release(Freed::Entry(dropped.at));
    match slots {
        Ok(slots) => Map::freed_by(top, &slots, &mut |f| state.release(f)),
        // Its blocks stay accounted for: space is lost, data is not.
        Err(why) => log::error!("space of deleted data can't be given back: {why}"),
    }
}
