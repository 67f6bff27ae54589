//! Numbers of a few bits as MLX packs them: without gaps, from the low bits of little-endian words up.

/// Numbers that are packed together: with any number of bits they fill whole bytes.
const TOGETHER: usize = 8;

/// Appends numbers of at most this many bits (2 to 6, or 8), packed: `numbers.len() * bits / 8` bytes. Their count is a
/// multiple of eight.
pub fn pack(numbers: &[u8], bits: usize, to: &mut Vec<u8>) {
    match bits {
        2 => pack_of::<2>(numbers, to),
        3 => pack_of::<3>(numbers, to),
        // By far the most frequent, and vectors can do it.
        4 => to.extend(numbers.chunks_exact(2).map(|pair| pair[0] | pair[1] << 4)),
        5 => pack_of::<5>(numbers, to),
        6 => pack_of::<6>(numbers, to),
        _ => to.extend_from_slice(numbers),
    }
}

fn pack_of<const BITS: usize>(numbers: &[u8], to: &mut Vec<u8>) {
    let before = to.len();
    to.resize(before + numbers.len() / TOGETHER * BITS, 0);
    for (eight, bytes) in numbers.chunks_exact(TOGETHER).zip(to[before..].chunks_exact_mut(BITS)) {
        let packed = eight.iter().rev().fold(0u64, |packed, number| packed << BITS | u64::from(*number));
        bytes.copy_from_slice(&packed.to_le_bytes()[..BITS]);
    }
}

/// The numbers that [`pack`] packed, one to a byte.
pub fn unpack(packed: &[u8], bits: usize) -> Vec<u8> {
    match bits {
        2 => unpack_of::<2>(packed),
        3 => unpack_of::<3>(packed),
        4 => unpack_of::<4>(packed),
        5 => unpack_of::<5>(packed),
        6 => unpack_of::<6>(packed),
        _ => packed.to_vec(),
    }
}

fn unpack_of<const BITS: usize>(packed: &[u8]) -> Vec<u8> {
    let mut numbers = vec![0; packed.len() / BITS * TOGETHER];
    for (bytes, eight) in packed.chunks_exact(BITS).zip(numbers.chunks_exact_mut(TOGETHER)) {
        let mut word = [0; 8];
        word[..BITS].copy_from_slice(bytes);
        let word = u64::from_le_bytes(word);
        for (n, number) in eight.iter_mut().enumerate() {
            *number = (word >> (n * BITS)) as u8 & ((1 << BITS) - 1);
        }
    }
    numbers
}

/// Packs packed numbers anew, with `to` bits each, which are no fewer.
pub fn widen(packed: Vec<u8>, bits: usize, to: usize) -> Vec<u8> {
    if bits == to {
        return packed;
    }
    let mut wide = Vec::with_capacity(packed.len() / bits * to);
    pack(&unpack(&packed, bits), to, &mut wide);
    wide
}
