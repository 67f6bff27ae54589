//! The machines that may hold parts of a model: present, sharing and trusted, each with its profile.

use hive_net::PeerId;
use hive_plan::{Form, LinkProfile, NodeProfile};
use hive_protocol::{ModelSource, Profile};
use hive_types::Reason;

use crate::lacks::{Lack, lacking};
use crate::membership::Membership;
use crate::placement::Placement;
use crate::trust::ASSUMED_BYTES_PER_S;

/// Which machines are considered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those that have not failed recently.
    Healthy,
    /// Also those whose only recent failures were stages that did not load.
    WithLoadFailures,
}

/// Links that have not been measured are assumed to be Wi-Fi.
const ASSUMED_ROUND_TRIP_US: f64 = 4000.0;
const ASSUMED_BITS_PER_S: f64 = 100e6;

/// Deviations from a machine's claims are reported only beyond these factors.
const NOTABLY_SLOWER: f64 = 0.7;
const NOTABLY_MORE: f64 = 1.5;

/// This machine's index among the candidates.
pub const HERE: usize = 0;

/// A machine that a plan may use.
pub struct Candidate {
    /// Name and address.
    pub placement: Placement,
    /// The figures that plans use.
    pub profile: NodeProfile,
    /// Memory that it can offer beyond what it already holds, in bytes.
    room_bytes: u64,
    /// Round trip in microseconds and bits per second from this machine; `None` for this machine itself.
    link: Option<(f64, f64)>,
    /// The fraction of its claimed speed that plans use.
    pub pace: f64,
    /// Its claimed speed divided by the speed that plans credit.
    overclaim: f64,
}

/// The link between two machines. If neither is this one, both the round trip and the rate are those of the worse of
/// their links to this machine.
pub fn between(a: &Candidate, b: &Candidate) -> LinkProfile {
    let (near, far) = (a.link.unwrap_or((0.0, f64::INFINITY)), b.link.unwrap_or((0.0, f64::INFINITY)));
    LinkProfile { round_trip_us: near.0.max(far.0), bits_per_s: near.1.min(far.1) }
}

impl Membership {
    /// Whether a machine has left, or has restarted since this incarnation of it was met.
    pub fn has_left(&self, machine: PeerId, incarnation: u64) -> bool {
        // Nodes of one process are not tracked; their incarnation is 0 and never ends.
        machine != self.id() && incarnation != 0 && self.peers().incarnation(machine) != Some(incarnation)
    }

    /// Whether a machine has announced that it no longer shares.
    pub fn is_leaving(&self, machine: PeerId) -> bool {
        self.peers().present().iter().any(|(peer, profile)| *peer == machine && !profile.sharing)
    }

    /// Whether a machine holds more than its owner's cap allows.
    pub fn is_over_cap(&self, machine: PeerId) -> bool {
        let over = |(peer, profile): &(PeerId, Profile)| *peer == machine && profile.over_cap;
        (machine == self.id() && self.profile().over_cap) || self.peers().present().iter().any(over)
    }

    /// Whether a machine advertises room for this many bytes.
    pub fn advertises_capacity(&self, machine: PeerId, bytes: u64) -> bool {
        let enough = |(peer, profile): &(PeerId, Profile)| *peer == machine && profile.room_bytes() >= bytes;
        self.sharing_others().iter().any(enough)
    }

    /// The machines that may load another stage of a model, with their free memory.
    pub fn machines(&self, source: &ModelSource) -> Vec<(Placement, NodeProfile)> {
        let candidates = self.candidates(Some(source), &[], Scope::Healthy).into_iter();
        let within_cap = candidates.filter(|machine| !self.is_over_cap(machine.placement.addr.id()));
        let beside = |machine: Candidate| NodeProfile { memory_bytes: machine.room_bytes, ..machine.profile };
        within_cap.map(|machine| (machine.placement.clone(), beside(machine))).collect()
    }

    /// Whether a machine has a model, or parts of it, on its disk, as far as is known.
    pub fn has_copy(&self, machine: PeerId, source: &ModelSource) -> bool {
        let ModelSource::Named(_, digest) = source else { return true };
        let profile = self.peers().profile_of_present(machine);
        let copies = profile.and_then(|profile| profile.copies);
        copies.is_none_or(|copies| copies.iter().any(|copy| copy.digest.as_ref() == Some(digest)))
    }

    /// The machines whose claims are not credited in full, and those that plans exclude.
    pub fn remarks(&self, machines: &[Candidate], source: Option<&ModelSource>) -> Vec<Reason> {
        let name = |machine: &Candidate| machine.placement.name.clone();
        let slower = machines.iter().filter(|machine| machine.pace < NOTABLY_SLOWER);
        let slower = slower.map(|machine| Reason::Slower { machine: name(machine), percent: machine.pace * 100.0 });
        let unproven = machines.iter().filter(|machine| machine.overclaim > NOTABLY_MORE);
        let unproven = unproven.map(|machine| Reason::Unproven { machine: name(machine), times: machine.overclaim });
        let full = machines.iter().filter(|machine| self.trust().room_bytes(machine.placement.addr.id()) < u64::MAX);
        let full = full.map(|machine| Reason::HadNoRoom { machine: name(machine) });
        let is_used = |peer: PeerId| machines.iter().any(|machine| machine.placement.addr.id() == peer);
        let others = self.sharing_others().into_iter().filter(|(peer, _)| !is_used(*peer));
        let excluded =
            others.filter_map(|(peer, profile)| self.exclusion(peer, Some(&profile), source, Scope::Healthy));
        slower.chain(unproven).chain(full).chain(excluded).collect()
    }

    /// The reasons why approved machines are excluded from a model's plans.
    pub fn exclusions(&self, source: &ModelSource) -> Vec<Reason> {
        self.peers().approved().into_iter().filter_map(|peer| self.exclusion_of(peer, source)).collect()
    }

    /// Why an approved machine is excluded from a model's plans, if it is.
    pub fn exclusion_of(&self, machine: PeerId, source: &ModelSource) -> Option<Reason> {
        let profile = self.peers().profile_of_present(machine);
        self.exclusion(machine, profile.as_ref(), Some(source), Scope::Healthy)
    }

    /// Why a plan may not use a machine, if so. `profile` is `None` if the machine is absent.
    fn exclusion(
        &self,
        peer: PeerId,
        profile: Option<&Profile>,
        source: Option<&ModelSource>,
        scope: Scope,
    ) -> Option<Reason> {
        let machine = self.peers().name(peer);
        let Some(profile) = profile else { return Some(Reason::Away { machine, why: self.peers().why_away(peer) }) };
        if !profile.sharing {
            let (why, said) = (profile.why_not_sharing, profile.not_sharing.clone());
            return Some(Reason::NotSharing { machine, why, said });
        }
        if !self.may_see_prompts(peer) {
            return Some(Reason::NoPrompts { machine });
        }
        if let Some(source) = source
            && let Some(lack) = self.lacks().of(peer, profile, source)
        {
            return Some(lacking(machine, source, lack));
        }
        let left = self.trust().quarantined_for(peer)?;
        if scope == Scope::WithLoadFailures && self.trust().may_be_asked_again(peer) {
            return None;
        }
        Some(if self.trust().is_quarantined(peer) {
            Reason::WrongNumbers { machine, hours: left.as_secs().div_ceil(3600) }
        } else {
            Reason::Failed { machine, minutes: left.as_secs().div_ceil(60) }
        })
    }

    /// Quarantines a machine that computed wrong numbers, and notifies the owner.
    pub fn quarantine(&self, machine: PeerId, name: &str) {
        if !self.trust().is_quarantined(machine) {
            self.trust().quarantine(machine);
            self.peers().notice(machine, format!("{name} computed wrong numbers and is quarantined."));
        }
    }

    /// Notifies the owner that two machines disagree and nobody can say which one is wrong. Neither is quarantined.
    pub fn report_disagreement(&self, machine: PeerId, text: String) {
        if self.trust().note_doubt(machine) {
            tracing::warn!("{text}");
            self.peers().notice(machine, text);
        }
    }

    /// How a machine lacks a model that it reported as missing when asked to load it.
    pub fn lacking(&self, machine: PeerId, name: &str, source: &ModelSource) -> Reason {
        let profile = self.peers().profile_of_present(machine).unwrap_or_default();
        let lack = self.lacks().of(machine, &profile, source);
        lacking(name.to_owned(), source, lack.unwrap_or(Lack::Missing))
    }

    /// Whether plans may use a machine now.
    pub fn is_candidate(&self, machine: PeerId) -> bool {
        let shares = || self.sharing_others().iter().any(|(peer, _)| *peer == machine);
        machine == self.id()
            || (shares() && self.may_see_prompts(machine) && self.trust().quarantined_for(machine).is_none())
    }

    /// The other machines that are present and share.
    pub fn sharing_others(&self) -> Vec<(PeerId, Profile)> {
        let mut others = self.peers().present();
        others.retain(|(_, profile)| profile.sharing);
        others
    }

    /// This machine, followed by the others that plans may use, largest offer first. Their memory is what they offer
    /// once the bytes in `freed` are freed.
    pub fn candidates(&self, source: Option<&ModelSource>, freed: &[(PeerId, u64)], scope: Scope) -> Vec<Candidate> {
        let own = self.profile();
        let mut others = self.sharing_others();
        others.retain(|(peer, profile)| self.exclusion(*peer, Some(profile), source, scope).is_none());
        others.sort_by_key(|(_, profile)| std::cmp::Reverse(profile.offered_bytes));
        // A machine that has not been measured is assumed to be as fast as the slowest measured one.
        let credible = |id: PeerId, profile: &Profile| {
            let claimed = profile.bytes_per_s?;
            let is_own = id == self.id();
            Some(if is_own { claimed } else { self.trust().credible(id, claimed, own.bytes_per_s) })
        };
        let known = others.iter().filter_map(|(peer, profile)| credible(*peer, profile)).chain(own.bytes_per_s);
        let slowest = known.min_by(f64::total_cmp).unwrap_or(ASSUMED_BYTES_PER_S);
        let candidate = |placement: Placement, profile: &Profile, link: Option<(f64, f64)>| {
            let id = placement.addr.id();
            let pace = self.trust().pace(id);
            let freed_bytes = freed.iter().filter(|(machine, _)| *machine == id).map(|(_, bytes)| *bytes).sum();
            Candidate {
                profile: NodeProfile {
                    name: placement.name.clone(),
                    memory_bytes: profile.offered_after(freed_bytes).min(self.trust().room_bytes(id)),
                    bytes_per_s: credible(id, profile).unwrap_or(slowest) * pace,
                    form: if profile.gpu { Form::Mlx } else { Form::Packed },
                },
                overclaim: profile.bytes_per_s.zip(credible(id, profile)).map_or(1.0, |(all, part)| all / part),
                room_bytes: profile.room_bytes().min(self.trust().room_bytes(id)),
                placement,
                link,
                pace,
            }
        };
        let here = Placement { name: self.name().to_owned(), addr: self.addr(), gpu: own.gpu };
        let mut machines = vec![candidate(here, &own, None)];
        for (peer, profile) in others {
            let (name, addr) = (self.peers().name(peer), self.peers().addr(peer));
            let placement = Placement { name, addr, gpu: profile.gpu };
            let round_trip = self.endpoint().link(peer).map_or(ASSUMED_ROUND_TRIP_US, |link| link.round_trip_us as f64);
            let rate = self.rate(peer).map_or(ASSUMED_BITS_PER_S, |rate| rate as f64);
            // The limits that both owners set on sending apply.
            let limits = [own.sends_bits_per_s, profile.sends_bits_per_s].into_iter().flatten();
            let rate = limits.fold(rate, |rate, limit| rate.min(limit as f64));
            machines.push(candidate(placement, &profile, Some((round_trip, rate))));
        }
        machines
    }
}
