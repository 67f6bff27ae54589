//! Conversion between the frames of a ring and the inputs and outputs of a worker.

use bytes::Bytes;
use hive_model::sampling::Sampled;
use hive_model::shard::Input;
use hive_model::{ActivationType, Hidden};
use hive_net::{Element, Frame, Kind, border};
use serde::{Deserialize, Serialize};

use hive_protocol::SessionSpec;

/// The worker's input in a frame, and whether to sample a token; `None` for frames that are not for stages.
pub(super) fn input_of(frame: Frame) -> Option<(Input, bool)> {
    match frame.kind {
        Kind::Tokens => {
            let token = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            Some((Input::Tokens(frame.payload.chunks_exact(4).map(token).collect()), frame.sample))
        }
        Kind::Hidden => {
            let activation = activation(frame.element);
            let (rows, width) = (frame.rows as usize, frame.width as usize);
            Some((Input::Hidden(Hidden { activation, rows, width, bytes: frame.payload.into() }), frame.sample))
        }
        Kind::Token => Some((Input::Tokens(vec![token_of(&frame)]), true)),
        Kind::Failed | Kind::Read => None,
    }
}

/// The number format of a frame of hidden states.
pub(super) fn activation(element: Element) -> ActivationType {
    match element {
        Element::F16 => ActivationType::F16,
        Element::Bf16 => ActivationType::Bf16,
        _ => ActivationType::F32,
    }
}

pub(super) fn hidden_frame(session: u128, position: u32, sample: bool, hidden: Hidden) -> Frame {
    let element = match hidden.activation {
        ActivationType::F32 => Element::F32,
        ActivationType::F16 => Element::F16,
        ActivationType::Bf16 => Element::Bf16,
    };
    Frame {
        kind: Kind::Hidden,
        element,
        sample,
        last: false,
        session,
        epoch: 0,
        position,
        rows: hidden.rows as u32,
        width: hidden.width as u32,
        payload: hidden.bytes.into(),
    }
}

/// The frame for a chunk of a prompt.
pub fn prompt_frame(session: u128, position: u32, tokens: &[u32], sample: bool) -> Frame {
    let payload: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    Frame {
        kind: Kind::Tokens,
        element: Element::U32,
        sample,
        last: false,
        session,
        epoch: 0,
        position,
        rows: tokens.len() as u32,
        width: 1,
        payload: payload.into(),
    }
}

/// The frame for the token at `position`: four bytes, plus log probabilities if they were requested.
pub(super) fn token_frame(spec: &SessionSpec, position: u32, sampled: &Sampled) -> Frame {
    let mut payload = sampled.token.to_le_bytes().to_vec();
    if let Some(logprob) = sampled.logprob {
        payload.extend(logprob.to_le_bytes());
        for (token, logprob) in &sampled.top {
            payload.extend(token.to_le_bytes());
            payload.extend(logprob.to_le_bytes());
        }
    }
    let last = position >= spec.last_position || spec.end_tokens.contains(&sampled.token);
    byte_frame(Kind::Token, last, spec.session, 0, position, payload)
}

/// Why a session cannot continue, and whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// The request is at fault; it would fail on any machine.
    Request,
    /// The stage with this index computes nonsense, or nothing.
    Stage(u32),
    /// A link between stages broke, or a stage is gone.
    Link,
    /// The last stage sampled an impossible token.
    LastStage,
}

impl Fault {
    /// The fault of whoever sent a stage its input for `position`. For the first stage, that is the coordinator before
    /// `asked`, so the request is at fault, and the last stage after it.
    pub(super) fn of_sender(stage: u32, position: u32, asked: u32) -> Self {
        match stage.checked_sub(1) {
            Some(previous) => Self::Stage(previous),
            None if position < asked => Self::Request,
            None => Self::LastStage,
        }
    }

    /// The index of the stage at fault, out of `stages`.
    pub fn stage(self, stages: usize) -> Option<usize> {
        match self {
            Self::Stage(index) => Some(index as usize),
            Self::LastStage => stages.checked_sub(1),
            Self::Request | Self::Link => None,
        }
    }
}

/// The content of a failure frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Whose fault it was.
    pub fault: Fault,
    /// The reason, as text.
    pub why: String,
}

/// Maximum length of a reason, which is usually one sentence.
const LONGEST_REASON_BYTES: usize = 8000;

/// The frame that says why a session failed, as seen in this epoch of the ring.
pub(crate) fn failed_frame(session: u128, epoch: u32, fault: Fault, why: &str) -> Frame {
    let end = (0..=why.len().min(LONGEST_REASON_BYTES)).rev().find(|at| why.is_char_boundary(*at)).unwrap_or(0);
    let failure = Failure { fault, why: why[..end].to_owned() };
    let payload = postcard::to_stdvec(&failure).unwrap_or_default();
    byte_frame(Kind::Failed, true, session, epoch, 0, payload)
}

/// Reads a failure frame; an unreadable one blames the link.
pub fn failure_of(frame: &Frame) -> Failure {
    match postcard::from_bytes(&frame.payload) {
        Ok(Failure { fault, why }) => Failure { fault, why: border::reason(&why) },
        Err(_) => Failure { fault: Fault::Link, why: "a failure that is not understood".to_owned() },
    }
}

/// The frame that says how much of a prompt has been read.
pub(super) fn read_frame(session: u128, position: u32) -> Frame {
    byte_frame(Kind::Read, false, session, 0, position, Vec::new())
}

fn byte_frame(kind: Kind, last: bool, session: u128, epoch: u32, position: u32, payload: Vec<u8>) -> Frame {
    Frame {
        kind,
        element: Element::Byte,
        sample: false,
        last,
        session,
        epoch,
        position,
        rows: 1,
        width: payload.len() as u32,
        payload: Bytes::from(payload),
    }
}

/// Whether the first stage continues with this frame.
pub(crate) fn turns(frame: &Frame) -> bool {
    frame.kind == Kind::Token && !frame.last
}

/// The token of a token frame.
pub(crate) fn token_of(frame: &Frame) -> u32 {
    sampled_of(frame).token
}

/// The token of a token frame with its log probabilities. The frame's decoder has checked that there are four bytes.
pub fn sampled_of(frame: &Frame) -> Sampled {
    let word = |at: usize| -> Option<[u8; 4]> { frame.payload.get(at..at + 4)?.try_into().ok() };
    let token = word(0).map_or(0, u32::from_le_bytes);
    let logprob = word(4).map(f32::from_le_bytes);
    let pair = |at: usize| Some((u32::from_le_bytes(word(at)?), f32::from_le_bytes(word(at + 4)?)));
    Sampled { token, logprob, top: (8..).step_by(8).map_while(pair).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> SessionSpec {
        SessionSpec {
            session: 7,
            answer: 1,
            options: hive_model::SessionOptions::default(),
            end_tokens: vec![2],
            last_position: 10,
            continues: None,
        }
    }

    #[test]
    fn a_token_frame_carries_the_token_and_its_probabilities() {
        let sampled = Sampled { token: 5, logprob: Some(-0.5), top: vec![(5, -0.5), (9, -2.0)] };
        let frame = token_frame(&spec(), 3, &sampled);
        assert_eq!(sampled_of(&frame), sampled);
        assert!(!frame.last);
        let bare = Sampled { token: 5, logprob: None, top: Vec::new() };
        assert_eq!(token_frame(&spec(), 3, &bare).payload.len(), 4);
    }

    #[test]
    fn a_failure_of_another_machine_writes_to_no_terminal() {
        let failure = failure_of(&failed_frame(7, 0, Fault::Link, "lost\u{1b}[2J\u{202e}\nerror: run this"));
        assert_eq!(failure, Failure { fault: Fault::Link, why: "lost[2J error: run this".to_owned() });
    }

    #[test]
    fn an_answer_ends_at_an_end_token_or_at_its_last_position() {
        let sampled = |token| Sampled { token, logprob: None, top: Vec::new() };
        assert!(token_frame(&spec(), 3, &sampled(2)).last);
        assert!(token_frame(&spec(), 10, &sampled(5)).last);
        assert!(!token_frame(&spec(), 9, &sampled(5)).last);
    }

    #[test]
    fn a_token_that_cannot_be_is_never_the_first_stages_fault() {
        assert_eq!(Fault::of_sender(2, 0, 5), Fault::Stage(1));
        assert_eq!(Fault::of_sender(0, 4, 5), Fault::Request);
        let fault = Fault::of_sender(0, 5, 5);
        assert_eq!(
            [fault, Fault::Stage(1), Fault::Link, Fault::Request].map(|fault| fault.stage(3)),
            [Some(2), Some(1), None, None]
        );
        assert_eq!(fault.stage(0), None);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = failed_frame(1, 1, Fault::Stage(3), &"é".repeat(9000));
        let sent: Failure = postcard::from_bytes(&frame.payload).unwrap();
        assert_eq!(sent.why.len(), LONGEST_REASON_BYTES);
        let Failure { fault, why } = failure_of(&frame);
        assert_eq!((fault, why), (Fault::Stage(3), "é".repeat(border::REASON_COLUMNS - 1) + "…"));
    }
}
