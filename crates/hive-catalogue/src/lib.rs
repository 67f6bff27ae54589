//! The catalogue: models that people run, in the quantizations that can be fetched.
//!
//! `models.toml` is built in, and the owner's own `catalogue.toml` adds to it ([`Catalogue`]). [`search`] finds models by
//! words. [`judge`] says whether machines have room for one, by asking a planner that the caller provides: this crate
//! knows neither machines nor plans. Pure functions, except for reading the owner's file.
//!
//! Invariants: a model has one entry, whatever its quantizations; a damaged own file hides no built-in model; what is not
//! known for certain is marked as approximate.

mod catalogue;
mod fits;
mod model;
mod parse;
mod search;

pub use catalogue::Catalogue;
pub use fits::{Judged, Placed, Share, judge, shareable};
pub use model::{CatalogueEntry, Needs, Variant};
pub use search::{Hit, search};
