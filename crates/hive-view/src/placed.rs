//! Describes in words which layers go where.

use std::ops::Range;

/// "Studio: layers 1 to 18, 4.1 GB"; layers are counted from 1.
pub fn placed(machine: &str, layers: &Range<usize>, bytes: u64) -> String {
    let which = match layers.len() {
        1 => format!("layer {}", layers.end),
        _ => format!("layers {} to {}", layers.start + 1, layers.end),
    };
    let size = match bytes {
        0..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    };
    format!("{machine}: {which}, {size}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_layer_is_one_and_little_is_not_nothing() {
        assert_eq!(placed("Studio", &(0..18), 4_100_000_000), "Studio: layers 1 to 18, 4.1 GB");
        assert_eq!(placed("Attic", &(29..30), 36_000_000), "Attic: layer 30, 36 MB");
    }
}
