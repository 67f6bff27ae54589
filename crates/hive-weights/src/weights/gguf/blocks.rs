//! ggml's types: their numbers, names and sizes.

use std::fmt;

use crate::weights::Float;

/// The storage format of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Iq4Xs,
    Mxfp4,
    /// A type that is not read, of unknown size.
    Other(u32),
}

/// A type that is read.
struct Known {
    block: BlockType,
    number: u32,
    name: &'static str,
    /// Elements per block.
    elements: u64,
    /// Bytes per block.
    bytes: u64,
}

const fn known(block: BlockType, number: u32, name: &'static str, elements: u64, bytes: u64) -> Known {
    Known { block, number, name, elements, bytes }
}

const KNOWN: [Known; 16] = [
    known(BlockType::F32, 0, "F32", 1, 4),
    known(BlockType::F16, 1, "F16", 1, 2),
    known(BlockType::Bf16, 30, "BF16", 1, 2),
    known(BlockType::Q4_0, 2, "Q4_0", 32, 18),
    known(BlockType::Q4_1, 3, "Q4_1", 32, 20),
    known(BlockType::Q5_0, 6, "Q5_0", 32, 22),
    known(BlockType::Q5_1, 7, "Q5_1", 32, 24),
    known(BlockType::Q8_0, 8, "Q8_0", 32, 34),
    known(BlockType::Q2K, 10, "Q2_K", 256, 84),
    known(BlockType::Q3K, 11, "Q3_K", 256, 110),
    known(BlockType::Q4K, 12, "Q4_K", 256, 144),
    known(BlockType::Q5K, 13, "Q5_K", 256, 176),
    known(BlockType::Q6K, 14, "Q6_K", 256, 210),
    known(BlockType::Iq4Nl, 20, "IQ4_NL", 32, 18),
    known(BlockType::Iq4Xs, 23, "IQ4_XS", 256, 136),
    known(BlockType::Mxfp4, 39, "MXFP4", 32, 17),
];

/// The types that [`KNOWN`] has, as an error message lists them.
pub(super) const SUPPORTED: &str =
    "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS and MXFP4";

/// The names of types that are not read.
const OTHERS: [(u32, &str); 27] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
    (40, "NVFP4"),
    (41, "Q1_0"),
    (42, "Q2_0"),
];

impl BlockType {
    pub(super) fn from_ggml(number: u32) -> Self {
        KNOWN.iter().find(|known| known.number == number).map_or(Self::Other(number), |known| known.block)
    }

    /// Elements per block.
    pub(super) fn elements(self) -> u64 {
        self.known().map_or(1, |known| known.elements)
    }

    /// Bytes per block.
    pub(super) fn bytes(self) -> u64 {
        self.known().map_or(0, |known| known.bytes)
    }

    pub(super) fn float(self) -> Option<Float> {
        match self {
            Self::F32 => Some(Float::F32),
            Self::F16 => Some(Float::F16),
            Self::Bf16 => Some(Float::Bf16),
            _ => None,
        }
    }

    fn known(self) -> Option<&'static Known> {
        KNOWN.iter().find(|known| known.block == self)
    }
}

impl fmt::Display for BlockType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let other = |number| OTHERS.iter().find(|(other, _)| *other == number).map(|(_, name)| *name);
        match (self.known(), self) {
            (Some(known), _) => f.write_str(known.name),
            (None, Self::Other(number)) => match other(*number) {
                Some(name) => f.write_str(name),
                None => write!(f, "ggml type {number}"),
            },
            (None, block) => write!(f, "{block:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_that_is_read_has_its_number_and_is_named_among_the_supported() {
        for known in &KNOWN {
            assert_eq!(BlockType::from_ggml(known.number), known.block);
            assert_eq!(known.block.to_string(), known.name);
            assert!(SUPPORTED.split([',', ' ']).any(|name| name == known.name), "{}", known.name);
            assert!(OTHERS.iter().all(|(number, name)| *number != known.number && *name != known.name));
        }
        assert_eq!(SUPPORTED.split([',', ' ']).filter(|word| !["", "and"].contains(word)).count(), KNOWN.len());
        assert_eq!(BlockType::from_ggml(18).to_string(), "IQ3_XXS");
        assert_eq!(BlockType::from_ggml(99).to_string(), "ggml type 99");
    }
}
