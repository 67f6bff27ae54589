//! The conversations of this machine's owner: where they are stored, and the answers in progress in them.
//!
//! A conversation belongs to the node and not to a window. Windows, the command line and the API change it through
//! [`Chats`] and watch it; they may come and go while an answer grows. Everything is in one `SQLite` file in the data
//! folder, readable only by its owner.

mod answer;
mod branches;
mod chats;
mod conversation;
mod error;
mod export;
mod layout;
mod live;
mod model;
mod naming;
mod presets;
mod prompt;
mod prompts;
mod rows;
mod shelf;
mod store;
mod titles;

pub use chats::Chats;
pub use conversation::{Choices, Computed, Conversation, Entry, Interruption, Message, Part, Role};
pub use error::ChatError;
pub use live::{ChatEvent, Ended, Status, Watch};
pub use model::{AnswerEvent, Asked, Failure, Model, Question, Turn};
pub use presets::Preset;
pub use prompt::Prompt;
pub use store::{FILE, Store, StoreError};
