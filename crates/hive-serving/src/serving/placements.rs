//! Writes `placements.json`: where the models in memory are, and the manual plans.
//!
//! A node that was killed restores what it had in memory (`restore.rs`). A node that was stopped cleanly has freed its
//! models, and keeps only the manual plans.

use std::sync::{MutexGuard, PoisonError};

use hive_ring::Ring;

use super::{Loaded, Serving};
use crate::model_request::ModelRequest;
use crate::placed::{FILE, PlacedLayers, PlacedModel, Placements};

impl Serving {
    /// The manual plan for a request.
    pub(super) fn manual_plan(&self, wanted: &ModelRequest) -> Option<Vec<PlacedLayers>> {
        self.manual().iter().find(|placed| placed.wanted == *wanted).map(|placed| placed.stages.clone())
    }

    /// Sets or clears the manual plan for a request; returns the previous one.
    pub(super) fn set_manual_plan(
        &self,
        wanted: &ModelRequest,
        stages: Option<Vec<PlacedLayers>>,
    ) -> Option<Vec<PlacedLayers>> {
        let before = self.manual_plan(wanted);
        {
            let mut manual = self.manual();
            manual.retain(|placed| placed.wanted != *wanted);
            manual.extend(stages.map(|stages| PlacedModel { wanted: wanted.clone(), stages }));
        }
        self.host().placements().notify();
        before
    }

    pub(super) fn manual(&self) -> MutexGuard<'_, Vec<PlacedModel>> {
        self.inner.manual.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file's contents, as of now.
    pub(super) fn placements(&self) -> Placements {
        let placed =
            |Loaded { wanted, ring, .. }: &Loaded| PlacedModel { wanted: wanted.clone(), stages: stages(ring) };
        let mut in_memory: Vec<_> = {
            let loaded = self.loaded();
            loaded.iter().filter(|loaded| !loaded.ring.is_abandoned()).map(placed).collect()
        };
        // Models that are still to be restored, unless a question has loaded them meanwhile.
        let waiting = self.inner.restoring.borrow();
        let is_missing = |placed: &&PlacedModel| in_memory.iter().all(|other| other.wanted != placed.wanted);
        let missing: Vec<_> = waiting.iter().filter(is_missing).cloned().collect();
        in_memory.extend(missing);
        Placements { in_memory, manual: self.manual().clone() }
    }
}

/// The stages of a loaded model.
pub(super) fn stages(ring: &Ring) -> Vec<PlacedLayers> {
    let placed = ring.stages().into_iter().map(|stage| PlacedLayers {
        machine: stage.placement.addr.id(),
        name: stage.placement.name,
        layers: [stage.layers.start, stage.layers.end],
    });
    placed.collect()
}

/// Whether a loaded model is placed as written.
pub(super) fn is_where(ring: &Ring, written: &[PlacedLayers]) -> bool {
    // Names are ignored, since machines can be renamed.
    let place = |placed: &PlacedLayers| (placed.machine, placed.layers);
    stages(ring).iter().map(place).eq(written.iter().map(place))
}

impl Serving {
    /// Keeps the file up to date until the node stops.
    pub async fn keep_placements(&self) {
        let mut changes = self.host().placements().subscribe();
        loop {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = self.member().stopping() => return,
            }
            // Not while a model is being loaded, since loading it may crash this process.
            let _placing = self.inner.placing.lock().await;
            self.write_placements(self.placements());
        }
    }

    /// Writes the file, if its content changes.
    pub fn write_placements(&self, placements: Placements) {
        let mut on_disk = self.inner.on_disk.lock().unwrap_or_else(PoisonError::into_inner);
        if *on_disk == placements {
            return;
        }
        match self.member().save(FILE, &placements) {
            Ok(()) => *on_disk = placements,
            Err(error) => tracing::warn!("where models are placed was not kept: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_newer_version_has_written_is_read_as_far_as_it_is_known() {
        let layers =
            PlacedLayers { machine: hive_net::Identity::generate().id(), name: "ann".to_owned(), layers: [0, 30] };
        let placed = PlacedModel { wanted: ModelRequest { model: None, stages: Some(1) }, stages: vec![layers] };
        let placements = Placements { in_memory: vec![placed.clone()], manual: vec![placed] };
        let mut written = serde_json::to_value(&placements).unwrap();
        for place in ["", "/in_memory/0", "/in_memory/0/wish", "/by_hand/0/stages/0"] {
            written.pointer_mut(place).unwrap()["of_tomorrow"] = serde_json::json!({ "x": [1] });
        }
        assert_eq!(serde_json::from_value::<Placements>(written).unwrap(), placements);
    }
}
