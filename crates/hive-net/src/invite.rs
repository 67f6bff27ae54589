//! Invitations for machines outside this network: a ticket has this machine's address and a one-time secret that
//! expires. It only allows its bearer to ask; both owners still compare a code and approve.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use iroh_tickets::{ParseError, Ticket as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::addr::PeerAddr;

/// The secret in a ticket.
pub type InviteSecret = [u8; 16];

/// The ticket version.
const VERSION: u8 = 1;

/// An invitation: an address and a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The inviting machine.
    pub addr: PeerAddr,
    /// The secret to present to it.
    pub secret: InviteSecret,
}

/// Why text is not a ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It does not begin like a ticket.
    #[error("this is not a HiveMind invitation; those begin with \"hivemind\"")]
    Foreign,
    /// It begins like a ticket but does not decode.
    #[error("the invitation is incomplete or has a mistake in it; copy all of it, from \"hivemind\" to its end")]
    Cut,
    /// It has another version.
    #[error("the invitation is of version {0}, this HiveMind reads version {VERSION}; update the older of the two")]
    Version(u8),
}

#[derive(Serialize, Deserialize)]
struct Wire {
    addr: PeerAddr,
    secret: InviteSecret,
    /// Detects a copying mistake here, instead of as a machine that does not answer.
    check: [u8; 4],
}

impl iroh_tickets::Ticket for Ticket {
    const KIND: &'static str = "hivemind";

    fn encode_bytes(&self) -> Vec<u8> {
        let wire = Wire { addr: self.addr.clone(), secret: self.secret, check: check(&self.addr, &self.secret) };
        let bytes = postcard::to_stdvec(&wire).expect("an address and a secret can be written");
        [&[VERSION][..], &bytes].concat()
    }

    fn decode_bytes(bytes: &[u8]) -> Result<Self, ParseError> {
        let wire: Wire = postcard::from_bytes(bytes.get(1..).unwrap_or_default())?;
        if wire.check != check(&wire.addr, &wire.secret) {
            return Err(ParseError::verification_failed("checksum"));
        }
        Ok(Self { addr: wire.addr, secret: wire.secret })
    }
}

fn check(addr: &PeerAddr, secret: &InviteSecret) -> [u8; 4] {
    let bytes = postcard::to_stdvec(&(addr, secret)).expect("an address and a secret can be written");
    let digest = Sha256::digest(bytes);
    [digest[0], digest[1], digest[2], digest[3]]
}

impl Ticket {
    /// The ticket as text, without spaces.
    pub fn to_text(&self) -> String {
        self.encode_string()
    }

    /// Parses a ticket; ignores spaces and line breaks from copying.
    pub fn parse(text: &str) -> Result<Self, TicketError> {
        let text: String = text.split_whitespace().collect();
        let Some(rest) = text.strip_prefix("hivemind") else { return Err(TicketError::Foreign) };
        // The first character is the version's upper five bits, the second its lower three.
        let version = data_encoding::BASE32_NOPAD.decode(rest.get(..8).unwrap_or_default().to_uppercase().as_bytes());
        match version.ok().and_then(|bytes| bytes.first().copied()) {
            Some(VERSION) => Self::decode_string(&text).map_err(|_| TicketError::Cut),
            Some(other) if rest.len() > 8 => Err(TicketError::Version(other)),
            _ => Err(TicketError::Cut),
        }
    }
}

/// Why a secret is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// It was never issued here, or was used.
    #[error("this invitation is not known here, or was used before; ask for a new one")]
    Unknown,
    /// It has expired.
    #[error("this invitation has expired; ask for a new one")]
    Expired,
}

/// Issued and unused invitations. Kept on disk, so that they survive a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invites {
    /// Expiry of each, in seconds since 1970 by this machine's clock, by a digest of its secret.
    open: BTreeMap<String, u64>,
}

impl Invites {
    /// Issues an invitation.
    pub fn give_out(&mut self, valid_for: Duration, now: SystemTime) -> InviteSecret {
        self.open.retain(|_, until| *until >= seconds(now));
        let mut secret = InviteSecret::default();
        secret.copy_from_slice(&iroh::SecretKey::generate().to_bytes()[..16]);
        self.open.insert(digest(&secret), seconds(now) + valid_for.as_secs());
        secret
    }

    /// Redeems an invitation, which can be used once. Only the clock of the issuing machine counts.
    pub fn redeem(&mut self, secret: &InviteSecret, now: SystemTime) -> Result<(), InviteError> {
        match self.open.remove(&digest(secret)) {
            None => Err(InviteError::Unknown),
            Some(until) if until < seconds(now) => Err(InviteError::Expired),
            Some(_) => Ok(()),
        }
    }
}

fn digest(secret: &InviteSecret) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest([b"HiveMind invite ", &secret[..]].concat()))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    fn ticket() -> Ticket {
        let addr = PeerAddr::new(Identity::generate().id(), ["192.168.1.2:7000".parse().unwrap()]);
        Ticket { addr: addr.with_relay("http://relay.example:3340"), secret: [7; 16] }
    }

    #[test]
    fn a_ticket_is_read_back_also_from_an_email() {
        let ticket = ticket();
        let text = ticket.to_text();
        assert_eq!(Ticket::parse(&text), Ok(ticket.clone()));
        let wrapped = format!("  {}\n {} \n", &text[..60], &text[60..]);
        assert_eq!(Ticket::parse(&wrapped), Ok(ticket));
    }

    #[test]
    fn what_is_no_ticket_says_so() {
        let text = ticket().to_text();
        assert_eq!(Ticket::parse("endpointabc"), Err(TicketError::Foreign));
        assert_eq!(Ticket::parse(""), Err(TicketError::Foreign));
        for end in [8, 12, 40, text.len() - 1] {
            assert_eq!(Ticket::parse(&text[..end]), Err(TicketError::Cut), "{end}");
        }
        let slip = |at: usize| {
            let other = if &text[at..=at] == "a" { "b" } else { "a" };
            format!("{}{other}{}", &text[..at], &text[at + 1..])
        };
        for at in [20, 50, text.len() / 2] {
            assert_eq!(Ticket::parse(&slip(at)), Err(TicketError::Cut), "{at}");
        }
        let newer = format!("hivemindai{}", &text[10..]);
        assert_eq!(Ticket::parse(&newer), Err(TicketError::Version(2)));
    }

    #[test]
    fn an_invitation_opens_once_and_for_a_while() {
        let (mut invites, now) = (Invites::default(), SystemTime::now());
        let hour = Duration::from_hours(1);
        let (one, two) = (invites.give_out(hour, now), invites.give_out(hour, now));
        assert_eq!(invites.redeem(&one, now), Ok(()));
        assert_eq!(invites.redeem(&one, now), Err(InviteError::Unknown));
        assert_eq!(invites.redeem(&two, now + hour * 2), Err(InviteError::Expired));
        assert_eq!(invites.redeem(&[0; 16], now), Err(InviteError::Unknown));
    }
}
