//! `hivemind status`, `peers`, and the decisions about machines.

use std::io::{IsTerminal, Read};
use std::path::Path;

use hive_node::border;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::arguments::{AllowOptions, ApproveOptions, InviteOptions, JoinOptions, PeerOption};
use crate::client::Client;
use crate::{Failure, output};

pub(crate) async fn status(client: &Client, as_json: bool) -> Result<(), Failure> {
    let status: Value = client.get("/hive/v1/status", &[]).await?;
    if as_json {
        output::line(status);
        return Ok(());
    }
    let profile = &status["profile"];
    let sharing = sharing_words(profile);
    output::line(format_args!("{} · {}", text(&profile["name"]), text(&status["fingerprint"])));
    let speed = profile["decode_tokens_per_s"].as_f64();
    let speed = speed.map_or(String::new(), |speed| format!(" · {speed:.0} tok/s with the starter model"));
    output::line(format_args!("{} · {sharing}{speed}", text(&profile["chip"])));
    if status["discovery"] != "on" && status["discovery"] != "off" {
        output::line(text(&status["discovery"]));
    }
    if status["model"].is_object() {
        let stages = status["model"]["stages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let stage = |stage: &Value| format!("{} (layers {})", text(&stage["node"]), layers(&stage["layers"]));
        let stages: Vec<_> = stages.iter().map(stage).collect();
        output::line(format_args!("{} on {}", text(&status["model"]["name"]), stages.join(" + ")));
    }
    list(status["peers"].as_array().map(Vec::as_slice).unwrap_or_default());
    Ok(())
}

fn sharing_words(profile: &Value) -> String {
    if profile["sharing"] == true {
        let offered = profile["offered_bytes"].as_u64().unwrap_or_default();
        format!("sharing up to {}", output::megabytes(offered))
    } else {
        profile["not_sharing"].as_str().unwrap_or("not sharing").to_owned()
    }
}

/// Switches or pauses sharing or changes what is given, and says how it is now.
pub(crate) async fn sharing(client: &Client, wishes: impl IntoIterator<Item = Value>) -> Result<(), Failure> {
    let mut status = Value::Null;
    for wish in wishes {
        status = client.post("/hive/v1/sharing", &wish).await?;
        if let Some(why) = status["not_kept"].as_str() {
            output::warning(why);
        }
    }
    output::line(sharing_words(&status["profile"]));
    Ok(())
}

pub(crate) async fn peers(client: &Client, as_json: bool) -> Result<(), Failure> {
    let status: Value = client.get("/hive/v1/status", &[]).await?;
    let (peers, left_out) = (&status["peers"], status["left_out"].as_u64().unwrap_or_default());
    if as_json {
        output::line(json!({ "peers": peers, "left_out": left_out }));
        return Ok(());
    }
    match peers.as_array().map(Vec::as_slice) {
        None | Some([]) => {
            output::line("No other machine yet. Start HiveMind on one, or `hivemind invite` one that is elsewhere.");
        }
        Some(peers) => list(peers),
    }
    if left_out > 0 {
        output::line(format_args!(
            "{left_out} announcements of unknown machines were ignored: more than a home network has. Somebody may be \
             flooding it; your own machines are not affected."
        ));
    }
    Ok(())
}

fn list(peers: &[Value]) {
    for peer in peers {
        let state = match text(&peer["state"]) {
            "found" => "found; `hivemind approve` lets it in".to_owned(),
            "pending" => format!(
                "code {}{}",
                text(&peer["code"]),
                if peer["approved_here"] == true { ", approved here" } else { "" }
            ),
            "approved" => format!("here{}", link(peer)),
            "unreachable" => format!("away: {}", text(&peer["why"])),
            state => state.to_owned(),
        } + &restrictions(peer);
        output::line(row(text(&peer["fingerprint"]), text(&peer["name"]), &state));
    }
}

/// A machine in a list. Its fingerprint comes first, which nobody chooses: what a machine calls itself begins no row, and
/// keeps to its column.
fn row(fingerprint: &str, name: &str, state: &str) -> String {
    let name = border::cell(name, border::NAME_COLUMNS);
    format!("{fingerprint:<28} {name} {state}").trim_end().to_owned()
}

fn link(peer: &Value) -> String {
    let link = &peer["link"];
    let Some(round_trip) = link["round_trip_us"].as_f64() else { return String::new() };
    let others = peer["other_paths"].as_array().into_iter().flatten();
    let others =
        others.filter_map(|path| Some(path_in_words(path, path["round_trip_us"].as_f64()?, &path["bits_per_s"])));
    let ways = std::iter::once(path_in_words(link, round_trip, &peer["bits_per_s"])).chain(others);
    format!(", {}", ways.collect::<Vec<_>>().join("; also "))
}

fn path_in_words(link: &Value, round_trip_us: f64, bits_per_s: &Value) -> String {
    let rate = bits_per_s.as_f64().map_or(String::new(), |rate| format!(", {:.0} Mbit/s", rate / 1e6));
    format!("{} {:.1} ms{rate}", text(&link["kind"]), round_trip_us / 1e3)
}

pub(crate) async fn approve(client: &Client, options: ApproveOptions) -> Result<(), Failure> {
    let machine = percent(&options.machine);
    let asked: Value = client.post(&format!("/hive/v1/peers/{machine}/pair"), &Value::Null).await?;
    decide(client, &asked, options.code, options.json).await
}

pub(crate) async fn join(client: &Client, options: JoinOptions) -> Result<(), Failure> {
    let ticket = read_invitation(options.invitation.as_deref())?;
    let asked: Value = client.post("/hive/v1/join", &json!({ "ticket": ticket })).await?;
    decide(client, &asked, options.code, options.json).await
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

/// Shows the code, asks whether the other machine shows it too, and waits for both owners.
async fn decide(client: &Client, asked: &Value, given: Option<String>, as_json: bool) -> Result<(), Failure> {
    let (id, code) = (text(&asked["id"]).to_owned(), text(&asked["code"]).to_owned());
    let given = match given {
        Some(given) => given,
        None if std::io::stdin().is_terminal() => {
            output::piece(&format!("This machine shows {code}. Does the other one show the same? [y/N] "));
            let answer = BufReader::new(tokio::io::stdin()).lines().next_line().await.map_err(Failure::new)?;
            if !answer.is_some_and(|answer| matches!(answer.trim(), "y" | "Y" | "yes")) {
                let _: Value = client.post(&format!("/hive/v1/peers/{id}/deny"), &Value::Null).await?;
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
                    "If the other one shows the same, run `hivemind approve {} --code {}`; if not, `hivemind deny {}`.",
                    &id[..10],
                    code.replace(' ', ""),
                    &id[..10]
                ));
            }
            return Ok(());
        }
    };
    let _: Value = client.post(&format!("/hive/v1/peers/{id}/approve"), &json!({ "code": given })).await?;
    let peer = settled(client, &id).await?;
    if as_json {
        output::line(&peer);
    } else if peer["state"] == "pending" {
        output::line(format_args!("Approved here. {} is in once it is approved there too.", text(&peer["name"])));
    } else {
        output::line(format_args!("{} is in.", text(&peer["name"])));
    }
    Ok(())
}

/// How long the other owner is waited for here; the approval stands longer than that.
const OTHER_OWNER: std::time::Duration = std::time::Duration::from_secs(20);

/// Follows a machine until it is decided on, or still open after a while.
async fn settled(client: &Client, id: &str) -> Result<Value, Failure> {
    let mut events = client.stream(reqwest::Method::GET, "/hive/v1/events", &Value::Null).await?;
    let until = tokio::time::Instant::now() + OTHER_OWNER;
    let mut latest = Value::Null;
    loop {
        let update = match tokio::time::timeout_at(until, events.next()).await {
            Ok(update) => update?,
            Err(_) => return Ok(latest),
        };
        let update = update.ok_or_else(|| Failure::new("the node has stopped"))?;
        let peer = update["status"]["peers"].as_array().and_then(|peers| peers.iter().find(|peer| peer["id"] == id));
        match peer.map(|peer| text(&peer["state"])) {
            Some("pending") => latest = peer.cloned().unwrap_or_default(),
            Some("approved" | "unreachable") => return Ok(peer.cloned().unwrap_or_default()),
            _ => {
                let notices = update["notices"].as_array().map(Vec::as_slice).unwrap_or_default();
                let said = notices.iter().rev().find(|notice| notice["peer"] == id);
                let why = said.map_or("it was not approved", |notice| text(&notice["text"])).trim_end_matches('.');
                return Err(Failure::new(format_args!("{why}; nothing was approved")));
            }
        }
    }
}

/// A decision that needs nothing but a machine.
pub(crate) async fn act(client: &Client, options: PeerOption, action: &str, done: &str) -> Result<(), Failure> {
    let machine = percent(&options.machine);
    let _: Value = client.post(&format!("/hive/v1/peers/{machine}/{action}"), &Value::Null).await?;
    if options.json {
        output::line(json!({ "done": true }));
    } else {
        output::line(format_args!("{} {done}.", options.machine));
    }
    Ok(())
}

/// Changes what a machine may do, and says what it may do now.
pub(crate) async fn allow(client: &Client, options: AllowOptions) -> Result<(), Failure> {
    let AllowOptions { machine, memory, prompts, memory_limit, session_limit, json } = options;
    let wish = json!({
        "memory": memory,
        "prompts": prompts,
        "memory_limit_bytes": memory_limit,
        "session_limit": session_limit,
    });
    let rights: Value = client.post(&format!("/hive/v1/peers/{}/rights", percent(&machine)), &wish).await?;
    if json {
        output::line(rights);
    } else {
        output::line(format_args!("{machine}: {}", rights_in_words(&rights)));
    }
    Ok(())
}

/// What a machine may do, and how much of it.
fn rights_in_words(rights: &Value) -> String {
    let mut words = vec![
        if rights["memory"] == false { "may not use memory here" } else { "may use memory here" }.to_owned(),
        if rights["prompts"] == false { "may not see prompts" } else { "may see prompts" }.to_owned(),
    ];
    words.extend(rights["memory_limit_bytes"].as_u64().map(|bytes| format!("at most {}", output::megabytes(bytes))));
    words.extend(rights["session_limit"].as_u64().map(|limit| format!("at most {limit} answers at a time")));
    words.join(", ")
}

/// What there is to say of an approved machine's rights: those that every machine has at first go without saying.
fn restrictions(peer: &Value) -> String {
    let rights = &peer["rights"];
    let is_usual = rights["memory"] != false
        && rights["prompts"] != false
        && rights["memory_limit_bytes"].is_null()
        && rights["session_limit"].is_null();
    if is_usual { String::new() } else { format!(" ({})", rights_in_words(rights)) }
}

pub(crate) async fn rename(client: &Client, machine: &str, name: &str) -> Result<(), Failure> {
    let path = format!("/hive/v1/peers/{}/rename", percent(machine));
    let _: Value = client.post(&path, &json!({ "name": name })).await?;
    output::line(format_args!("{machine} is called {name} here."));
    Ok(())
}

pub(crate) async fn invite(client: &Client, options: InviteOptions) -> Result<(), Failure> {
    if !(options.hours > 0.0 && options.hours <= 744.0) {
        return Err(Failure::usage(format_args!("an invitation cannot be good for {} hours", options.hours))
            .hint("choose more than 0 and at most 744, which is a month"));
    }
    let wish = json!({ "valid_for_s": (options.hours * 3600.0).ceil() as u64 });
    let invitation: Value = client.post("/hive/v1/invites", &wish).await?;
    if options.json {
        output::line(invitation);
    } else {
        output::line(text(&invitation["ticket"]));
        output::note(format_args!(
            "Give this to the other machine's `hivemind join`, in a way that others do not read. It works once, within {} h; \
             then both machines show a code.",
            options.hours
        ));
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// "1–18", counted from 1 as people do.
fn layers(range: &Value) -> String {
    let bound = |index: usize| range[index].as_u64().unwrap_or_default();
    format!("{}–{}", bound(0) + 1, bound(1))
}

/// A name as a part of an address.
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
