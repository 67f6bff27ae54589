//! The protocols between machines, and their ALPN names.

/// The purpose of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Pairing; open to strangers.
    Pair,
    /// Heartbeats, requests and replies.
    Control,
    /// Frames of the ring.
    Stage,
    /// Measures a path, see [`crate::gauge`].
    Gauge,
}

impl Protocol {
    pub(crate) const ALL: [Self; 4] = [Self::Pair, Self::Control, Self::Stage, Self::Gauge];

    pub(crate) fn alpn(self) -> &'static [u8] {
        match self {
            Self::Pair => b"hivemind/pair/1",
            Self::Control => b"hivemind/control/1",
            Self::Stage => b"hivemind/stage/1",
            Self::Gauge => b"hivemind/gauge/1",
        }
    }

    pub(crate) fn from_alpn(alpn: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.alpn() == alpn)
    }
}
