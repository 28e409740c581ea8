//! Subtrees that no map names any more: their entries are walked so that what they kept alive is let go.

use crate::core::Core;
use crate::error::StoreError;
use crate::format::{Dropped, FormatError};
use crate::map::{Freed, Map, Missing, NodeKey};
use crate::read::NodeRead;

/// Walks all dropped subtrees; whether there were any.
pub fn walk_all(core: &Core) -> Result<bool, StoreError> {
    let mut any = false;
    while let Some(dropped) = next(core) {
        walk(core, dropped)?;
        any = true;
    }
    Ok(any)
}

fn next(core: &Core) -> Option<Dropped> {
    core.state.lock().catalogue.dropped.last().copied()
}

/// Replaces one subtree by the subtrees below it, and lets go of its top node and, in a leaf, of its blocks. Reading is done
/// outside of the lock; the change is one critical section, so that a checkpoint sees it whole or not.
fn walk(core: &Core, dropped: Dropped) -> Result<(), StoreError> {
    let top = NodeKey::new(dropped.layer, dropped.level, dropped.number);
    let missing = Missing {
        key: top,
        at: dropped.at,
    };
    let plan = NodeRead::plan(&core.state.lock(), missing);
    let slots =
        plan.and_then(|read| read.read_now(&mut |o, l| o == l || core.state.lock().is_heir(o, l)));
    let mut state = core.state.lock();
    state.catalogue.dropped.retain(|d| *d != dropped);
    state.release(Freed::Entry(dropped.at));
    match slots {
        Ok(slots) => {
            Map::freed_by(top, &slots, &mut |f| state.release(f));
            Ok(())
        }
        Err(why) => {
            // Its blocks stay accounted for: space is lost, data is not.
            drop(state);
            let error = FormatError {
                what: "dropped map node",
                why,
            };
            log::error!("space of deleted data can't be given back: {error}");
            Ok(())
        }
    }
}
