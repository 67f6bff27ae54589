//! The stages that a machine holds, for itself and for others, and the models on its disk.
//!
//! A **stage** is a worker process with a range of a model's layers, and an actor that everything which happens to it passes.
//! [`StageHost`] holds them: it checks who may order what, keeps to what the owner gives, and routes frames between stages here
//! and elsewhere. `models` finds a model by what a person calls it, `catalogue` knows what the models on this disk are.
//!
//! What holds: ownership is looked at before anything else of an order; memory is counted by what is used, not by what is
//! claimed; a stage knows its neighbours and its owner, and nothing of the ring that it is in.

mod catalogue;
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod locate;
pub mod models;
pub mod planning;
mod runtime;
mod stage;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use catalogue::{Catalogue, Place};
pub use host::{Held, HostOptions, StageHost};
pub use runtime::{aside, runtime};
pub use stage::{Destination, Failure, Fault, failure_of, prompt_frame, sampled_of};
