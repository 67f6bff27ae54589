//! Checks this machine's abilities and problems.

use std::net::SocketAddr;

use crate::node::Node;
use crate::node::options::NodeOptions;
use hive_model::Compute;
use hive_stage::models;
use hive_worker::mlx_library::{self, MlxChoice};
use hive_worker::{FromWorker, LoadOrder, Targets, ToWorker, Worker, WorkerEvent, probe};

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Everything is fine.
    Good,
    /// It works, but could be better; the text says how.
    Notice(String),
    /// It does not work; the text says what to do.
    Bad(String),
}

/// One check.
#[derive(Debug, Clone)]
pub struct Check {
    /// The subject, in a word.
    pub subject: &'static str,
    /// The finding, in words.
    pub finding: String,
    /// The outcome.
    pub health: Health,
}

/// Checks everything a node needs, by using it.
pub async fn examine() -> Vec<Check> {
    vec![mlx(), compute().await, confinement().await, memory(), starter().await, network().await]
}

fn mlx() -> Check {
    let finding = match mlx_library::choose() {
        MlxChoice::Linked if cfg!(target_os = "macos") => "Metal".to_owned(),
        MlxChoice::Linked if mlx_library::computes_on_gpu() => match mlx_library::loaded() {
            Some(file) => format!("CUDA, from {}", file.display()),
            None => "CUDA".to_owned(),
        },
        MlxChoice::Linked => "CPU".to_owned(),
        MlxChoice::Cuda(folder) => format!("CUDA, from {}", folder.display()),
        MlxChoice::Folder(folder) => format!("from {}", folder.display()),
        MlxChoice::MissingCuda => "CPU, because MLX for CUDA is not here".to_owned(),
    };
    let fetch = "run `HIVEMIND_MLX=cuda ./dev setup` to fetch MLX for it".to_owned();
    let health = match mlx_library::choose() {
        MlxChoice::MissingCuda => Health::Bad(fetch),
        MlxChoice::Linked if hive_host::has_nvidia_card() && !mlx_library::computes_on_gpu() => {
            Health::Notice(format!("there is an NVIDIA card: {fetch}"))
        }
        _ => Health::Good,
    };
    Check { subject: "MLX", finding: format!("{} ({finding})", hive_model::device::MLX_VERSION), health }
}

/// Loads one layer of the starter model in a worker, which tests the process, the library and the device at once.
async fn compute() -> Check {
    let subject = "compute";
    let bad = |finding: String, hint: &str| Check { subject, finding, health: Health::Bad(hint.to_owned()) };
    let Some(path) = models::starter() else {
        return bad("not tried without a model".to_owned(), "run `./dev setup` to fetch the starter model");
    };
    let (worker, mut events) = match Worker::spawn(&path) {
        Ok(spawned) => spawned,
        Err(error) => return bad(error.to_string(), "the system refuses new processes; look at its limits"),
    };
    let order = LoadOrder { path, layers: 0..1, compute: Compute::Auto, threads: hive_host::threads(), at_load: None };
    worker.order(&ToWorker::Load(order));
    loop {
        match events.next().await {
            Some(WorkerEvent::Said(FromWorker::Loaded { device, .. })) => {
                let finding = format!("{device} kernels, {} threads", hive_host::threads());
                return Check { subject, finding, health: Health::Good };
            }
            Some(WorkerEvent::Said(FromWorker::LoadFailed(why) | FromWorker::Unfit(why))) => {
                return bad(why, "the starter model is damaged; remove it and run `./dev setup`");
            }
            Some(WorkerEvent::Said(_)) => {}
            Some(WorkerEvent::Died(how)) => {
                return bad(
                    format!("the worker ended: {how}"),
                    "MLX does not run here; set HIVEMIND_MLX=cpu to rule out the GPU",
                );
            }
            None => return bad("the worker ended".to_owned(), "run again with RUST_LOG=debug"),
        }
    }
}

/// Starts a worker that tries to break out of its sandbox.
async fn confinement() -> Check {
    let subject = "sandbox";
    // No library or model needs access to the home folder.
    let secret = std::env::home_dir().unwrap_or_else(|| "/etc/passwd".into());
    let (finding, health) = match probe(Targets { secret, folder: std::env::temp_dir() }).await {
        Ok((confinement, escapes)) if confinement.is_whole() && escapes.is_empty() => {
            ("workers read their model and reach nothing else".to_owned(), Health::Good)
        }
        Ok((_, escapes)) => (
            format!(
                "a worker still reaches: {}",
                escapes.iter().map(|escape| escape.name()).collect::<Vec<_>>().join(", ")
            ),
            Health::Notice(
                "this system can sandbox a worker only in part; on Linux that takes 5.13 or newer with landlock"
                    .to_owned(),
            ),
        ),
        Err(error) => (error.to_string(), Health::Bad("run again with RUST_LOG=debug".to_owned())),
    };
    Check { subject, finding, health }
}

fn memory() -> Check {
    const LITTLE: u64 = 1_000_000_000;
    let Some(memory) = hive_host::memory::Memory::now() else {
        let health = Health::Notice("the system does not say how much memory there is".to_owned());
        return Check { subject: "memory", finding: "unknown".to_owned(), health };
    };
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    let finding = format!("{:.1} GB free of {:.1}", gigabytes(memory.available_bytes), gigabytes(memory.total_bytes));
    let health = if memory.available_bytes < LITTLE {
        Health::Notice("close other programs before loading a model".to_owned())
    } else {
        Health::Good
    };
    Check { subject: "memory", finding, health }
}

async fn starter() -> Check {
    let (finding, health) = match models::open(None).await {
        Ok(model) => (format!("{}, {} layers", model.name(), model.card().layers()), Health::Good),
        Err(error) => (error.to_string(), Health::Bad("run `./dev setup`, which fetches the starter model".to_owned())),
    };
    Check { subject: "model", finding, health }
}

async fn network() -> Check {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let (finding, health) = match Node::start(NodeOptions::new("doctor".to_owned(), loopback)).await {
        Ok(node) => {
            node.stop().await;
            ("this machine can listen and connect".to_owned(), Health::Good)
        }
        Err(error) => (error.to_string(), Health::Bad("a firewall or a sandbox forbids UDP on 127.0.0.1".to_owned())),
    };
    Check { subject: "network", finding, health }
}
