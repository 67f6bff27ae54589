//! The stages that a machine hosts, for itself and for others, and the models on its disk.
//!
//! A **stage** is a worker process with a range of a model's layers, and an actor that handles everything that happens
//! to it. [`StageHost`] holds the stages: it checks who may give which order, enforces the owner's limits, and routes
//! frames between stages here and elsewhere. `models` finds a model by what a person calls it; `catalogue` knows the
//! models on this disk.
//!
//! Invariants: ownership is checked before anything else in an order; memory is counted by use, not by claim; a stage
//! knows its neighbours and its owner, and nothing of its ring.

mod adapters;
mod catalogue;
mod copies;
mod fetching;
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod locate;
pub mod models;
mod pieces;
pub mod planning;
mod runtime;
mod stage;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use adapters::{AdapterFiles, AdapterFilesError};
pub use catalogue::{Catalogue, Place};
pub use fetching::FetchFailure;
pub use hive_model::AtLoad;
pub use hive_store::InUse;
pub use hive_worker::AdaptFailure;
pub use host::{Fetches, Held, HostOptions, StageHost};
pub use pieces::Pieces;
pub use runtime::{aside, runtime};
pub use stage::{Destination, Failure, Fault, failure_of, prompt_frame, sampled_of};
