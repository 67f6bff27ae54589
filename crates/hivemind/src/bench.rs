//! `hivemind bench`: measures a model's speed on this machine and the cost of a hop between stages.

use std::time::Duration;

use clap::Args;
use hive_node::{Event, LocalSwarm, Request, StageReport, Summary};
use serde_json::{Value, json};

use crate::swarm::RunOptions;
use crate::{Failure, output, swarm, values};

#[derive(Debug, Args)]
pub(crate) struct BenchOptions {
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// Prompt length, in tokens
    #[arg(
        long,
        default_value_t = 512,
        value_name = "N",
        value_parser = values::number("a number of tokens, at least 1", 1_u32..),
        allow_negative_numbers = true
    )]
    pub(crate) prompt_tokens: u32,
    /// Answer length, in tokens
    #[arg(
        long,
        default_value_t = 64,
        value_name = "N",
        value_parser = values::number("a number of tokens, at least 2", 2_u32..),
        allow_negative_numbers = true
    )]
    pub(crate) tokens: u32,
    /// Alternate with runs of the model split across this many local nodes, and report how the speeds compare
    #[arg(
        long,
        value_name = "N",
        value_parser = values::number("a number of nodes, such as 2", 0_usize..),
        allow_negative_numbers = true
    )]
    pub(crate) beside: Option<usize>,
    /// Number of runs; the median is reported
    #[arg(
        long,
        default_value_t = 3,
        value_name = "N",
        value_parser = values::number("a number of runs from 1 to 1000", 1..=1000_u32),
        allow_negative_numbers = true
    )]
    pub(crate) repeat: u32,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// The figures of one run.
struct Run {
    prefill_tokens_per_s: f64,
    decode_tokens_per_s: f64,
    ttft_ms: f64,
    /// Time per token during which no stage computed, in microseconds.
    overhead_us: f64,
    /// Compute time per token of each stage, in microseconds.
    computing_us: Vec<f64>,
    /// Each stage's report at the end of the run.
    reports: Vec<StageReport>,
}

pub(crate) async fn run(options: BenchOptions) -> Result<(), Failure> {
    let mut swarms = vec![swarm::start(&options.run).await?];
    if let Some(stages) = options.beside {
        // The first swarm already uses the requested port.
        match swarm::start(&RunOptions { stages: Some(stages), bind: None, ..options.run.clone() }).await {
            Ok(swarm) => swarms.push(swarm),
            Err(failure) => {
                stop(swarms).await;
                return Err(failure);
            }
        }
    }
    let result = measure(&swarms, &options).await;
    if let Ok(runs) = &result {
        show(&swarms, &options, runs);
    }
    stop(swarms).await;
    result.map(|_| ())
}

async fn stop(swarms: Vec<LocalSwarm>) {
    for swarm in swarms {
        swarm.stop().await;
    }
}

/// Runs of each swarm. Swarms alternate, because a machine's speed drifts from minute to minute.
async fn measure(swarms: &[LocalSwarm], options: &BenchOptions) -> Result<Vec<Vec<Run>>, Failure> {
    // Warm up memory, links and kernels.
    for swarm in swarms {
        once(swarm, 16, 4).await?;
    }
    let mut runs: Vec<Vec<Run>> = swarms.iter().map(|_| Vec::new()).collect();
    for repeat in 0..options.repeat as usize {
        for turn in 0..swarms.len() {
            // Rotate the order each round.
            let index = (repeat + turn) % swarms.len();
            runs[index].push(one_run(&swarms[index], options).await?);
        }
    }
    Ok(runs)
}

async fn one_run(swarm: &LocalSwarm, options: &BenchOptions) -> Result<Run, Failure> {
    swarm.ring().report().await.map_err(Failure::new)?;
    let summary = once(swarm, options.prompt_tokens, options.tokens).await?;
    let reports = swarm.ring().report().await.map_err(Failure::new)?;
    let per_token = summary.decode_time.as_secs_f64() * 1e6 / f64::from(options.tokens - 1);
    let computing_us: Vec<f64> = reports.iter().map(computing_us).collect();
    Ok(Run {
        prefill_tokens_per_s: f64::from(options.prompt_tokens) / seconds(summary.time_to_first_token),
        decode_tokens_per_s: summary.decode_tokens_per_s(),
        ttft_ms: seconds(summary.time_to_first_token) * 1e3,
        overhead_us: (per_token - computing_us.iter().sum::<f64>()).max(0.0),
        computing_us,
        reports,
    })
}

/// Generates an answer of fixed length to a prompt of fixed length.
async fn once(swarm: &LocalSwarm, prompt_tokens: u32, tokens: u32) -> Result<Summary, Failure> {
    let ring = swarm.ring();
    let vocabulary = ring.model().card().vocabulary as u32;
    // Any tokens will do: the amount of work does not depend on them.
    let prompt: Vec<u32> = (0..prompt_tokens).map(|i| 100 + i * 37 % 1000).map(|token| token % vocabulary).collect();
    let request =
        Request { max_tokens: Some(tokens as usize), ignore_end: true, reuse: false, ..Request::new(Vec::new()) };
    let mut events = ring.generate_tokens(prompt, &request).await.map_err(Failure::new)?;
    loop {
        match events.recv().await {
            Some(Event::Finished { summary, .. }) => return Ok(summary),
            Some(Event::Token { .. } | Event::Reading { .. } | Event::Recovering(_)) => {}
            Some(Event::Failed(why)) => return Err(Failure::new(why)),
            None => return Err(Failure::new("the answer was interrupted")),
        }
    }
}

fn show(swarms: &[LocalSwarm], options: &BenchOptions, runs: &[Vec<Run>]) {
    let ratio = |of: fn(&Run) -> f64| match runs {
        [first, second] => Some(median(&first.iter().zip(second).collect::<Vec<_>>(), |(a, b)| of(b) / of(a))),
        _ => None,
    };
    let prefill = ratio(|run| run.prefill_tokens_per_s);
    let decode = ratio(|run| run.decode_tokens_per_s);
    if options.json {
        let mut report = json(&swarms[0], options, &runs[0]);
        if let ([_, swarm], [_, runs]) = (swarms, runs) {
            report["beside"] = json(swarm, options, runs);
            report["beside"]["prefill_ratio"] = json!(prefill);
            report["beside"]["decode_ratio"] = json!(decode);
        }
        output::line(report);
        return;
    }
    for (swarm, runs) in swarms.iter().zip(runs) {
        show_one(swarm, options, runs);
    }
    if let (Some(prefill), Some(decode)) = (prefill, decode) {
        let [stages, beside] = [0, 1].map(|index| swarms[index].ring().stages().len());
        output::line(format_args!(
            "beside   {decode:8.3} ×       answer speed with {beside} stages relative to {stages}; prompt {prefill:.3} ×"
        ));
    }
}

fn json(swarm: &LocalSwarm, options: &BenchOptions, runs: &[Run]) -> Value {
    let figures = Figures::of(swarm, runs);
    let stages = swarm.ring().stages();
    let placed = swarm::stage_layers(&stages);
    let stage = |(index, report): (usize, &StageReport)| {
        let mut stage = json!(placed[index]);
        stage["computing_us"] = json!(median(runs, |run| run.computing_us[index]));
        stage["weight_bytes"] = json!(swarm.plan().stages[index].weight_bytes);
        stage["peak_bytes"] = json!(report.peak_bytes);
        stage["kv_bytes"] = json!(report.kv_bytes);
        stage
    };
    let listed: Vec<_> = runs[runs.len() - 1].reports.iter().enumerate().map(stage).collect();
    json!({
        "model": swarm.ring().model().name(),
        "device": stages[0].device,
        "prompt_tokens": options.prompt_tokens,
        "completion_tokens": options.tokens,
        "prefill_tokens_per_s": figures.prefill,
        "decode_tokens_per_s": figures.decode,
        "ttft_ms": figures.ttft_ms,
        "hop_us": figures.hop_us,
        "link_round_trip_us": figures.link_us,
        "stages": listed,
    })
}

fn show_one(swarm: &LocalSwarm, options: &BenchOptions, runs: &[Run]) {
    let Figures { prefill, decode, ttft_ms, hop_us, link_us } = Figures::of(swarm, runs);
    let stages = swarm.ring().stages();
    output::line(format_args!("{} on {}", swarm.ring().model().name(), stages[0].device));
    output::line(format_args!("prompt   {prefill:8.1} tok/s   {ttft_ms:.0} ms for {} tokens", options.prompt_tokens));
    output::line(format_args!("answer   {decode:8.1} tok/s"));
    output::line(format_args!("hop      {hop_us:8.0} µs      per stage and token, excluding computation"));
    if let Some(link) = link_us {
        output::line(format_args!("link     {link:8} µs      round trip"));
    }
    for ((stage, report), planned) in stages.iter().zip(&runs[runs.len() - 1].reports).zip(&swarm.plan().stages) {
        let peak = report.peak_bytes.map_or("unknown".to_owned(), output::megabytes);
        output::line(format_args!(
            "memory   {} peak {peak} (weights {}, conversation {})",
            swarm::who(&swarm::stage_layers(std::slice::from_ref(stage))),
            output::megabytes(planned.weight_bytes),
            output::megabytes(report.kv_bytes)
        ));
    }
}

/// The medians of all runs.
struct Figures {
    prefill: f64,
    decode: f64,
    ttft_ms: f64,
    hop_us: f64,
    link_us: Option<u64>,
}

impl Figures {
    fn of(swarm: &LocalSwarm, runs: &[Run]) -> Self {
        Self {
            prefill: median(runs, |run| run.prefill_tokens_per_s),
            decode: median(runs, |run| run.decode_tokens_per_s),
            ttft_ms: median(runs, |run| run.ttft_ms),
            hop_us: median(runs, |run| run.overhead_us) / swarm.ring().stages().len() as f64,
            link_us: runs[runs.len() - 1].reports.iter().filter_map(|report| report.link_round_trip_us).max(),
        }
    }
}

fn computing_us(report: &StageReport) -> f64 {
    if report.decoded == 0 { 0.0 } else { report.decode_us as f64 / report.decoded as f64 }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64().max(1e-9)
}

fn median<T>(runs: &[T], of: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
