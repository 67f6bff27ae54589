//! A model over several machines, as its coordinator sees it: loaded, answering, and failing over.
//!
//! A [`Ring`] is a loaded model: its stages in a circle, with standby replicas where machines have memory to spare. An
//! answer travels around it (`answer`), token by token. When a stage is lost, another machine takes over
//! (`ring/failover.rs` decides, `ring/driver.rs` acts), and the answer resumes at its next token. If no machine can,
//! the answer asks its [`Source`] to load the model again.
//!
//! Invariants: a ring knows the stages on this machine and reaches those on others ([`hive_stage::StageHost`]). It
//! knows nothing of who asked for the model, or why.

mod answer;
mod events;
mod generate;
mod prefix_cache;
mod request;
mod ring;
mod source;
#[cfg(test)]
mod testing;

pub use events::{Event, FinishReason, Summary};
pub use generate::Reply;
pub use request::{GenerateError, Request};
pub use ring::{FetchProgress, Health, PlacedStage, Ring, RingError, RingOptions, State};
pub use source::{Loading, Source, SourceError};
