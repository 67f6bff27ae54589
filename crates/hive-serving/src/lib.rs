//! The models that a node has in memory for its own people and programs: it places them over the machines that are
//! present, loads them when they are first asked for, migrates them when there is a better plan, and answers with them.
//!
//! [`Serving`] is the handle. `model_request` describes a request; `library` lists the models on this machine's
//! disk.
//!
//! Invariants: a model is loaded once for everybody who asks for it; a request for a model in memory waits for no other
//! model.

mod capacity;
mod error;
mod joint;
mod library;
mod marks;
mod model_request;
mod openings;
mod placed;
mod serving;
mod tokenizer;
mod views;

pub use capacity::Capacity;
pub use error::{AnswerError, CountError, ManualPlanError, ServeError};
pub use library::LetGoError;
pub use marks::{FILE as MARKS_FILE, MarkError, Marks};
pub use model_request::ModelRequest;
pub use openings::local_time;
pub use placed::{FILE as PLACEMENTS_FILE, Placements};
pub use serving::{Layout, Serving};
