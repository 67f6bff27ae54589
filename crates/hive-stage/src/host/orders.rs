//! Who may give which order about a stage. Checked first, before anything else in the order.
//!
//! A stage belongs to the machine that had it loaded, its owner. Nobody else commands it, even with the right ids. It
//! takes frames only from its owner and from the stage before it, and sessions only from the machine that its owner
//! named.

use hive_net::PeerId;

use hive_protocol::{Request, StageId};

/// An order about a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Load it, in place of any stage with the same id.
    Load,
    /// Any command of its owner.
    Command,
    /// Take frames.
    Frames,
    /// Take over sessions.
    ReceiveSessions,
}

/// Why an order is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    /// There is no stage with this id.
    #[error("{NO_SUCH_STAGE}")]
    NoSuchStage,
    /// Another machine owns it.
    #[error("{NO_SUCH_STAGE}")]
    NotItsOwner,
    /// It is not connected to this machine.
    #[error("{NO_SUCH_STAGE}")]
    NotItsNeighbour,
    /// Its owner has named another machine, or none, to hand sessions over.
    #[error("{NO_SUCH_STAGE}")]
    NotNamed,
}

/// The reply in every case, so that a machine without a say over a stage does not learn that it exists.
const NO_SUCH_STAGE: &str = "it holds no such stage";

/// The machines that have a say over a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claims {
    /// The one that had it loaded.
    pub(crate) owner: PeerId,
    /// The one whose frames it takes besides the owner's: the stage before it or, for the first stage, the last. `None`
    /// until it is joined.
    pub(crate) previous: Option<PeerId>,
    /// The one that may hand its sessions over.
    pub(crate) draining_from: Option<PeerId>,
}

impl Claims {
    /// The claims on a stage that has just been loaded.
    pub(crate) fn of(owner: PeerId) -> Self {
        Self { owner, previous: None, draining_from: None }
    }
}

/// Checks whether `asker` may give this order, by the claims on the stage with its id, if there is one.
pub(crate) fn may(asker: PeerId, order: Order, claims: Option<&Claims>) -> Result<(), Denied> {
    let Some(claims) = claims else {
        return if order == Order::Load { Ok(()) } else { Err(Denied::NoSuchStage) };
    };
    match order {
        Order::Load | Order::Command if claims.owner == asker => Ok(()),
        Order::Load | Order::Command => Err(Denied::NotItsOwner),
        Order::Frames if claims.owner == asker || claims.previous == Some(asker) => Ok(()),
        Order::Frames => Err(Denied::NotItsNeighbour),
        Order::ReceiveSessions if claims.draining_from == Some(asker) => Ok(()),
        Order::ReceiveSessions => Err(Denied::NotNamed),
    }
}

/// The kind of order that a request is, and its stage; `None` if it is not about a stage.
pub(crate) fn order(request: &Request) -> Option<(StageId, Order)> {
    // No wildcard: whoever adds a request must decide who may send it.
    match request {
        Request::Load(id, _) => Some((*id, Order::Load)),
        Request::Join(id, _)
        | Request::Open(id, _)
        | Request::Close(id, _)
        | Request::Report(id)
        | Request::Unload(id)
        | Request::Retain(id, _)
        | Request::Check(id)
        | Request::Replay(id, _)
        | Request::Drain(id, _)
        | Request::ExpectSessions(id, _)
        | Request::Digests(id, _)
        | Request::Rows(id, _)
        | Request::Recompute(id, _)
        | Request::Adapt(id, _) => Some((*id, Order::Command)),
        Request::ReceiveSessions(id) => Some((*id, Order::ReceiveSessions)),
        // About the asker, about everything that the asker owns, or about models on the disk: `serve_parts` decides who
        // may have
        // them.
        Request::Greet(_)
        | Request::Measure(_)
        | Request::RenewLeases(_)
        | Request::GrantKey(_)
        | Request::Fetch(..)
        | Request::Outline(_)
        | Request::Bytes(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_obeys_its_owner_and_nobody_else() {
        let [owner, previous, leaving, stranger] = [(); 4].map(|()| hive_net::Identity::generate().id());
        let claims = Claims { owner, previous: Some(previous), draining_from: Some(leaving) };
        let allowed =
            |order| [owner, previous, leaving, stranger].map(|asker| may(asker, order, Some(&claims)).is_ok());
        assert_eq!(allowed(Order::Load), [true, false, false, false]);
        assert_eq!(allowed(Order::Command), [true, false, false, false]);
        assert_eq!(allowed(Order::Frames), [true, true, false, false]);
        assert_eq!(allowed(Order::ReceiveSessions), [false, false, true, false]);
    }

    #[test]
    fn a_stage_that_is_not_joined_takes_frames_from_its_owner_only() {
        let [owner, stranger] = [(); 2].map(|()| hive_net::Identity::generate().id());
        let claims = Claims::of(owner);
        assert_eq!(may(owner, Order::Frames, Some(&claims)), Ok(()));
        assert_eq!(may(stranger, Order::Frames, Some(&claims)), Err(Denied::NotItsNeighbour));
        assert_eq!(may(owner, Order::ReceiveSessions, Some(&claims)), Err(Denied::NotNamed));
    }

    #[test]
    fn what_is_not_here_can_be_loaded_and_nothing_else() {
        let asker = hive_net::Identity::generate().id();
        assert_eq!(may(asker, Order::Load, None), Ok(()));
        for order in [Order::Command, Order::Frames, Order::ReceiveSessions] {
            assert_eq!(may(asker, order, None), Err(Denied::NoSuchStage));
        }
    }

    #[test]
    fn a_refusal_does_not_tell_whether_the_stage_is_here() {
        let all = [Denied::NoSuchStage, Denied::NotItsOwner, Denied::NotItsNeighbour, Denied::NotNamed];
        assert!(all.iter().all(|denied| denied.to_string() == all[0].to_string()));
    }
}
