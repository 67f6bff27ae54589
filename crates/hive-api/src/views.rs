//! Converts the node's state to the types that the API, the command line and the app share.
//!
//! Each conversion destructures every field, so that a field added to the node cannot be forgotten in a reply.

use hive_node::Node;
use hive_node::serving::Layout;
use hive_types::{
    Heat, Link, LinkKind, MeasuredPath, ModelCopy, PeerView, PlanView, PlannedStage, Power, Profile, Reason, Rights,
    Status,
};

/// The node's current status.
pub fn status(node: &Node) -> Status {
    status_view(node.status())
}

pub(crate) fn status_view(status: hive_node::Status) -> Status {
    let hive_node::Status {
        id,
        fingerprint,
        profile,
        share,
        paused,
        addresses,
        discovery,
        peers,
        left_out,
        answered_tokens,
        today,
        model,
        loads,
    } = status;
    Status {
        id,
        fingerprint,
        profile: self::profile(profile),
        share,
        paused,
        addresses,
        discovery,
        peers: peers.into_iter().map(peer).collect(),
        left_out,
        answered_tokens,
        today,
        model,
        loading: loads.first().cloned(),
        loads,
    }
}

fn profile(profile: hive_node::Profile) -> Profile {
    let hive_node::Profile {
        name,
        version,
        chip,
        os,
        threads,
        memory_bytes,
        taken_bytes,
        offered_bytes,
        sharing,
        not_sharing,
        why_not_sharing,
        gpu,
        decode_tokens_per_s,
        bytes_per_s,
        prefill_tokens_per_s,
        cap_bytes,
        held_bytes,
        over_cap,
        limit_bytes,
        sends_bits_per_s,
        models,
        copies,
        fetches,
        sessions,
        power,
        heat,
    } = profile;
    let copy = |hive_node::ModelCopy { name, digest }| ModelCopy { name, digest };
    Profile {
        name,
        version,
        chip,
        os,
        threads,
        memory_bytes,
        taken_bytes,
        offered_bytes,
        sharing,
        not_sharing,
        why_not_sharing,
        gpu,
        decode_tokens_per_s,
        bytes_per_s,
        prefill_tokens_per_s,
        cap_bytes,
        held_bytes,
        over_cap,
        limit_bytes,
        sends_bits_per_s,
        models,
        copies: copies.map(|copies| copies.into_iter().map(copy).collect()),
        fetches,
        sessions,
        power: self::power(power),
        heat: self::heat(heat),
    }
}

fn power(power: hive_host::Power) -> Power {
    let hive_host::Power { on_battery, battery_percent, low_power_mode } = power;
    Power { on_battery, battery_percent, low_power_mode }
}

fn heat(heat: hive_host::Heat) -> Heat {
    match heat {
        hive_host::Heat::Nominal => Heat::Nominal,
        hive_host::Heat::Fair => Heat::Fair,
        hive_host::Heat::Serious => Heat::Serious,
        hive_host::Heat::Critical => Heat::Critical,
    }
}

pub(crate) fn peer(view: hive_node::PeerView) -> PeerView {
    let hive_node::PeerView {
        id,
        name,
        fingerprint,
        state,
        paired,
        link,
        condition,
        bits_per_s,
        other_paths,
        profile,
        rights,
    } = view;
    PeerView {
        id,
        name,
        fingerprint,
        state,
        paired,
        link: link.map(self::link),
        condition,
        bits_per_s,
        other_paths: other_paths.into_iter().map(path).collect(),
        profile: profile.map(self::profile),
        rights: rights.map(self::rights),
    }
}

fn link(link: hive_node::Link) -> Link {
    let hive_node::Link { kind, remote, round_trip_us } = link;
    Link { kind: link_kind(kind), remote, round_trip_us }
}

fn link_kind(kind: hive_node::LinkKind) -> LinkKind {
    match kind {
        hive_node::LinkKind::Loopback => LinkKind::Loopback,
        hive_node::LinkKind::Thunderbolt => LinkKind::Thunderbolt,
        hive_node::LinkKind::Ethernet => LinkKind::Ethernet,
        hive_node::LinkKind::Wifi => LinkKind::Wifi,
        hive_node::LinkKind::Vpn => LinkKind::Vpn,
        hive_node::LinkKind::Relay => LinkKind::Relay,
        hive_node::LinkKind::Other => LinkKind::Other,
    }
}

fn path(path: hive_node::MeasuredPath) -> MeasuredPath {
    let hive_node::MeasuredPath { link, bits_per_s } = path;
    MeasuredPath { link: self::link(link), bits_per_s }
}

pub(crate) fn rights(rights: hive_node::Rights) -> Rights {
    let hive_node::Rights { memory, prompts, memory_limit_bytes, session_limit } = rights;
    Rights { memory, prompts, memory_limit_bytes, session_limit }
}

pub(crate) fn plan(layout: Layout) -> PlanView {
    let Layout { model, layers, plan, placements } = layout;
    let stages = plan.stages.into_iter().map(|stage| PlannedStage {
        node: placements[stage.machine].name.clone(),
        layers: [stage.layers.start, stage.layers.end],
        weight_bytes: stage.weight_bytes,
        kv_bytes: stage.kv_bytes,
        base_bytes: stage.base_bytes,
    });
    PlanView {
        model,
        layers,
        stages: stages.collect(),
        reasons: plan.reasons.iter().map(Reason::to_string).collect(),
        because: plan.reasons,
        decode_tokens_per_s: plan.decode_tokens_per_s,
    }
}
