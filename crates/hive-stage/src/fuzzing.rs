//! Entry points for the fuzzer, for everything that reads bytes from another machine or a worker, and seeds.
//!
//! Each takes any bytes, never panics, and takes no more memory than a few times their length.

use std::hint::black_box;

use hive_model::shard::Input;
use hive_model::{CarriedSession, KvLayout, SessionId, SessionOptions};
use hive_net::Frame;
use serde::de::DeserializeOwned;

use crate::adapters::AdapterBytes;
use crate::stage::{Part, Transit, fuzzing as stage};
use hive_protocol::Profile;
use hive_protocol::{Hello, Reply, Request, RingId, SessionSpec, StageId};
use hive_worker::{FromWorker, ToWorker, Work};

/// Feeds a frame to a stage, and to the log of what it sent.
pub fn frame(frame: Frame) {
    stage::frame(frame);
}

/// Decodes a message of a control stream, of a transfer or of the beginning of a stage stream. Returns whether it is
/// one.
pub fn control(bytes: &[u8]) -> bool {
    let (request, answer) = (read::<Request>(bytes), read::<Reply>(bytes));
    if let Some(Request::Greet(words)) = &request {
        let _ = black_box(serde_json::from_str::<Profile>(words));
    }
    if let Some(Reply::Greeting(words)) = &answer {
        let _ = black_box(serde_json::from_str::<Profile>(words));
    }
    let is_message = request.is_some() || answer.is_some() || read::<Hello>(bytes).is_some();
    let mut transit: Option<Transit> = None;
    let mut rest = bytes;
    while let Ok((part, after)) = postcard::take_from_bytes::<Part>(rest) {
        let (consumed, all) = (after.len() < rest.len(), part.bytes());
        black_box(all);
        rest = after;
        match (part, &mut transit) {
            (Part::Session(spec, kept, state), transit) => *transit = Some(Transit::new(*spec, kept, state)),
            (part, Some(transit)) => drop(transit.add(part)),
            (_, None) => {}
        }
        if !consumed {
            break;
        }
    }
    is_message || rest.is_empty()
}

/// Decodes a message from or to a worker. Returns whether it is one.
pub fn worker(bytes: &[u8]) -> bool {
    let (said, sent) = (read::<FromWorker>(bytes), read::<ToWorker>(bytes));
    said.is_some() || sent.is_some()
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}

fn spec() -> SessionSpec {
    let options = SessionOptions { prompt: vec![1, 2], ..SessionOptions::default() };
    SessionSpec { session: 7, answer: 1, options, end_tokens: vec![2], last_position: 10, continues: None }
}

/// Seeds: some messages of each kind.
pub fn control_seeds() -> Vec<Vec<u8>> {
    let stage = StageId { ring: RingId(1), index: 0 };
    let state = CarriedSession { position: 3, answer: vec![(3, 5)], layout: KvLayout::Fast };
    let parts = [
        Part::Session(Box::new(spec()), false, state),
        Part::Cache(hive_worker::Raw(vec![1; 40])),
        Part::LayerEnds,
        Part::Whole,
    ];
    let seeds = [
        postcard::to_stdvec(&Request::Greet("{\"name\":\"a\"}".to_owned())),
        postcard::to_stdvec(&Request::Open(stage, spec())),
        postcard::to_stdvec(&Request::RenewLeases(vec![stage, stage])),
        postcard::to_stdvec(&Request::Adapt(stage, AdapterBytes { config: vec![1], tensors: vec![2] }.head())),
        postcard::to_stdvec(&Reply::Greeting("{\"name\":\"a\"}".to_owned())),
        postcard::to_stdvec(&Reply::Refused("no".to_owned())),
        Ok(parts.iter().filter_map(|part| postcard::to_stdvec(part).ok()).collect::<Vec<_>>().concat()),
    ];
    seeds.into_iter().flatten().collect()
}

/// Seeds: some messages in either direction.
pub fn worker_seeds() -> Vec<Vec<u8>> {
    let work = Work { session: SessionId(1), position: 3, sample: true, input: Input::Tokens(vec![1, 2]) };
    let seeds = [
        postcard::to_stdvec(&ToWorker::Forward(work)),
        postcard::to_stdvec(&ToWorker::Open(SessionId(1), SessionOptions::default())),
        postcard::to_stdvec(&FromWorker::LoadFailed("no".to_owned())),
        postcard::to_stdvec(&FromWorker::Imported(SessionId(1), Ok(()))),
    ];
    seeds.into_iter().flatten().collect()
}
