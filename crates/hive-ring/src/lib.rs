//! A model over several machines, as the machine that asks it sees it: loaded, answering, and failing over.
//!
//! A [`Ring`] is a loaded model: its stages in a circle, with standby replicas where machines have memory to spare. An answer
//! travels it (`answer`), token by token. When a stage is lost, another machine takes it over, and the answer goes on from its
//! next token; where that cannot be, it asks its [`Source`] for the model anew.
//!
//! What holds: a ring knows the stages of this machine and the way to those of others ([`hive_stage::StageHost`]), and nothing of
//! who asked for the model, or why.

mod answer;
mod events;
mod generate;
mod kept;
mod request;
mod ring;
mod source;

pub use events::{Event, FinishReason, Summary};
pub use generate::Reply;
pub use request::{GenerateError, Request};
pub use ring::{Health, PlacedStage, Ring, RingError, RingOptions, State};
pub use source::{Loading, Source, SourceError};
