//! Several nodes on this machine that trust each other, as `--stages N` starts them.

use std::net::SocketAddr;

use hive_model::Compute;
use hive_plan::{Machine, Plan, PlanError};

use hive_peers::{Placement, StartError};
use hive_ring::{Ring, RingError, RingOptions};
use hive_stage::planning::{self, plan_over};
use hive_worker::mlx_library;
use hive_worker::text::{Model, ModelCard};

use crate::node::Node;
use crate::node::options::NodeOptions;

/// What to start.
#[derive(Debug, Clone)]
pub struct SwarmOptions {
    /// Number of nodes, and of stages.
    pub stages: usize,
    /// The first node's address. If its port is not 0, the others take the ports after it.
    pub bind: SocketAddr,
    /// How the model is loaded.
    pub ring: RingOptions,
}

/// Why a swarm did not start.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// The request cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A node did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The model did not load.
    #[error(transparent)]
    Ring(#[from] RingError),
}

/// Nodes on this machine with one model loaded over them.
pub struct LocalSwarm {
    nodes: Vec<Node>,
    ring: Ring,
    plan: Plan,
}

impl LocalSwarm {
    /// Starts the nodes and loads the model; `progress` hears how many layers are loaded.
    pub async fn start(
        model: Model,
        options: SwarmOptions,
        progress: impl FnMut(usize) + Send,
    ) -> Result<Self, SwarmError> {
        // Planning comes first: it needs no process, so impossible requests fail immediately.
        let plan = plan_for(model.card(), options.stages, options.ring.compute)?;
        let mut nodes = Vec::with_capacity(options.stages);
        for index in 0..options.stages {
            let mut bind = options.bind;
            if bind.port() != 0 {
                bind.set_port(bind.port().saturating_add(index as u16));
            }
            let node = NodeOptions { trust_paths: true, ..NodeOptions::new(name(index, options.stages), bind) };
            match Node::start(node).await {
                Ok(node) => nodes.push(node),
                Err(error) => {
                    stop(&nodes).await;
                    return Err(error.into());
                }
            }
        }
        for node in &nodes {
            for other in &nodes {
                node.allow(&other.addr());
            }
        }
        let place = |node: &Node| {
            let gpu = node.profile().gpu;
            Placement { name: node.name().to_owned(), addr: node.addr(), gpu }
        };
        let placements: Vec<_> = nodes.iter().map(place).collect();
        match Ring::load(nodes[0].as_ref(), model, &plan, &placements, options.ring, progress).await {
            Ok(ring) => Ok(Self { nodes, ring, plan }),
            Err(error) => {
                stop(&nodes).await;
                Err(error.into())
            }
        }
    }

    /// The loaded model.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The plan by which it is loaded.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Stops all nodes.
    pub async fn stop(self) {
        self.ring.unload().await;
        stop(&self.nodes).await;
    }
}

async fn stop(nodes: &[Node]) {
    for node in nodes {
        node.stop().await;
    }
}

fn name(index: usize, of: usize) -> String {
    let machine = hive_host::name();
    if of == 1 { machine } else { format!("{machine} {}", index + 1) }
}

/// Splits a model evenly over the nodes on this machine.
pub fn plan(model: &ModelCard, stages: usize) -> Result<Plan, PlanError> {
    plan_for(model, stages, Compute::Auto)
}

fn plan_for(model: &ModelCard, stages: usize, compute: Compute) -> Result<Plan, PlanError> {
    let form = planning::form(compute, mlx_library::computes_on_gpu());
    let memory = hive_host::Memory::now().map_or(u64::MAX, |memory| memory.available_bytes);
    let machines: Vec<_> =
        (0..stages).map(|index| Machine { name: name(index, stages), memory_bytes: memory, form }).collect();
    plan_over(model, &machines)
}
