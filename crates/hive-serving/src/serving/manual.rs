//! Manual plans: which layers go to which machine.
//!
//! A manual plan is validated in full before anything is loaded, and stays in effect until the model is unloaded. While
//! it cannot be followed, because a machine is absent or offers too little memory, the model is placed by a computed
//! plan.

use std::ops::Range;

use hive_peers::{Called, Candidate, Placement, Scope, between, find};
use hive_plan::{LinkProfile, NodeProfile, Plan};
use hive_ring::Ring;
use hive_stage::{models, planning};
use hive_types::{Reason, StageLayers};
use hive_worker::text::{Model, ModelCard};

use super::{Serving, held_by};
use crate::error::{ManualPlanError, ServeError};
use crate::model_request::ModelRequest;
use crate::placed::PlacedLayers;

impl Serving {
    /// Loads a model by a manual plan, and keeps that plan in effect.
    pub async fn load_model_manually(&self, name: &str, stages: &[StageLayers]) -> Result<(), ServeError> {
        let wanted = self.usual(&ModelRequest::named(name));
        let model = self.host().open_model(wanted.model.as_deref()).await?;
        let placed = self.resolve(stages)?;
        let unused = self.unused_beside(&wanted);
        self.as_written(&model, &wanted, &placed, &unused)?;
        let before = self.set_manual_plan(&wanted, Some(placed));
        // Not with others who wait: they may have begun by another plan.
        let loaded = self.model_with_retries(&wanted).await;
        if loaded.is_err() {
            self.set_manual_plan(&wanted, before);
        }
        loaded.map(|_| ())
    }

    /// Resolves the names of the plan's machines.
    fn resolve(&self, stages: &[StageLayers]) -> Result<Vec<PlacedLayers>, ManualPlanError> {
        let mut machines = self.member().peers().called();
        machines.push(Called::new(self.member().id(), self.member().name().to_owned()));
        let placed = |stage: &StageLayers| {
            let machine = find(&machines, &stage.node)?;
            let name = if machine == self.member().id() {
                self.member().name().to_owned()
            } else {
                self.member().peers().name(machine)
            };
            Ok(PlacedLayers { machine, name, layers: stage.layers })
        };
        stages.iter().map(placed).collect()
    }

    /// The plan that puts a model where `written` says, if that is possible once the memory of `freed` is free.
    pub(super) fn as_written(
        &self,
        model: &Model,
        wanted: &ModelRequest,
        written: &[PlacedLayers],
        freed: &[Ring],
    ) -> Result<(Plan, Vec<Placement>), ManualPlanError> {
        let source = models::source(wanted.model.as_deref(), model);
        // People chose these machines, so load failures do not exclude them.
        let machines = self.member().candidates(Some(&source), &held_by(freed), Scope::WithLoadFailures);
        let nodes: Vec<_> = machines.iter().map(|machine| machine.profile.clone()).collect();
        let is_used = |placed: &PlacedLayers| machines.iter().any(|one| one.placement.addr.id() == placed.machine);
        if let Some(missing) = written.iter().find(|placed| !is_used(placed)) {
            let why = self.member().exclusion_of(missing.machine, &source);
            return Err(ManualPlanError::Excluded(why.unwrap_or_else(|| not_there(&missing.name))));
        }
        let plan = arrange(model.card(), &machines, &nodes, written)?;
        Ok((plan, machines.into_iter().map(|machine| machine.placement).collect()))
    }
}

fn not_there(machine: &str) -> Reason {
    Reason::NotThere { machine: machine.to_owned() }
}

/// Like [`Serving::as_written`], for these machines.
pub(super) fn arrange(
    model: &ModelCard,
    machines: &[Candidate],
    nodes: &[NodeProfile],
    written: &[PlacedLayers],
) -> Result<Plan, ManualPlanError> {
    let stage = |placed: &PlacedLayers| -> Result<(usize, Range<usize>), ManualPlanError> {
        let place = machines.iter().position(|machine| machine.placement.addr.id() == placed.machine);
        let [first, end] = placed.layers;
        Ok((place.ok_or_else(|| ManualPlanError::Excluded(not_there(&placed.name)))?, first..end))
    };
    let stages = written.iter().map(stage).collect::<Result<Vec<_>, _>>()?;
    let link = |a: usize, b: usize| -> LinkProfile { between(&machines[a], &machines[b]) };
    Ok(planning::arrange(model, nodes, &link, &stages)?)
}
