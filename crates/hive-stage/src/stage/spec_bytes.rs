//! The memory of session specs.

use hive_model::SessionOptions;
use hive_protocol::SessionSpec;

/// The size of a session spec, in bytes.
pub(super) fn bytes_of(spec: &SessionSpec) -> usize {
    bytes_of_options(&spec.options, &spec.end_tokens)
}

/// The same, from its parts.
pub(super) fn bytes_of_options(options: &SessionOptions, end_tokens: &[u32]) -> usize {
    let SessionOptions { sampling, prompt, answer, adapter: _ } = options;
    let tokens = prompt.len() + answer.len() + end_tokens.len();
    tokens * size_of::<u32>() + sampling.logit_bias.len() * 2 * size_of::<u64>()
}
