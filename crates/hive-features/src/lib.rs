//! Nothing: this crate is its manifest, which says why.
