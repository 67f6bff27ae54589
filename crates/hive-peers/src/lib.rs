//! The other machines: identity, approval, rights, addresses, presence, and observations of them.
//!
//! [`Membership`] is this machine among them: its identity, network and profile. [`Peers`] has the records of the
//! others; `presence` keeps in touch with approved machines, `pairing` lets two people decide about a stranger, and
//! `fleet` says which machines may hold parts of a model.
//!
//! Invariant: nothing here knows a machine's computations. Presence asks [`Local`] for the little it needs.

mod changes;
pub mod data;
mod discovery;
mod find;
mod fleet;
mod identity;
mod lacks;
mod line;
mod local;
mod measure;
mod membership;
mod pairing;
mod pairings;
mod peers;
mod placement;
pub mod reach;
mod serve;
mod speed;
mod tasks;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod today;
mod trust;

pub use changes::Changes;
pub use find::{Called, FindPeerError, find};
pub use fleet::{Candidate, HERE, Scope, between};
pub use identity::OpenError;
pub use lacks::{Lack, Lacks, lacking};
pub use local::{Local, Opened, Work};
pub use membership::{Membership, MembershipOptions, StartError};
pub use pairing::INVITE_VALID_FOR;
pub use peers::{
    DecideError, MeasuredPath, Notice, Paired, PeerState, PeerView, Peers, RestoreError, Rights, RightsError,
};
pub use placement::Placement;
pub use speed::Speed;
pub use tasks::Tasks;
pub use today::DayWork;
pub use trust::{Failing, Trust};
