//! The messages of a pairing. New ones are appended.

use serde::{Deserialize, Serialize};

use crate::invite::InviteSecret;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Message {
    Hello { name: String, commitment: [u8; 32], invite: Option<InviteSecret> },
    Welcome { name: String, nonce: [u8; 32] },
    Reveal { nonce: [u8; 32] },
    Verdict { approved: bool },
    Refused { why: String },
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::golden::Golden;
    use crate::protocol::Protocol;

    /// The file name of a message. A new message needs one, and an example below.
    fn name(message: &Message) -> &'static str {
        match message {
            Message::Hello { .. } => "hello",
            Message::Welcome { .. } => "welcome",
            Message::Reveal { .. } => "reveal",
            Message::Verdict { .. } => "verdict",
            Message::Refused { .. } => "refused",
        }
    }

    #[test]
    fn pairing_messages_have_the_bytes_that_other_versions_know() {
        let alpn = std::str::from_utf8(Protocol::Pair.alpn()).unwrap();
        let number = alpn.strip_prefix("hivemind/").unwrap().replace('/', "-");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire").join(number);
        let mut golden = Golden::open(folder, "the number in the name of `Protocol::Pair` (protocol.rs)");
        let examples = [
            ("", Message::Hello { name: "Ann's Mac".to_owned(), commitment: [0xA1; 32], invite: None }),
            ("-invited", Message::Hello { name: "b".to_owned(), commitment: [0xA1; 32], invite: Some([0xB2; 16]) }),
            ("", Message::Welcome { name: "Studio".to_owned(), nonce: [0xC3; 32] }),
            ("", Message::Reveal { nonce: [0xD4; 32] }),
            ("", Message::Verdict { approved: true }),
            ("-denied", Message::Verdict { approved: false }),
            ("", Message::Refused { why: "not now".to_owned() }),
        ];
        golden.postcard_enum(examples.map(|(suffix, message)| (name(&message).to_owned() + suffix, message)));
        golden.finish();
    }
}
