//! The models that a node has in memory for its own people and programs: placed over the machines that are here, loaded when they
//! are first asked for, moved when there is a better plan, and asked.
//!
//! [`Serving`] is the handle. `model_request` says what is asked for, `library` what lies on this machine's disk.
//!
//! What holds: a model is loaded once for all who ask; whoever asks for one that is in memory waits for no other.

mod error;
mod library;
mod model_request;
mod openings;
mod placed;
mod serving;
mod views;

pub use error::{AnswerError, ByHandError, ServeError};
pub use library::LetGoError;
pub use model_request::ModelRequest;
pub use openings::local_time;
pub use placed::{FILE as PLACEMENTS_FILE, Placements};
pub use serving::{Layout, Serving};
