//! The catalogue: vDisks, layers, snapshots and the store's settings, as of a checkpoint.
//!
//! It is small (some hundred bytes per vDisk and layer) and read whole at start, so it is JSON, compressed
//! with zstd and cut into records; `docs/disk-format.md`, section "Catalogue", lists the fields.

use super::{
    Aliases, BLOCK, FormatError, MAX_BLOCKS, MAX_CUT_ROWS, MAX_EVERY, MIN_EVERY, ScheduleRow,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use uuid::Uuid;

/// Largest catalogue in bytes before compression that a decoder takes in, and so an encoder gives out.
const MAX_JSON: usize = 256 << 20;
const LEVEL: i32 = 1;
const WHAT: &str = "catalogue";

/// A vDisk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VDiskRow {
    /// Number within the store, never reused.
    pub id: u32,
    /// Its UUID; what a guest reads as the serial is derived from it.
    pub uuid: Uuid,
    /// Its name, unique among visible ones.
    pub name: String,
    /// Address range in bytes, a multiple of 512.
    pub size: u64,
    /// The layer that writes go to.
    pub layer: u32,
    /// Whether the guest may rely on FLUSH; else every write is durable before it completes.
    pub write_cache: bool,
    /// Being imported: vanishes when the store is opened again.
    pub hidden: bool,
    /// Seconds since 1970.
    pub created: u64,
    /// Free text that rules can match on.
    #[serde(default)]
    pub tag: String,
    /// Rules of its own in front of the store's, as JSON text.
    #[serde(default)]
    pub rules: Option<String>,
    /// It is being made independent of the vDisk that it was cloned from.
    #[serde(default)]
    pub flatten: bool,
    /// Who uses it, or did last, as far as anybody has said.
    #[serde(default)]
    pub used: Option<UseRow>,
}

/// Who uses a vDisk. Others say so and read it; nothing here depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UseRow {
    /// Name of the virtual machine.
    pub by: String,
    /// Its UUID.
    pub uuid: Uuid,
    /// What it does: a word of whoever says so.
    pub state: String,
    /// Why it does not run any more, likewise.
    #[serde(default)]
    pub reason: Option<String>,
    /// Seconds since 1970.
    pub since: u64,
}

/// A layer: the root of one sparse block map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerRow {
    /// Number within the store, never reused; extents name it.
    pub id: u32,
    /// Its UUID, for other sites.
    pub uuid: Uuid,
    /// The layer that absent blocks are looked up in.
    pub parent: Option<u32>,
    /// Packed entry of the root node.
    pub root: u64,
    /// Generation of the oldest segment that can hold something of it.
    #[serde(default)]
    pub since: u64,
}

/// A snapshot: a name for a sealed layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotRow {
    /// Its UUID.
    pub uuid: Uuid,
    /// Its name, unique within the vDisk.
    pub name: String,
    /// The vDisk it was taken of.
    pub vdisk: u32,
    /// The sealed layer.
    pub layer: u32,
    /// Address range in bytes that the vDisk had.
    pub size: u64,
    /// The instant of the cut; equal for all vDisks of a consistency group.
    pub lsn: u64,
    /// Seconds since 1970.
    pub created: u64,
    /// Names of those who need it: while there is one, it is not deleted.
    #[serde(default)]
    pub holds: Vec<String>,
    /// Name of the schedule that took it, and may delete it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
}

/// A subtree that no map names any more and whose entries still count as live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The layer it was written for.
    pub layer: u32,
    /// Level of its top node, 0 for a leaf.
    pub level: u8,
    /// Number of its top node within the level.
    pub number: u64,
    /// Packed entry of its top node.
    pub at: u64,
}

/// Everything a store knows besides blocks.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Catalogue {
    /// The next vDisk's number.
    pub next_vdisk: u32,
    /// The next layer's number; 0 is never used.
    pub next_layer: u32,
    /// By number.
    pub vdisks: Vec<VDiskRow>,
    /// By number.
    pub layers: BTreeMap<u32, LayerRow>,
    /// In order of creation.
    pub snapshots: Vec<SnapshotRow>,
    /// In order of creation.
    #[serde(default)]
    pub schedules: Vec<ScheduleRow>,
    /// Of merged layers.
    pub aliases: Aliases,
    /// Work of the reclaimer that was not finished.
    pub dropped: Vec<Dropped>,
    /// The store's compression rules as JSON text; absent: the shipped ones.
    pub rules: Option<String>,
    /// How far checking what is stored has got, and what it has found, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrub: Option<String>,
}

impl Catalogue {
    /// Compressed bytes, to be cut into records. Refuses what could not be decoded again: it would be noticed by the next opening.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let json = serde_json::to_vec(self).map_err(|e| FormatError::new(WHAT, e.to_string()))?;
        let len = json.len();
        if len > MAX_JSON {
            let why = format!("it has grown to {len} bytes, {MAX_JSON} can be read again");
            return Err(FormatError::new(WHAT, why));
        }
        let mut out = Vec::with_capacity(8 + json.len() / 4);
        out.extend_from_slice(&(json.len() as u64).to_le_bytes());
        out.extend(
            zstd::bulk::compress(&json, LEVEL)
                .map_err(|e| FormatError::new(WHAT, e.to_string()))?,
        );
        Ok(out)
    }

    /// Whether data written for `origin` may be read as `layer`'s: it is, or both were merged into one.
    pub fn is_heir(&self, origin: u32, layer: u32) -> bool {
        origin == layer || self.aliases.heir(origin) == self.aliases.heir(layer)
    }

    /// Decodes and checks references between rows.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let bad = |why: String| FormatError::new(WHAT, why);
        let (len, packed) = bytes
            .split_first_chunk::<8>()
            .ok_or_else(|| bad("empty".into()))?;
        let len = usize::try_from(u64::from_le_bytes(*len)).unwrap_or(usize::MAX);
        if len > MAX_JSON {
            return Err(bad(format!("claims {len} bytes")));
        }
        let json = zstd::bulk::decompress(packed, len).map_err(|e| bad(e.to_string()))?;
        let catalogue: Self = serde_json::from_slice(&json).map_err(|e| bad(e.to_string()))?;
        catalogue.check()?;
        Ok(catalogue)
    }

    fn check(&self) -> Result<(), FormatError> {
        let bad = |why: String| Err(FormatError::new(WHAT, why));
        if self.next_vdisk.max(self.next_layer) > u32::MAX / 2 {
            return bad("numbers that no store has reached".into());
        }
        let (mut ids, mut names, mut tops) = (HashSet::new(), HashSet::new(), HashSet::new());
        for v in &self.vdisks {
            if v.id >= self.next_vdisk
                || v.size > MAX_BLOCKS * BLOCK as u64
                || !(ids.insert(v.id) && names.insert(&v.name) && tops.insert(v.layer))
            {
                return bad(format!("vDisk {} has an impossible row", v.name));
            }
            if !self.layers.contains_key(&v.layer) {
                return Err(FormatError::new(
                    WHAT,
                    format!("vDisk {} names layer {} that is not there", v.name, v.layer),
                ));
            }
        }
        for (id, layer) in &self.layers {
            if layer.id != *id || *id >= self.next_layer {
                return bad(format!("layer {id} has an impossible number"));
            }
            // A parent is always older than its child: this also rules out loops.
            if layer
                .parent
                .is_some_and(|p| p >= *id || !self.layers.contains_key(&p))
            {
                return Err(FormatError::new(
                    WHAT,
                    format!("layer {id} has an impossible parent"),
                ));
            }
        }
        let mut names = HashSet::new();
        for s in &self.snapshots {
            if !ids.contains(&s.vdisk)
                || !self.layers.contains_key(&s.layer)
                || tops.contains(&s.layer)
                || s.size > MAX_BLOCKS * BLOCK as u64
                || !names.insert((s.vdisk, &s.name))
            {
                return bad(format!("snapshot {} has an impossible row", s.name));
            }
        }
        // Those that are hidden are dropped when the store is opened.
        let shown = self.vdisks.iter().filter(|v| !v.hidden).map(|v| v.id);
        let shown: HashSet<u32> = shown.collect();
        let mut names = HashSet::new();
        for s in &self.schedules {
            if !names.insert(&s.name)
                || !(MIN_EVERY..=MAX_EVERY).contains(&s.every)
                || s.vdisks.is_empty()
                || s.vdisks.len() > MAX_CUT_ROWS
                || !s.vdisks.iter().all(|v| shown.contains(v))
            {
                return bad(format!("schedule {} has an impossible row", s.name));
            }
        }
        if let Some(alias) = self.aliases.iter().find(|a| a.to <= a.from) {
            return bad(format!("layer {} is its own heir", alias.from));
        }
        for d in &self.dropped {
            if d.level > 3 || d.number >= 1 << (27 - 9 * u32::from(d.level)) {
                return bad(format!("a dropped node {} of level {}", d.number, d.level));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_broken_references() {
        let mut c = Catalogue {
            next_layer: 3,
            ..Catalogue::default()
        };
        let row = LayerRow {
            id: 1,
            uuid: Uuid::nil(),
            parent: None,
            root: 0,
            since: 0,
        };
        c.layers.insert(1, row.clone());
        c.layers.insert(
            2,
            LayerRow {
                id: 2,
                parent: Some(1),
                ..row
            },
        );
        let bytes = c.encode().unwrap();
        assert_eq!(Catalogue::decode(&bytes), Ok(c.clone()));
        c.layers.get_mut(&1).unwrap().parent = Some(2);
        assert!(Catalogue::decode(&c.encode().unwrap()).is_err());
        assert!(Catalogue::decode(&bytes[..20]).is_err());
        assert!(Catalogue::decode(&[0xff; 40]).is_err());
    }

    /// A checkpoint that no opening takes in must not be taken.
    #[test]
    fn what_could_not_be_decoded_is_not_encoded() {
        let of = |len| Catalogue {
            rules: Some("r".repeat(len)),
            next_layer: 1,
            ..Catalogue::default()
        };
        let empty = serde_json::to_vec(&of(0)).unwrap().len();
        let most = of(MAX_JSON - empty).encode().unwrap();
        assert!(Catalogue::decode(&most).is_ok());
        let error = of(MAX_JSON - empty + 1).encode().unwrap_err();
        assert!(error.to_string().contains("268435457 bytes"), "{error}");
    }

    #[test]
    fn schedules_that_can_not_be() {
        use crate::format::Keep;
        let vdisk = |id, hidden| VDiskRow {
            id,
            uuid: Uuid::nil(),
            name: id.to_string(),
            size: 4096,
            layer: id + 1,
            write_cache: true,
            hidden,
            created: 0,
            tag: String::new(),
            rules: None,
            flatten: false,
            used: None,
        };
        let layer = |id| LayerRow {
            id,
            uuid: Uuid::nil(),
            parent: None,
            root: 0,
            since: 0,
        };
        let row = |change: &dyn Fn(&mut ScheduleRow)| {
            let mut row = ScheduleRow {
                name: "s".into(),
                vdisks: vec![0],
                every: 60,
                prefix: "s".into(),
                keep: Keep::default(),
                created: 0,
                slot: 0,
                taken: 0,
                missed: 0,
            };
            change(&mut row);
            row
        };
        let decoded = |schedules: Vec<ScheduleRow>| {
            let c = Catalogue {
                next_vdisk: 2,
                next_layer: 3,
                vdisks: vec![vdisk(0, false), vdisk(1, true)],
                layers: BTreeMap::from([(1, layer(1)), (2, layer(2))]),
                schedules,
                ..Catalogue::default()
            };
            Catalogue::decode(&c.encode().unwrap())
        };
        assert!(decoded(vec![row(&|_| {})]).is_ok());
        assert!(decoded(vec![row(&|_| {}), row(&|_| {})]).is_err());
        for bad in [
            row(&|s| s.every = 0),
            row(&|s| s.every = MAX_EVERY + 1),
            row(&|s| s.vdisks.clear()),
            row(&|s| s.vdisks.push(7)),
            // It would be gone once the store is open.
            row(&|s| s.vdisks.push(1)),
            row(&|s| s.vdisks = vec![0; MAX_CUT_ROWS + 1]),
        ] {
            assert!(decoded(vec![bad.clone()]).is_err(), "{bad:?}");
        }
    }
}
