//! Storage for the conversations of this machine's owner.
//!
//! Everything is in one `SQLite` file in the data folder, readable only by its owner.

pub mod conversations;
mod export;
