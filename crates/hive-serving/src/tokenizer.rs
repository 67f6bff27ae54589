//! A tokenizer that was read for counting, without the rest of its model.

use std::time::Instant;

use hive_worker::text::Model;

use crate::model_request::ModelRequest;

/// A tokenizer that was read for counting.
pub(crate) struct KeptTokenizer {
    pub(crate) wanted: ModelRequest,
    pub(crate) model: Model,
    pub(crate) used: Instant,
}
