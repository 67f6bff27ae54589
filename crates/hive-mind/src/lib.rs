//! Remembers: the conversations of this machine's owner.
//!
//! Everything stays in one `SQLite` file of the data folder, readable by its owner only.

pub mod conversations;
mod export;
