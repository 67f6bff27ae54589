//! Three words that identify a machine's key, to tell machines of the same name apart: "otter lamp river".
//!
//! 33 bits: enough to recognise a machine, not to authenticate one. That is what pairing codes are for.

use bip39::Language;
use sha2::{Digest, Sha256};

use crate::addr::PeerId;

/// Bits per word: the list has 2,048 words.
const BITS: u32 = 11;

/// A machine's three words, separated by hyphens.
pub fn fingerprint(peer: PeerId) -> String {
    let digest = Sha256::digest([b"HiveMind fingerprint ", &peer.as_bytes()[..]].concat());
    let bits = u64::from_be_bytes([digest[0], digest[1], digest[2], digest[3], digest[4], 0, 0, 0]);
    let words = Language::English.word_list();
    let word = |place: u32| words[(bits >> (64 - BITS * (place + 1))) as usize % words.len()];
    [word(0), word(1), word(2)].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn a_machine_keeps_its_words_and_others_have_others() {
        let (one, two) = (Identity::generate().id(), Identity::generate().id());
        assert_eq!(fingerprint(one), fingerprint(one));
        assert_ne!(fingerprint(one), fingerprint(two));
        assert_eq!(fingerprint(one).split('-').count(), 3);
    }
}
