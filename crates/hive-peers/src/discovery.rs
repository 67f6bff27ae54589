//! Announces this machine on its networks and finds others.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hive_net::Endpoint;
use hive_net::discovery::{Discovery, Sighting};
use tokio::sync::mpsc;

use crate::peers::Peers;
use crate::peers::sightings::Announcement;

/// The search for machines on this network.
#[derive(Default)]
pub(crate) struct Search {
    found: Mutex<State>,
}

struct State {
    running: Option<Discovery>,
    /// "on", "off", or the reason why there is no search.
    status: String,
}

impl Default for State {
    fn default() -> Self {
        Self { running: None, status: "off".to_owned() }
    }
}

impl Search {
    /// Starts the search and returns its sightings. Without multicast there is no search, but invitations still work.
    pub(crate) fn start(&self, endpoint: &Endpoint, name: &str, version: u32) -> Option<mpsc::Receiver<Sighting>> {
        let networks = endpoint.networks().clone();
        let started = Discovery::start(endpoint.id(), name, endpoint.port(), version, networks);
        let mut state = self.state();
        match started {
            Ok((running, sightings)) => {
                *state = State { running: Some(running), status: "on".to_owned() };
                Some(sightings)
            }
            Err(error) => {
                tracing::warn!("{error}");
                state.status = error.to_string();
                None
            }
        }
    }

    /// Passes sightings to `peers` until the search ends.
    pub(crate) async fn follow(&self, peers: &Peers, mut sightings: mpsc::Receiver<Sighting>) {
        while let Some(sighting) = sightings.recv().await {
            match sighting {
                Sighting::Found { record, peer, sockets, name, version } => {
                    peers.sighted(Announcement { record, peer, sockets, name, version });
                }
                Sighting::Gone(record) => peers.vanished(&record),
                Sighting::Trouble(why) => tracing::debug!("searching for machines: {why}"),
                Sighting::Ended(why) => {
                    let mut state = self.state();
                    // Unless this node itself has stopped the search.
                    if state.running.take().is_some() {
                        tracing::warn!("{why}");
                        state.status = why;
                    }
                }
            }
        }
    }

    /// Announces and queries again, for networks that this machine has joined since.
    pub(crate) fn repeat(&self) {
        if let Some(running) = &self.state().running {
            running.repeat();
        }
    }

    /// "on", "off", or the reason why there is no search.
    pub(crate) fn status(&self) -> String {
        self.state().status.clone()
    }

    /// Withdraws the announcement.
    pub(crate) async fn stop(&self) {
        let running = self.state().running.take();
        if let Some(running) = running {
            running.stop().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
