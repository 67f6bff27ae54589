//! `hivemind bench`: how fast a model runs here, and what a hop between stages costs.

use std::time::Duration;

use hive_node::{Event, LocalSwarm, Request, StageReport, Summary};
use serde_json::json;

use crate::arguments::BenchOptions;
use crate::{Failure, output, swarm};

/// One run, in numbers.
struct Run {
    prefill_tokens_per_s: f64,
    decode_tokens_per_s: f64,
    ttft_ms: f64,
    /// Time per token that no stage spent computing, in microseconds.
    overhead_us: f64,
    /// Time per token that each stage spent computing, in microseconds.
    computing_us: Vec<f64>,
    /// How each stage was at the end.
    reports: Vec<StageReport>,
}

pub(crate) async fn run(options: BenchOptions) -> Result<(), Failure> {
    let swarm = swarm::start(&options.run).await?;
    let result = measure(&swarm, &options).await;
    if let Ok(runs) = &result {
        show(&swarm, &options, runs);
    }
    swarm.stop().await;
    result.map(|_| ())
}

async fn measure(swarm: &LocalSwarm, options: &BenchOptions) -> Result<Vec<Run>, Failure> {
    // Once to warm up: first use of the memory, the links and the kernels.
    once(swarm, 16, 4).await?;
    let mut runs = Vec::new();
    for _ in 0..options.repeat {
        swarm.ring().report().await.map_err(Failure::new)?;
        let summary = once(swarm, options.prompt_tokens, options.tokens).await?;
        let reports = swarm.ring().report().await.map_err(Failure::new)?;
        let per_token = summary.decode_time.as_secs_f64() * 1e6 / f64::from(options.tokens - 1);
        let computing_us: Vec<f64> = reports.iter().map(computing_us).collect();
        runs.push(Run {
            prefill_tokens_per_s: f64::from(options.prompt_tokens) / seconds(summary.time_to_first_token),
            decode_tokens_per_s: summary.decode_tokens_per_s(),
            ttft_ms: seconds(summary.time_to_first_token) * 1e3,
            overhead_us: (per_token - computing_us.iter().sum::<f64>()).max(0.0),
            computing_us,
            reports,
        });
    }
    Ok(runs)
}

/// A prompt of a set length, and an answer of a set length.
async fn once(swarm: &LocalSwarm, prompt_tokens: u32, tokens: u32) -> Result<Summary, Failure> {
    let ring = swarm.ring();
    let vocabulary = ring.files().config().vocabulary as u32;
    // Any tokens do: the work does not depend on what they say.
    let prompt: Vec<u32> = (0..prompt_tokens).map(|i| 100 + i * 37 % 1000).map(|token| token % vocabulary).collect();
    let request =
        Request { max_tokens: Some(tokens as usize), ignore_end: true, reuse: false, ..Request::new(Vec::new()) };
    let mut events = ring.generate_tokens(prompt, &request).map_err(Failure::new)?;
    loop {
        match events.recv().await {
            Some(Event::Finished { summary, .. }) => return Ok(summary),
            Some(Event::Token { .. } | Event::Reading { .. } | Event::Recovering(_)) => {}
            Some(Event::Failed(why)) => return Err(Failure::new(why)),
            None => return Err(Failure::new("the answer broke off")),
        }
    }
}

fn show(swarm: &LocalSwarm, options: &BenchOptions, runs: &[Run]) {
    let reports = &runs[runs.len() - 1].reports;
    let stages = swarm.ring().stages();
    let prefill = median(runs, |run| run.prefill_tokens_per_s);
    let decode = median(runs, |run| run.decode_tokens_per_s);
    let ttft = median(runs, |run| run.ttft_ms);
    let hop = median(runs, |run| run.overhead_us) / stages.len() as f64;
    let link = reports.iter().filter_map(|report| report.link_round_trip_us).max();
    if options.json {
        let listed = swarm::stages_json(&stages);
        let stage = |(index, report): (usize, &StageReport)| {
            let mut stage = listed[index].clone();
            stage["computing_us"] = json!(median(runs, |run| run.computing_us[index]));
            stage["weight_bytes"] = json!(swarm.plan().stages[index].weight_bytes);
            stage["peak_bytes"] = json!(report.peak_bytes);
            stage["kv_bytes"] = json!(report.kv_bytes);
            stage
        };
        let listed: Vec<_> = reports.iter().enumerate().map(stage).collect();
        output::line(json!({
            "model": swarm.ring().files().name(),
            "device": stages[0].device,
            "prompt_tokens": options.prompt_tokens,
            "completion_tokens": options.tokens,
            "prefill_tokens_per_s": prefill,
            "decode_tokens_per_s": decode,
            "ttft_ms": ttft,
            "hop_us": hop,
            "link_round_trip_us": link,
            "stages": listed,
        }));
        return;
    }
    output::line(format_args!("{} on {}", swarm.ring().files().name(), stages[0].device));
    output::line(format_args!("prompt   {prefill:8.1} tok/s   {ttft:.0} ms for {} tokens", options.prompt_tokens));
    output::line(format_args!("answer   {decode:8.1} tok/s"));
    output::line(format_args!("hop      {hop:8.0} µs      per stage and token, outside of computing"));
    if let Some(link) = link {
        output::line(format_args!("link     {link:8} µs      there and back"));
    }
    for ((stage, report), planned) in stages.iter().zip(reports).zip(&swarm.plan().stages) {
        let peak = report.peak_bytes.map_or("unknown".to_owned(), output::megabytes);
        output::line(format_args!(
            "memory   {} at most {peak} (weights {}, conversation {})",
            swarm::who(&swarm::stages_json(std::slice::from_ref(stage))),
            output::megabytes(planned.weight_bytes),
            output::megabytes(report.kv_bytes)
        ));
    }
}

fn computing_us(report: &StageReport) -> f64 {
    if report.decoded == 0 { 0.0 } else { report.decode_us as f64 / report.decoded as f64 }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64().max(1e-9)
}

fn median(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
