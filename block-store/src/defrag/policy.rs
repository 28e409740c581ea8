//! Whose rules hold for what is relocated.

use crate::compress::Rules;
use crate::core::Core;
use crate::format::Catalogue;
use std::collections::HashMap;
use std::sync::Arc;

/// The compression rules of all layers, as of one moment.
#[derive(Debug, Default)]
pub struct Policies {
    store: Arc<Rules>,
    /// By layer: of vDisks that have a tag, or rules of their own.
    own: HashMap<u32, Policy>,
}

/// What holds for a layer.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// The rules.
    pub rules: Arc<Rules>,
    /// The vDisk's tag.
    pub tag: Option<String>,
}

impl Policies {
    /// Of an open store.
    pub fn of(core: &Core) -> Self {
        let (store, vdisks, layers) = {
            let state = core.state.lock();
            let catalogue = &state.catalogue;
            let vdisks = catalogue.vdisks.iter();
            let special = vdisks.filter(|v| v.rules.is_some() || !v.tag.is_empty());
            let vdisks: Vec<_> = special
                .map(|v| (v.id, v.rules.clone(), v.tag.clone()))
                .collect();
            let layers: Vec<_> = match vdisks.is_empty() {
                true => Vec::new(),
                false => layers(catalogue).collect(),
            };
            (catalogue.rules.clone(), vdisks, layers)
        };
        // What can't be read was replaced by the shipped ones when the store was opened.
        let parse = |json: &str| serde_json::from_str::<Rules>(json).unwrap_or_default();
        let store = Arc::new(store.map_or_else(Rules::default, |json| parse(&json)));
        let policy = |(id, rules, tag): (u32, Option<String>, String)| {
            let rules = rules.map_or_else(|| Arc::clone(&store), |json| Arc::new(parse(&json)));
            let tag = Some(tag).filter(|t| !t.is_empty());
            (id, Policy { rules, tag })
        };
        let of_vdisk: HashMap<u32, Policy> = vdisks.into_iter().map(policy).collect();
        let own = layers.into_iter().filter_map(|(layer, vdisk)| {
            let policy = of_vdisk.get(&vdisk)?;
            Some((layer, policy.clone()))
        });
        Self {
            own: own.collect(),
            store,
        }
    }

    /// Of a layer.
    pub fn of_layer(&self, layer: u32) -> Policy {
        self.own.get(&layer).cloned().unwrap_or_else(|| Policy {
            rules: Arc::clone(&self.store),
            tag: None,
        })
    }

    /// The age in seconds from which on some rule looks at data again; `None`: no rule asks for age.
    pub fn cold_from(&self) -> Option<u64> {
        let own = self.own.values().map(|p| &p.rules);
        let all = own.chain([&self.store]).flat_map(|r| &r.rules);
        all.filter_map(|rule| rule.when.min_age_secs).min()
    }
}

/// Layers and the vDisks that they are of, as far as they have a name.
fn layers(catalogue: &Catalogue) -> impl Iterator<Item = (u32, u32)> {
    let live = catalogue.vdisks.iter().map(|v| (v.layer, v.id));
    live.chain(catalogue.snapshots.iter().map(|s| (s.layer, s.vdisk)))
}
