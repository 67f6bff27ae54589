//! Pairing: both machines show the same code, and both owners approve.
//!
//! ```text
//!   asker                                        answerer
//!     │  Hello    name, commitment = H(nonce a)     │
//!     │ ───────────────────────────────────────────▶│
//!     │  Welcome  name, nonce b                     │
//!     │◀─────────────────────────────────────────── │
//!     │  Reveal   nonce a                           │   both: code = H(ids, nonces) mod 1,000,000
//!     │ ───────────────────────────────────────────▶│
//!     │  Verdict ◀──────────────────────▶ Verdict   │   when each owner has compared the codes
//! ```
//!
//! A man in the middle runs two pairings with different keys, so the codes depend on nonces he does not choose: the
//! asker's is fixed before the answerer's is known, and the answerer's before the asker's is revealed. He cannot search
//! for nonces that make the codes agree; he has one guess in a million per pairing that an owner starts.
//!
//! The connection's handshake has already proven who holds which key. Messages are small, and every wait has a timeout.

mod message;
mod timeouts;

use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::addr::{PeerAddr, PeerId};
use crate::border;
use crate::control::{self, ControlError};
use crate::endpoint::{Channel, ConnectError, Endpoint};
use crate::invite::InviteSecret;
use crate::protocol::Protocol;
use message::Message;
use timeouts::{FAREWELL, MACHINE_TIMEOUT};

pub use timeouts::DECISION_TIMEOUT;

/// Limit of a message: the longest has a name and some digests.
const MAX_MESSAGE_BYTES: u32 = 1024;

/// The six-digit code that both machines show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Code(u32);

impl Code {
    fn new(asker: PeerId, answerer: PeerId, asker_nonce: &[u8; 32], answerer_nonce: &[u8; 32]) -> Self {
        let parts: [&[u8]; 5] =
            [b"HiveMind code", asker.as_bytes(), answerer.as_bytes(), &asker_nonce[..], &answerer_nonce[..]];
        let digest = Sha256::digest(parts.concat());
        let number = u64::from_be_bytes([0, 0, digest[0], digest[1], digest[2], digest[3], digest[4], digest[5]]);
        Self((number % 1_000_000) as u32)
    }

    /// Parses a code as people write it: "482 915", "482915", "482-915".
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
        (digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok().map(Self))?
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:03} {:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// Why a pairing failed before a code was shown.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The other machine could not be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It refused before a code was shown.
    #[error("the other machine refused: {0}")]
    Refused(String),
    /// It closed the connection, or did not answer in time.
    #[error("the other machine broke off")]
    BrokeOff,
    /// It violated the protocol: a bug, or a man in the middle.
    #[error("the other machine did not keep to the protocol ({0}); nothing was approved")]
    Protocol(&'static str),
}

impl From<ControlError> for PairError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::TooLarge(_) => Self::Protocol("a message is too long"),
            ControlError::Malformed(_) => Self::Protocol("a message makes no sense"),
            ControlError::Broken(_) | ControlError::TooLate => Self::BrokeOff,
        }
    }
}

/// How a pairing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Both owners approved.
    Approved,
    /// This machine's owner denied.
    DeniedHere,
    /// The other owner denied.
    DeniedThere,
    /// An owner did not decide in time.
    TimedOut,
    /// The connection broke before both had decided.
    BrokeOff,
}

/// A pairing with a code to compare.
#[derive(Debug)]
pub struct Pairing {
    channel: Channel,
    peer: PeerId,
    name: String,
    code: Code,
}

/// A stranger's opening message.
#[derive(Debug)]
pub struct Knock {
    channel: Channel,
    peer: PeerId,
    name: String,
    commitment: [u8; 32],
    /// The invitation it presents.
    pub invite: Option<InviteSecret>,
}

/// Asks a machine to pair.
pub async fn ask(
    endpoint: &Endpoint,
    whom: &PeerAddr,
    name: &str,
    invite: Option<InviteSecret>,
) -> Result<Pairing, PairError> {
    let mut channel = endpoint.open(whom, Protocol::Pair).await?;
    let nonce = random();
    let exchange = async {
        write(&mut channel, &Message::Hello { name: border::name(name), commitment: commit(&nonce), invite }).await?;
        let (name, answer) = match read(&mut channel).await? {
            Message::Welcome { name, nonce } => (border::name(&name), nonce),
            Message::Refused { why } => return Err(PairError::Refused(border::reason(&why))),
            _ => return Err(PairError::Protocol("no welcome")),
        };
        write(&mut channel, &Message::Reveal { nonce }).await?;
        Ok((name, Code::new(endpoint.id(), whom.id(), &nonce, &answer)))
    };
    let (name, code) = timeout(MACHINE_TIMEOUT, exchange).await.map_err(|_| PairError::BrokeOff)??;
    Ok(Pairing { channel, peer: whom.id(), name, code })
}

/// Reads the opening message of a pairing channel.
pub async fn receive(peer: PeerId, mut channel: Channel) -> Result<Knock, PairError> {
    match timeout(MACHINE_TIMEOUT, read(&mut channel)).await.map_err(|_| PairError::BrokeOff)?? {
        Message::Hello { name, commitment, invite } => {
            channel.heard();
            Ok(Knock { channel, peer, name: border::name(&name), commitment, invite })
        }
        _ => Err(PairError::Protocol("no hello")),
    }
}

impl Knock {
    /// Refuses with a reason, before a code is shown.
    pub async fn refuse(mut self, why: &str) {
        let refusal = async {
            write(&mut self.channel, &Message::Refused { why: why.to_owned() }).await?;
            self.channel.finish();
            let _ = self.channel.send.stopped().await;
            Ok::<(), PairError>(())
        };
        let _ = timeout(FAREWELL, refusal).await;
    }

    /// Continues to the code.
    pub async fn welcome(mut self, here: PeerId, name: &str) -> Result<Pairing, PairError> {
        let nonce = random();
        let exchange = async {
            write(&mut self.channel, &Message::Welcome { name: border::name(name), nonce }).await?;
            let Message::Reveal { nonce: revealed } = read(&mut self.channel).await? else {
                return Err(PairError::Protocol("no nonce"));
            };
            if commit(&revealed) != self.commitment {
                return Err(PairError::Protocol("the nonce is not the one it committed to"));
            }
            Ok(Code::new(self.peer, here, &revealed, &nonce))
        };
        let code = timeout(MACHINE_TIMEOUT, exchange).await.map_err(|_| PairError::BrokeOff)??;
        Ok(Pairing { channel: self.channel, peer: self.peer, name: self.name, code })
    }
}

impl Pairing {
    /// The other machine.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The name it gives itself: untrusted, shown beside the fingerprint only.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The code that both machines show.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Waits until both owners have decided. `ours` receives this owner's decision; dropping its sender denies.
    pub async fn settle(mut self, ours: oneshot::Receiver<bool>) -> Outcome {
        timeout(DECISION_TIMEOUT, self.exchange(ours)).await.unwrap_or(Outcome::TimedOut)
    }

    async fn exchange(&mut self, mut ours: oneshot::Receiver<bool>) -> Outcome {
        let Channel { send, recv, .. } = &mut self.channel;
        // One future for all iterations: dropping a half-finished read would lose its bytes.
        let theirs = control::read_from::<Message>(recv, MAX_MESSAGE_BYTES);
        tokio::pin!(theirs);
        let (mut here, mut there) = (None, None);
        while here.is_none() || there.is_none() {
            tokio::select! {
                verdict = &mut ours, if here.is_none() => {
                    let approved = verdict.unwrap_or(false);
                    if control::write_to(send, &Message::Verdict { approved }).await.is_err() {
                        return if approved { Outcome::BrokeOff } else { Outcome::DeniedHere };
                    }
                    here = Some(approved);
                }
                message = &mut theirs, if there.is_none() => match message {
                    Ok(Some(Message::Verdict { approved })) => there = Some(approved),
                    _ => return Outcome::BrokeOff,
                },
            }
            if here == Some(false) || there == Some(false) {
                break;
            }
        }
        // The other side must receive this verdict before the channel closes.
        let _ = send.finish();
        let _ = timeout(FAREWELL, send.stopped()).await;
        match (here, there) {
            (Some(false), _) => Outcome::DeniedHere,
            (_, Some(false)) => Outcome::DeniedThere,
            _ => Outcome::Approved,
        }
    }
}

fn random() -> [u8; 32] {
    // The key generator uses the system's randomness.
    iroh::SecretKey::generate().to_bytes()
}

fn commit(nonce: &[u8; 32]) -> [u8; 32] {
    Sha256::digest([b"HiveMind commitment ", &nonce[..]].concat()).into()
}

async fn write(channel: &mut Channel, message: &Message) -> Result<(), PairError> {
    Ok(control::write_to(&mut channel.send, message).await?)
}

async fn read(channel: &mut Channel) -> Result<Message, PairError> {
    control::read_from(&mut channel.recv, MAX_MESSAGE_BYTES).await?.ok_or(PairError::BrokeOff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::{EndpointOptions, Incoming};
    use crate::identity::Identity;
    use tokio::sync::mpsc;

    async fn bound() -> (Endpoint, mpsc::Receiver<Incoming>) {
        let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        Endpoint::bind(EndpointOptions::new(Identity::generate(), loopback)).await.unwrap()
    }

    async fn answered(endpoint: &Endpoint, incoming: &mut mpsc::Receiver<Incoming>) -> Result<Pairing, PairError> {
        let Incoming { peer, channel, .. } = incoming.recv().await.unwrap();
        receive(peer, channel).await?.welcome(endpoint.id(), "the answerer").await
    }

    fn verdict(approved: bool) -> oneshot::Receiver<bool> {
        let (sender, receiver) = oneshot::channel();
        sender.send(approved).unwrap();
        receiver
    }

    #[tokio::test]
    async fn both_show_one_code_and_both_must_approve() {
        for (here, there, expected) in [
            (true, true, (Outcome::Approved, Outcome::Approved)),
            (true, false, (Outcome::DeniedThere, Outcome::DeniedHere)),
        ] {
            let ((asker, _), (answerer, mut incoming)) = (bound().await, bound().await);
            let addr = answerer.addr();
            let (asked, answered) =
                tokio::join!(ask(&asker, &addr, "the\u{7} asker", None), answered(&answerer, &mut incoming));
            let (asked, answered) = (asked.unwrap(), answered.unwrap());
            assert_eq!(asked.code(), answered.code());
            assert_eq!((asked.name(), answered.name()), ("the answerer", "the asker"));
            assert_eq!(answered.peer(), asker.id());
            let outcomes = tokio::join!(asked.settle(verdict(here)), answered.settle(verdict(there)));
            assert_eq!(outcomes, expected);
        }
    }

    #[tokio::test]
    async fn a_machine_that_leaves_before_deciding_approves_nothing() {
        let ((asker, _), (answerer, mut incoming)) = (bound().await, bound().await);
        let addr = answerer.addr();
        let (asked, answered) = tokio::join!(ask(&asker, &addr, "a", None), answered(&answerer, &mut incoming));
        drop(asked);
        asker.close().await;
        assert_eq!(answered.unwrap().settle(verdict(true)).await, Outcome::BrokeOff);
    }

    /// A man in the middle pairs with each side under his own key, and forwards names and verdicts.
    #[tokio::test]
    async fn a_man_in_the_middle_makes_the_codes_differ() {
        let ((asker, _), (answerer, mut incoming), (middle, mut caught)) =
            (bound().await, bound().await, bound().await);
        let (to_middle, to_answerer) = (middle.addr(), answerer.addr());
        let (asked, _caught, _passed, answered) = tokio::join!(
            ask(&asker, &to_middle, "asker", None),
            self::answered(&middle, &mut caught),
            ask(&middle, &to_answerer, "asker", None),
            self::answered(&answerer, &mut incoming),
        );
        assert_ne!(asked.unwrap().code(), answered.unwrap().code());
    }

    #[tokio::test]
    async fn a_nonce_chosen_late_is_caught() {
        let ((asker, _), (answerer, mut incoming)) = (bound().await, bound().await);
        let addr = answerer.addr();
        let cheat = async {
            let mut channel = asker.open(&addr, Protocol::Pair).await.unwrap();
            let hello = Message::Hello { name: "x".into(), commitment: commit(&[1; 32]), invite: None };
            write(&mut channel, &hello).await.unwrap();
            read(&mut channel).await.unwrap();
            write(&mut channel, &Message::Reveal { nonce: [2; 32] }).await.unwrap();
            channel
        };
        let (_channel, answered) = tokio::join!(cheat, answered(&answerer, &mut incoming));
        assert!(matches!(answered, Err(PairError::Protocol(why)) if why.contains("committed")));
    }

    #[tokio::test]
    async fn garbage_and_giants_are_refused() {
        let ((asker, _), (answerer, mut incoming)) = (bound().await, bound().await);
        let addr = answerer.addr();
        for bytes in [&b"\xff\xff\xff\x7fgarbage"[..], b"\x04\x00\x00\x00\xff\xff\xff\xff"] {
            let mut channel = asker.open(&addr, Protocol::Pair).await.unwrap();
            channel.send.write_all(bytes).await.unwrap();
            assert!(matches!(answered(&answerer, &mut incoming).await, Err(PairError::Protocol(_))));
        }
    }

    #[test]
    fn codes_are_read_as_people_write_them() {
        assert_eq!(Code::parse("012 345").map(|c| c.to_string()), Some("012 345".to_owned()));
        assert_eq!(Code::parse("012345"), Code::parse("012-345"));
        assert_eq!(Code::parse("12345"), None);
        assert_eq!(Code::parse("+12345"), None);
    }

    /// Terminal escapes that set the title, clear the screen and write the clipboard; a name that fakes a list row.
    const HOSTILE: &str =
        "\u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}mac-mini sister-return-cause          code 482 915\u{1b}]52;c;cm0=\u{7}";

    #[tokio::test]
    async fn what_a_stranger_calls_himself_enters_as_one_short_line() {
        let ((stranger, _), (answerer, mut incoming)) = (bound().await, bound().await);
        let mut channel = stranger.open(&answerer.addr(), Protocol::Pair).await.unwrap();
        let hello = Message::Hello { name: HOSTILE.to_owned(), commitment: commit(&random()), invite: None };
        write(&mut channel, &hello).await.unwrap();
        let Incoming { peer, channel, .. } = incoming.recv().await.unwrap();
        let knock = receive(peer, channel).await.unwrap();
        assert_eq!(knock.name, "]0;owned[2Jmac-mini sister-retu…");
    }

    #[tokio::test]
    async fn a_strangers_refusal_writes_nothing_but_a_line() {
        let ((asker, _), (stranger, mut incoming)) = (bound().await, bound().await);
        let addr = stranger.addr();
        let refuse = async {
            let Incoming { peer, channel, .. } = incoming.recv().await.unwrap();
            receive(peer, channel).await.unwrap().refuse(&format!("{HOSTILE}\nerror: run this")).await;
        };
        let (asked, ()) = tokio::join!(ask(&asker, &addr, "a", None), refuse);
        let error = asked.unwrap_err();
        let PairError::Refused(why) = &error else { panic!("{error}") };
        assert_eq!(why, "]0;owned[2Jmac-mini sister-return-cause code 482 915]52;c;cm0= error: run this");
    }
}
