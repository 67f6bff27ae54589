//! How fast this machine computes: measured once with the starter model and remembered, so that machines can report a
//! speed before they have run part of a large model.

use std::time::{Duration, Instant};

use hive_model::shard::{Input, Output};
use hive_model::{Compute, SessionId, SessionOptions};

use hive_peers::Speed;
use hive_stage::{StageHost, models, planning};
use hive_worker::mlx_library;
use hive_worker::{FromWorker, LoadOrder, ToWorker, Work, Worker, WorkerEvent};

/// Tokens of the prompt, and of the answer, that are timed.
const PROMPT: usize = 128;
const ANSWER: u32 = 24;
/// If the measurement takes longer than this, the machine has other problems.
const MEASURING_TIMEOUT: Duration = Duration::from_mins(1);
/// Delay after the start of the node, which has better things to do.
const SETTLED: Duration = Duration::from_secs(3);

/// Measures once the node has settled and nothing else computes, and stores the result.
pub(crate) async fn find_out(host: StageHost) {
    tokio::select! {
        () = tokio::time::sleep(SETTLED) => {}
        () = host.membership().stopping() => return,
    }
    while host.is_busy() {
        tokio::time::sleep(SETTLED).await;
    }
    let Some(path) = models::starter().filter(|path| path.is_file()) else { return };
    let measured = tokio::select! {
        measured = tokio::time::timeout(MEASURING_TIMEOUT, measure(path)) => measured.ok().flatten(),
        () = host.membership().stopping() => return,
    };
    if let Some(speed) = measured {
        host.membership().computes_at(&speed);
    }
}

async fn measure(path: std::path::PathBuf) -> Option<Speed> {
    let (worker, mut events) = Worker::spawn(&path).ok()?;
    let model = models::open_at(&path).await.ok()?;
    let card = model.card();
    let form = planning::form(Compute::Auto, mlx_library::computes_on_gpu());
    let bytes_per_token = planning::read_bytes(card, form);
    let order = LoadOrder {
        path,
        layers: 0..card.layers(),
        compute: Compute::Auto,
        threads: hive_host::threads(),
        at_load: None,
    };
    worker.order(&ToWorker::Load(order));
    loop {
        match events.next().await? {
            WorkerEvent::Said(FromWorker::Loaded { .. }) => break,
            WorkerEvent::Said(FromWorker::LoadFailed(_) | FromWorker::Unfit(_)) => return None,
            _ => {}
        }
    }
    let session = SessionId(0);
    worker.order(&ToWorker::Open(session, SessionOptions::default()));
    let mut step = async |position: u32, tokens: Vec<u32>| {
        let input = Input::Tokens(tokens);
        worker.order(&ToWorker::Forward(Work { session, position, sample: true, input }));
        loop {
            match events.next().await? {
                WorkerEvent::Said(FromWorker::Output { output: Output::Token(sampled), .. }) => {
                    return Some(sampled.token);
                }
                WorkerEvent::Said(FromWorker::Failed { .. }) | WorkerEvent::Died(_) => return None,
                WorkerEvent::Said(_) => {}
            }
        }
    };
    // A warm-up run: the first use of memory and kernels is slower.
    step(0, vec![1]).await?;
    let started = Instant::now();
    let mut token = step(1, (0..PROMPT as u32).map(|token| token + 100).collect()).await?;
    let prefill = started.elapsed();
    let started = Instant::now();
    for index in 0..ANSWER {
        token = step(1 + PROMPT as u32 + index, vec![token]).await?;
    }
    let decode = started.elapsed();
    let decode_tokens_per_s = f64::from(ANSWER) / decode.as_secs_f64();
    let bytes_per_s = decode_tokens_per_s * bytes_per_token as f64;
    Some(Speed::here(decode_tokens_per_s, bytes_per_s, PROMPT as f64 / prefill.as_secs_f64()))
}
