//! `hivemind status`, `peers`, and decisions about machines.

use std::io::{IsTerminal, Read};
use std::path::Path;

use clap::Args;
use hive_node::border;
use hive_types::{
    Approval, Done, Invitation, InviteRequest, JoinRequest, Link, PairingCode, PeerName, PeerState, PeerView, Profile,
    Rights, RightsChange, SharingChange, SharingReply, StageLayers, Status, Update,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::client::Client;
use crate::{Failure, output, swarm, values};

#[derive(Debug, Args)]
pub(crate) struct PeerOption {
    /// Machine name, ID prefix, or three-word fingerprint
    pub(crate) machine: String,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AllowOptions {
    /// Machine name, ID prefix, or three-word fingerprint
    pub(crate) machine: String,
    /// Whether its models may use this machine's memory
    #[arg(long, value_parser = values::switch, action = clap::ArgAction::Set, value_name = "on|off")]
    pub(crate) memory: Option<bool>,
    /// Whether models that answer here may be placed on it, which lets it see your prompts
    #[arg(long, value_parser = values::switch, action = clap::ArgAction::Set, value_name = "on|off")]
    pub(crate) prompts: Option<bool>,
    /// Maximum memory its models may use here, such as 4GB; 0 removes the limit
    #[arg(long, value_parser = values::memory, value_name = "SIZE")]
    pub(crate) memory_limit: Option<u64>,
    /// Maximum number of its answers to compute here at a time; 0 removes the limit
    #[arg(
        long,
        value_name = "N",
        value_parser = values::number("a number of answers, such as 2", 0_u32..),
        allow_negative_numbers = true
    )]
    pub(crate) session_limit: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ApproveOptions {
    /// Machine name, ID prefix, or three-word fingerprint
    pub(crate) machine: String,
    /// Code shown on the other machine; if omitted, you are asked to compare
    #[arg(long, value_name = "CODE")]
    pub(crate) code: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InviteOptions {
    /// How long the invitation is valid, in hours
    #[arg(
        long,
        default_value_t = 24.0,
        value_name = "H",
        value_parser = values::decimal::<f64>("a number of hours, such as 12"),
        allow_negative_numbers = true
    )]
    pub(crate) hours: f64,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct JoinOptions {
    /// Invitation, or a file that contains it; if omitted or "-", read from standard input, where others cannot see it
    pub(crate) invitation: Option<String>,
    /// Code shown on the other machine; if omitted, you are asked to compare
    #[arg(long, value_name = "CODE")]
    pub(crate) code: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

// Documentation of this struct would replace that of the command.
#[derive(Debug, Clone, Copy, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct ShareOptions {
    /// Turn sharing on or off
    #[arg(value_parser = values::switch, action = clap::ArgAction::Set, value_name = "on|off")]
    pub(crate) on: Option<bool>,
    /// Maximum memory to share, such as 8GB; layers that no longer fit move to other machines
    #[arg(long, value_parser = values::memory, value_name = "SIZE")]
    pub(crate) memory: Option<u64>,
}

pub(crate) async fn status(client: &Client, as_json: bool) -> Result<(), Failure> {
    if as_json {
        output::line(client.get::<Value>("/hive/v1/status", &[]).await?);
        return Ok(());
    }
    let status: Status = client.get("/hive/v1/status", &[]).await?;
    let profile = &status.profile;
    output::line(format_args!("{} · {}", profile.name, status.fingerprint));
    let speed = profile.decode_tokens_per_s;
    let speed = speed.map_or(String::new(), |speed| format!(" · {speed:.0} tok/s with the starter model"));
    output::line(format_args!("{} · {}{speed}", profile.chip, sharing_words(profile)));
    if status.discovery != "on" && status.discovery != "off" {
        output::line(&status.discovery);
    }
    if let Some(model) = status.model {
        let stages = model.stages.into_iter().map(|stage| StageLayers { node: stage.node, layers: stage.layers });
        output::line(format_args!("{} on {}", model.name, swarm::who(&stages.collect::<Vec<_>>())));
    }
    list(&status.peers);
    Ok(())
}

fn sharing_words(profile: &Profile) -> String {
    if profile.sharing {
        format!("sharing up to {}", output::megabytes(profile.offered_bytes))
    } else {
        profile.not_sharing.clone().unwrap_or_else(|| "not sharing".to_owned())
    }
}

/// Turns sharing on or off, pauses it, or changes the shared memory; prints the resulting state.
pub(crate) async fn sharing(client: &Client, changes: impl IntoIterator<Item = SharingChange>) -> Result<(), Failure> {
    let mut reply = SharingReply::default();
    for change in changes {
        reply = client.post("/hive/v1/sharing", &change).await?;
        if let Some(why) = &reply.not_kept {
            output::warning(why);
        }
    }
    output::line(sharing_words(&reply.status.profile));
    Ok(())
}

pub(crate) async fn peers(client: &Client, as_json: bool) -> Result<(), Failure> {
    let Status { peers, left_out, .. } = client.get("/hive/v1/status", &[]).await?;
    if as_json {
        output::line(json!({ "peers": peers, "left_out": left_out }));
        return Ok(());
    }
    if peers.is_empty() {
        output::line(
            "No other machines yet. Start HiveMind on one, or run `hivemind invite` to add one on another network.",
        );
    }
    list(&peers);
    if left_out > 0 {
        output::line(format_args!(
            "{left_out} announcements from unknown machines were ignored: more than a home network has. Someone may be \
             flooding it; your own machines are not affected."
        ));
    }
    Ok(())
}

fn list(peers: &[PeerView]) {
    for peer in peers {
        let state = match &peer.state {
            PeerState::Found => "found; run `hivemind approve` to add it".to_owned(),
            PeerState::Pending { code, approved_here, .. } => {
                format!("code {code}{}", if *approved_here { ", approved here" } else { "" })
            }
            PeerState::Approved => format!("connected{}", link(peer)),
            PeerState::Unreachable { why, .. } => format!("away: {why}"),
            PeerState::Blocked => "blocked".to_owned(),
            PeerState::Unknown => "unknown".to_owned(),
        } + &restrictions(peer);
        output::line(row(&peer.fingerprint, &peer.name, &state));
    }
}

/// A row of the machine list. The fingerprint comes first, because a machine cannot choose it: the name that it chose
/// neither begins a row nor leaves its column.
fn row(fingerprint: &str, name: &str, state: &str) -> String {
    let name = border::cell(name, border::NAME_COLUMNS);
    format!("{fingerprint:<28} {name} {state}").trim_end().to_owned()
}

fn link(peer: &PeerView) -> String {
    let Some(link) = &peer.link else { return String::new() };
    let others = peer.other_paths.iter().map(|path| path_in_words(&path.link, Some(path.bits_per_s)));
    let ways = std::iter::once(path_in_words(link, peer.bits_per_s)).chain(others);
    format!(", {}", ways.collect::<Vec<_>>().join("; also "))
}

fn path_in_words(link: &Link, bits_per_s: Option<u64>) -> String {
    let rate = bits_per_s.map_or(String::new(), |rate| format!(", {:.0} Mbit/s", rate as f64 / 1e6));
    format!("{} {:.1} ms{rate}", link.kind.as_str(), link.round_trip_us as f64 / 1e3)
}

pub(crate) async fn approve(client: &Client, options: ApproveOptions) -> Result<(), Failure> {
    let machine = percent(&options.machine);
    let asked = client.post(&format!("/hive/v1/peers/{machine}/pair"), &()).await?;
    decide(client, asked, options.code, options.json).await
}

pub(crate) async fn join(client: &Client, options: JoinOptions) -> Result<(), Failure> {
    let ticket = read_invitation(options.invitation.as_deref())?;
    let asked = client.post("/hive/v1/join", &JoinRequest { ticket }).await?;
    decide(client, asked, options.code, options.json).await
}

fn read_invitation(given: Option<&str>) -> Result<String, Failure> {
    match given {
        None | Some("-") => {
            let mut text = String::new();
            let read = std::io::stdin().take(64 << 10).read_to_string(&mut text);
            read.map_err(|error| Failure::new(format_args!("cannot read the invitation: {error}")))?;
            Ok(text)
        }
        Some(path) if Path::new(path).is_file() => std::fs::read_to_string(path)
            .map_err(|error| Failure::new(format_args!("cannot read the invitation in {path}: {error}"))),
        Some(ticket) => Ok(ticket.to_owned()),
    }
}

/// Shows the code, asks whether the other machine shows the same one, and waits for both owners.
async fn decide(client: &Client, asked: PairingCode, given: Option<String>, as_json: bool) -> Result<(), Failure> {
    let PairingCode { id, code } = asked;
    let given = match given {
        Some(given) => given,
        None if std::io::stdin().is_terminal() => {
            output::piece(&format!("This machine shows {code}. Does the other machine show the same code? [y/N] "));
            let answer = BufReader::new(tokio::io::stdin()).lines().next_line().await.map_err(Failure::new)?;
            if !answer.is_some_and(|answer| matches!(answer.trim(), "y" | "Y" | "yes")) {
                let _: Done = client.post(&format!("/hive/v1/peers/{id}/deny"), &()).await?;
                return Err(Failure::new("denied; nothing was approved"));
            }
            code
        }
        None => {
            if as_json {
                output::line(json!({ "id": id, "code": code, "state": "pending" }));
            } else {
                output::line(format_args!("This machine shows {code}."));
                output::note(format_args!(
                    "If the other machine shows the same code, run `hivemind approve {} --code {}`; if not, `hivemind deny {}`.",
                    &id[..10],
                    code.replace(' ', ""),
                    &id[..10]
                ));
            }
            return Ok(());
        }
    };
    let _: Done = client.post(&format!("/hive/v1/peers/{id}/approve"), &Approval { code: given }).await?;
    let peer = settled(client, &id).await?;
    if as_json {
        output::line(json!(peer));
        return Ok(());
    }
    match peer {
        Some(PeerView { name, state: PeerState::Approved | PeerState::Unreachable { .. }, .. }) => {
            output::line(format_args!("{name} has joined."));
        }
        Some(PeerView { name, .. }) => {
            output::line(format_args!("Approved here. Now approve this machine on {name}."));
        }
        None => output::line("Approved here. Now approve this machine on the other one."),
    }
    Ok(())
}

/// How long to wait for the other owner here; the approval stays valid afterwards.
const OTHER_OWNER: std::time::Duration = std::time::Duration::from_secs(20);

/// Follows a pairing until it is decided, or returns it undecided after [`OTHER_OWNER`].
async fn settled(client: &Client, id: &str) -> Result<Option<PeerView>, Failure> {
    let mut events = client.stream(reqwest::Method::GET, "/hive/v1/events", &Value::Null).await?;
    let until = tokio::time::Instant::now() + OTHER_OWNER;
    let mut latest = None;
    loop {
        let update = match tokio::time::timeout_at(until, events.next()).await {
            Ok(update) => update?,
            Err(_) => return Ok(latest),
        };
        let Update { status, notices } = update.ok_or_else(|| Failure::new("the node has stopped"))?;
        let peer = status.peers.into_iter().find(|peer| peer.id == id);
        match peer.as_ref().map(|peer| &peer.state) {
            Some(PeerState::Pending { .. }) => latest = peer,
            Some(PeerState::Approved | PeerState::Unreachable { .. }) => return Ok(peer),
            _ => {
                let said = notices.iter().rev().find(|notice| notice.peer == id);
                let why = said.map_or("it was not approved", |notice| notice.text.trim_end_matches('.'));
                return Err(Failure::new(format_args!("{why}; nothing was approved")));
            }
        }
    }
}

/// Applies a decision that takes only a machine.
pub(crate) async fn act(client: &Client, options: PeerOption, action: &str, done: &str) -> Result<(), Failure> {
    let machine = percent(&options.machine);
    let _: Done = client.post(&format!("/hive/v1/peers/{machine}/{action}"), &()).await?;
    if options.json {
        output::line(json!(Done::DONE));
    } else {
        output::line(format_args!("{} {done}.", options.machine));
    }
    Ok(())
}

/// Changes a machine's rights and prints the resulting ones.
pub(crate) async fn allow(client: &Client, options: AllowOptions) -> Result<(), Failure> {
    let AllowOptions { machine, memory, prompts, memory_limit, session_limit, json } = options;
    let change = RightsChange { memory, prompts, memory_limit_bytes: memory_limit, session_limit };
    let rights: Rights = client.post(&format!("/hive/v1/peers/{}/rights", percent(&machine)), &change).await?;
    if json {
        output::line(json!(rights));
    } else {
        output::line(format_args!("{machine}: {}", rights_in_words(&rights)));
    }
    Ok(())
}

/// A machine's rights and limits in words.
fn rights_in_words(rights: &Rights) -> String {
    let mut words = vec![
        if rights.memory { "may use memory here" } else { "may not use memory here" }.to_owned(),
        if rights.prompts { "may see prompts" } else { "may not see prompts" }.to_owned(),
    ];
    words.extend(rights.memory_limit_bytes.map(|bytes| format!("at most {}", output::megabytes(bytes))));
    words.extend(rights.session_limit.map(|limit| format!("at most {limit} answers at a time")));
    words.join(", ")
}

/// How an approved machine's rights differ from the default; empty if they do not.
fn restrictions(peer: &PeerView) -> String {
    match &peer.rights {
        Some(rights) if *rights != Rights::default() => format!(" ({})", rights_in_words(rights)),
        _ => String::new(),
    }
}

pub(crate) async fn rename(client: &Client, machine: &str, name: &str) -> Result<(), Failure> {
    let path = format!("/hive/v1/peers/{}/rename", percent(machine));
    let _: Done = client.post(&path, &PeerName { name: name.to_owned() }).await?;
    output::line(format_args!("Renamed {machine} to {name} on this machine."));
    Ok(())
}

pub(crate) async fn invite(client: &Client, options: InviteOptions) -> Result<(), Failure> {
    if !(options.hours > 0.0 && options.hours <= 744.0) {
        return Err(Failure::usage(format_args!("an invitation cannot be valid for {} hours", options.hours))
            .hint("choose more than 0 and at most 744 (one month)"));
    }
    let request = InviteRequest { valid_for_s: Some((options.hours * 3600.0).ceil() as u64) };
    let invitation: Invitation = client.post("/hive/v1/invites", &request).await?;
    if options.json {
        output::line(json!(invitation));
    } else {
        output::line(invitation.ticket);
        output::note(format_args!(
            "Pass this to `hivemind join` on the other machine, in a way that others cannot read. It works once, within {} h; \
             then both machines show a code.",
            options.hours
        ));
    }
    Ok(())
}

/// Percent-encodes a name for a URL.
pub(crate) fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_pass_for_a_row() {
        let forged = "mac-mini sister-return-cause          code 482 915\n\u{202e}studio";
        let row = row("river-stone-lamp", forged, "found");
        assert_eq!(row, "river-stone-lamp             mac-mini sister-return-cause co… found");
        assert_eq!(row.lines().count(), 1);
    }
}
