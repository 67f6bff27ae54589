//! The order in which llama.cpp's converter stores rows and columns, where it is not that of Hugging Face's checkpoints.
//!
//! It permutes the rows of queries and keys of some architectures, sorts the value heads of gated delta nets by their
//! place under a key head, and joins matrices of which a checkpoint has two.

use std::ops::Range;

/// Where the rows of a tensor are in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Where they are in a checkpoint.
    Plain,
    /// The rows of the two halves of each head alternate. A head has `height` rows.
    Alternating { height: usize },
    /// From this row on, heads of `height` rows: first the first under each of `keys` key heads, then the second, of
    /// `each` in all. A checkpoint has those under one key head together.
    ByPlace { from: usize, keys: usize, each: usize, height: usize },
    /// Half of the rows: `each` of every two times `each`, the first of them this one. The others are another tensor's.
    Half { first: usize, each: usize },
}

impl Order {
    /// The place in the file of a checkpoint's row.
    fn place(self, row: usize) -> usize {
        match self {
            Self::Plain => row,
            Self::Alternating { height } => {
                let (within, half) = (row % height, height / 2);
                row - within + within % half * 2 + within / half
            }
            Self::ByPlace { from, .. } if row < from => row,
            Self::ByPlace { from, keys, each, height } => {
                let (head, within) = ((row - from) / height, (row - from) % height);
                from + (head % each * keys + head / each) * height + within
            }
            Self::Half { first, each } => row / each * each * 2 + first + row % each,
        }
    }

    /// The rows of the file's tensor that hold this many rows of a checkpoint's.
    pub(super) fn stored_rows(self, rows: usize) -> usize {
        if let Self::Half { .. } = self { 2 * rows } else { rows }
    }

    /// How many rows are read together.
    pub(super) fn together(self) -> usize {
        if let Self::Alternating { height } = self { height } else { 1 }
    }

    /// Reads rows in a checkpoint's order. Each has `row_bytes` bytes; `read` takes an offset and a number of bytes.
    pub(super) fn read<E>(
        self,
        rows: Range<usize>,
        row_bytes: usize,
        mut read: impl FnMut(usize, usize) -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        let places: Vec<usize> = rows.map(|row| self.place(row)).collect();
        let first = places.iter().copied().min().unwrap_or(0);
        let end = places.iter().copied().max().map_or(0, |last| last + 1);
        if end - first == places.len() {
            let bytes = read(first * row_bytes, places.len() * row_bytes)?;
            let is_in_order = places.iter().enumerate().all(|(at, place)| first + at == *place);
            return Ok(if is_in_order { bytes } else { gathered(&bytes, row_bytes, first, &places) });
        }
        let mut all = Vec::with_capacity(places.len() * row_bytes);
        for run in places.chunk_by(|one, next| one + 1 == *next) {
            all.extend(read(run[0] * row_bytes, run.len() * row_bytes)?);
        }
        Ok(all)
    }

    /// Puts the columns of rows in a checkpoint's order. A row consists of `units` of equal size.
    pub(super) fn columns(self, bytes: &[u8], rows: usize, units: usize) -> Vec<u8> {
        let places: Vec<usize> = (0..units).map(|unit| self.place(unit)).collect();
        let row_bytes = bytes.len() / rows.max(1);
        let rows = bytes.chunks_exact(row_bytes.max(1));
        rows.flat_map(|row| gathered(row, row_bytes / units, 0, &places)).collect()
    }
}

/// The rows at these places, of which the bytes begin with the one at `first`.
fn gathered(bytes: &[u8], row_bytes: usize, first: usize, places: &[usize]) -> Vec<u8> {
    let row = |place: &usize| &bytes[(place - first) * row_bytes..(place - first + 1) * row_bytes];
    places.iter().flat_map(row).copied().collect()
}

/// What an architecture's orders follow from.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Layout {
    /// The numbers of query and key heads, if the rows of queries and keys are permuted.
    pub(super) heads: Option<(usize, usize)>,
    /// The heads of gated delta nets.
    pub(super) delta: Option<DeltaHeads>,
}

/// The heads of gated delta nets.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeltaHeads {
    pub(super) keys: usize,
    /// Value heads for each key head.
    pub(super) each: usize,
    pub(super) key_dim: usize,
    pub(super) value_dim: usize,
    /// Whether value heads are sorted by their place under a key head.
    pub(super) by_place: bool,
}

impl DeltaHeads {
    /// The order of a tensor whose value heads begin at row `from` and have `height` rows each.
    fn values(self, from: usize, height: usize) -> Order {
        Order::ByPlace { from, keys: self.keys, each: self.each, height }
    }
}

impl Layout {
    /// The numbers from the metadata. Those that cannot be are refused with the configuration.
    pub(super) fn of(architecture: &str, number: impl Fn(&str) -> Option<u64>) -> Self {
        let number = |key: &str| number(&format!("{architecture}.{key}")).map_or(0, |number| number as usize);
        match architecture {
            "llama" | "granite" | "smollm3" | "mistral3" => {
                let heads = number("attention.head_count");
                let of_keys = number("attention.head_count_kv");
                Self { heads: Some((heads, if of_keys > 0 { of_keys } else { heads })), delta: None }
            }
            "qwen35" | "qwen35moe" | "qwen3next" => {
                let (keys, values) = (number("ssm.group_count"), number("ssm.time_step_rank"));
                let each = values.checked_div(keys).unwrap_or(0);
                let delta = DeltaHeads {
                    keys,
                    each,
                    key_dim: number("ssm.state_size"),
                    value_dim: number("ssm.inner_size").checked_div(values).unwrap_or(0),
                    by_place: architecture != "qwen3next",
                };
                let can_be = each > 0 && keys.checked_mul(delta.key_dim).is_some() && delta.value_dim > 0;
                Self { heads: None, delta: can_be.then_some(delta) }
            }
            _ => Self::default(),
        }
    }

    /// The order of the rows of a tensor, by its name in a checkpoint. `stored` is how many the file has of it.
    pub(super) fn rows(&self, name: &str, stored: usize) -> Order {
        let Some(part) = part(name) else { return Order::Plain };
        if let Some((heads, kv_heads)) = self.heads {
            let heads = match part {
                "self_attn.q_proj" => heads,
                "self_attn.k_proj" => kv_heads,
                _ => 0,
            };
            if heads > 0 && stored.is_multiple_of(2 * heads) && stored > 0 {
                return Order::Alternating { height: stored / heads };
            }
        }
        let Some(delta) = self.delta else { return Order::Plain };
        let DeltaHeads { keys, each, key_dim, value_dim, by_place } = delta;
        match part.strip_prefix("linear_attn.").unwrap_or_default() {
            "in_proj_qkv" | "conv1d" if by_place => delta.values(2 * keys * key_dim, value_dim),
            "in_proj_z" if by_place => delta.values(0, value_dim),
            "in_proj_b" | "in_proj_a" | "A_log" | "dt_bias" if by_place => delta.values(0, 1),
            // Of each key head, how much is written and then how much is kept.
            "in_proj_b" => Order::Half { first: 0, each },
            "in_proj_a" => Order::Half { first: each, each },
            _ => Order::Plain,
        }
    }

    /// The order of units of columns of a matrix, and the columns of a unit, if it is another than in a checkpoint.
    pub(super) fn columns(&self, name: &str) -> Option<(Order, usize)> {
        let delta = self.delta.filter(|delta| delta.by_place && delta.each > 1)?;
        (part(name)? == "linear_attn.out_proj").then(|| (delta.values(0, 1), delta.value_dim))
    }
}

/// What a tensor is in its layer, without the kind at the end that matrices and their biases have.
fn part(name: &str) -> Option<&str> {
    let (_, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    Some(part.strip_suffix(".weight").or_else(|| part.strip_suffix(".bias")).unwrap_or(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(order: Order, rows: Range<usize>, stored: &[u8]) -> Vec<u8> {
        order.read(rows, 1, |at, length| Ok::<_, ()>(stored[at..at + length].to_vec())).unwrap()
    }

    #[test]
    fn rows_of_a_head_go_from_pairs_to_halves() {
        // Two heads of four rows, one byte each: pairs (0,1) (2,3) become halves (0,2) (1,3).
        let order = Order::Alternating { height: 4 };
        let eight = [0, 1, 2, 3, 4, 5, 6, 7];
        assert_eq!(rows(order, 0..8, &eight), [0, 2, 1, 3, 4, 6, 5, 7]);
        assert_eq!(rows(order, 4..8, &eight), [4, 6, 5, 7]);
        assert_eq!((order.together(), order.stored_rows(8)), (4, 8));
    }

    #[test]
    fn value_heads_go_from_their_place_to_their_key_head() {
        // Two keys, then three values of each of two key heads, of two rows: a0 b0 a1 b1 a2 b2.
        let order = Order::ByPlace { from: 2, keys: 2, each: 3, height: 2 };
        let stored = *b"kqAaBbCcDdEeFf";
        let whole = rows(order, 0..14, &stored[..14]);
        assert_eq!(whole, b"kqAaCcEeBbDdFf");
        for (start, end) in [(0, 3), (1, 6), (3, 14), (5, 5)] {
            assert_eq!(rows(order, start..end, &stored), whole[start..end]);
        }
        let columns = Order::ByPlace { from: 0, keys: 2, each: 2, height: 1 };
        assert_eq!(columns.columns(b"aabbccddAABBCCDD", 2, 4), b"aaccbbddAACCBBDD");
    }

    #[test]
    fn half_of_joined_rows_is_read_alone() {
        let (first, second) = (Order::Half { first: 0, each: 2 }, Order::Half { first: 2, each: 2 });
        assert_eq!((rows(first, 0..4, b"aaAAbbBB"), rows(second, 0..4, b"aaAAbbBB")), (b"aabb".into(), b"AABB".into()));
        assert_eq!(rows(second, 1..3, b"aaAAbbBB"), b"AB");
        assert_eq!(first.stored_rows(4), 8);
    }
}
