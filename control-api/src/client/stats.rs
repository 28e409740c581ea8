//! How the store's data lies, through the control API.

use super::{Client, ClientError, vdisk_path};
use crate::types::*;

/// Statistics.
impl Client {
    /// Space by temperature, and what was done since the backend started.
    pub async fn store_stats(&mut self) -> Result<StoreStats, ClientError> {
        self.get("/v1/store/stats").await
    }

    /// All layers, by number.
    pub async fn layers(&mut self) -> Result<Vec<Layer>, ClientError> {
        Ok(self.get::<LayerList>("/v1/store/layers").await?.layers)
    }

    /// What a layer costs, from `offset` on; see [`SnapshotUsage::next`].
    pub async fn layer_usage(
        &mut self,
        layer: u32,
        offset: u64,
    ) -> Result<SnapshotUsage, ClientError> {
        self.get(&format!("/v1/store/layers/{layer}/usage?offset={offset}"))
            .await
    }

    /// How fragmented a vDisk is, from `offset` on; see [`Fragmentation::next`].
    pub async fn fragmentation(
        &mut self,
        name: &str,
        offset: u64,
    ) -> Result<Fragmentation, ClientError> {
        let path = format!("/fragmentation?offset={offset}");
        self.get(&vdisk_path(name, &path)?).await
    }
}
