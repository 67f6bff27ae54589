//! `hivemind models get`: downloads a model into the Hugging Face cache, with its progress.

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use hive_node::settings::Settings;
use hive_node::store::{Event, FetchOptions, Hub, Listing, ModelName, RateLimit, Wait, fetch};
use serde_json::json;

use super::shown::{OFTEN, Shown, in_words};
use crate::output::megabytes;
use crate::{Failure, output};

/// The time over which the rate is the average: shorter ones jump, longer ones are stale.
const RECENT: Duration = Duration::from_secs(5);

pub(super) async fn run(model: &str, as_json: bool, lan_only: bool, folder: &Path) -> Result<(), Failure> {
    let settings = Settings::read(folder).map_err(Failure::new)?;
    if lan_only || settings.lan_only.unwrap_or(false) {
        return Err(Failure::new("this machine is set to the local network only, so nothing is downloaded")
            .hint("set lan_only = false in config.toml, and unset HIVEMIND_LAN_ONLY, or copy the model's folder here yourself"));
    }
    let limit = RateLimit::default();
    limit.set(settings.download_bytes_per_s());
    let name: ModelName = model.parse().map_err(Failure::usage)?;
    let cache = hive_node::hugging_face_cache()
        .ok_or_else(|| Failure::new("there is no folder for models; set HOME or HF_HUB_CACHE"))?;
    let settings = hive_node::hub_settings(folder).map_err(Failure::new)?;
    let hub = Hub::new(cache, &settings).map_err(Failure::new)?;
    // A link becomes the name by which other commands know the model.
    let model = name.to_string();
    let again = format!("run `hivemind models get {model}` again to resume it");
    let started = Instant::now();
    let fetching = async {
        let listing = hub.find(&name).await.map_err(Failure::new)?;
        let download = Download::new(&listing, as_json);
        let on_event: Box<dyn Fn(Event) + Send + Sync> = Box::new(move |event| download.hear(&event));
        let options = FetchOptions { on_event: Some(on_event), limit, ..FetchOptions::default() };
        let path = fetch(&hub, &listing, &options).await.map_err(|error| Failure::new(error).hint(&again))?;
        Ok((listing, path))
    };
    let fetched: Result<_, Failure> = tokio::select! {
        fetched = fetching => fetched,
        Ok(()) = tokio::signal::ctrl_c() => Err(Failure::stopped("the download was stopped").hint(&again)),
    };
    let (listing, path) = fetched?;
    if as_json {
        let seconds = started.elapsed().as_secs_f64();
        output::line(json!({ "model": model, "path": path, "bytes": listing.bytes(), "seconds": seconds }));
    } else {
        output::line(format_args!("Downloaded {model}, {}.", megabytes(listing.bytes())));
        output::line(format_args!("Chat with it: hivemind chat {model}"));
    }
    Ok(())
}

/// The output of a fetch for a person or a program.
struct Download(Mutex<State>);

struct State {
    shown: Shown,
    rate: Rate,
    /// What was said of waiting, which comes again with every attempt.
    waiting: Option<String>,
}

impl Download {
    fn new(listing: &Listing, as_json: bool) -> Self {
        let shown = Shown::new(listing.model.to_string(), as_json, None);
        Self(Mutex::new(State { shown, rate: Rate::default(), waiting: None }))
    }

    fn hear(&self, event: &Event) {
        let now = Instant::now();
        let Ok(mut state) = self.0.lock() else { return };
        match event {
            Event::Progress(progress) => {
                state.rate.note(now, progress.bytes_received);
                if state.shown.is_due(now, progress.bytes_done == progress.bytes_total) {
                    state.waiting = None;
                    state.show(progress.bytes_done, progress.bytes_total);
                }
            }
            Event::Waiting(wait) => {
                let said = match wait {
                    Wait::OtherFetch { file } => format!("waiting for another program to finish downloading {file}"),
                    Wait::NextAttempt { error, after } => {
                        format!("retrying in {} s: {error}", after.as_secs().max(1))
                    }
                };
                if state.waiting.as_ref() != Some(&said) {
                    state.shown.show(&json!({ "waiting": said }), &said);
                    state.waiting = Some(said);
                }
            }
        }
    }
}

impl State {
    fn show(&self, done: u64, total: u64) {
        let bytes_per_s = self.rate.bytes_per_s();
        let mut line = format!("{} of {}", megabytes(done), megabytes(total));
        if let Some(rate) = bytes_per_s.filter(|rate| *rate > 0.0 && done < total) {
            let left = Duration::from_secs_f64((total.saturating_sub(done) as f64 / rate).min(1e7));
            line = format!("{line} · {}/s · {} left", megabytes(rate as u64), in_words(left));
        }
        self.shown.show(&json!({ "bytes_done": done, "bytes_total": total, "bytes_per_s": bytes_per_s }), &line);
    }
}

/// The rate of the last seconds.
#[derive(Default)]
struct Rate {
    /// Times with the bytes present at each, oldest first.
    noted: std::collections::VecDeque<(Instant, u64)>,
}

impl Rate {
    fn note(&mut self, now: Instant, bytes: u64) {
        if self.noted.back().is_some_and(|(at, _)| now.duration_since(*at) < OFTEN / 3) {
            return;
        }
        self.noted.push_back((now, bytes));
        while self.noted.len() > 2 && now.duration_since(self.noted[1].0) > RECENT {
            self.noted.pop_front();
        }
    }

    /// `None` until something has come.
    fn bytes_per_s(&self) -> Option<f64> {
        let ((from, before), (to, after)) = (self.noted.front()?, self.noted.back()?);
        let seconds = to.duration_since(*from).as_secs_f64();
        (seconds > 0.0).then(|| after.saturating_sub(*before) as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let mut rate = Rate::default();
        assert_eq!(rate.bytes_per_s(), None);
        // A fast beginning, then 100 bytes a second.
        for second in 0..20u64 {
            rate.note(
                start + Duration::from_secs(second),
                if second < 2 { second * 5000 } else { 9900 + second * 100 },
            );
        }
        let now = rate.bytes_per_s().unwrap();
        assert!((99.0..101.0).contains(&now), "{now}");
    }
}
