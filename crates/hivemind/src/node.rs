//! `hivemind node`: be a part of the swarm, without a window.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use hive_api::Api;
use hive_node::data::DataFolder;
use hive_node::settings::{Settings, parse_bytes};
use hive_node::sharing::Policy;
use hive_node::{Node, NodeOptions, PeerState, Relay};
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::NodeArguments;
use crate::{Failure, output};

pub(crate) async fn run(arguments: NodeArguments, folder: &Path) -> Result<(), Failure> {
    let data = DataFolder::open(folder).map_err(Failure::new)?;
    let settings = Settings::read(folder).map_err(Failure::new)?;
    let (options, api_address) = options(arguments, settings, data)?;
    let lan_only = options.relay == Relay::None;
    let node = Node::start(options).await.map_err(|error| {
        Failure::new(error).hint("choose another --bind, or leave it out for a free port on every interface")
    })?;
    let api = match Api::start(node.clone(), api_address, folder).await {
        Ok(api) => api,
        Err(error) => {
            node.stop().await;
            return Err(Failure::new(error).hint("another HiveMind may run; choose another --api address"));
        }
    };
    let status = node.status();
    output::line(format_args!("{} · {}", status.profile.name, status.fingerprint));
    let addresses: Vec<_> = status.addresses.iter().map(SocketAddr::to_string).collect();
    output::line(format_args!("other machines reach it at {}", addresses.join(", ")));
    output::line(format_args!("programs reach it at http://{}", api.address()));
    if lan_only {
        output::line("nothing leaves the local network");
    }
    tell(&node).await;
    output::line("leaving");
    // Asked again, it goes at once.
    tokio::select! {
        () = node.leave() => {}
        () = asked_to_end() => {}
    }
    drop(api);
    node.stop().await;
    Ok(())
}

/// Until the process is asked to end.
async fn asked_to_end() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// Says what happens with machines, until the process is asked to end.
async fn tell(node: &Node) {
    let end = asked_to_end();
    tokio::pin!(end);
    let mut changes = node.changes();
    changes.mark_changed();
    let mut heard = 0;
    loop {
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = &mut end => return,
        }
        for notice in node.notices(heard) {
            heard = notice.number;
            output::line(&notice.text);
            let asking = node.peer_views().into_iter().find(|peer| peer.id == notice.peer);
            if let Some(peer) = asking
                && let PeerState::Pending { code, asked_by_them: true, .. } = peer.state
            {
                output::line(format_args!(
                    "  both machines show {code}: `hivemind approve {} --code {}` lets it in, `hivemind deny {}` does not",
                    peer.fingerprint,
                    code.replace(' ', ""),
                    peer.fingerprint
                ));
            }
        }
    }
}

/// Flags (and environment variables) first, then the file, then what is usual.
fn options(
    arguments: NodeArguments,
    settings: Settings,
    data: DataFolder,
) -> Result<(NodeOptions, SocketAddr), Failure> {
    let lan_only = arguments.lan_only || settings.lan_only.unwrap_or(false);
    let relay = match arguments.relay.or(settings.relay).as_deref() {
        None | Some("none") => Relay::None,
        Some(_) if lan_only => Relay::None,
        Some("public") => Relay::Public,
        Some(url) if url.starts_with("http://") || url.starts_with("https://") => Relay::Own(url.to_owned()),
        Some(other) => {
            return Err(Failure::usage(format_args!("\"{other}\" is no relay"))
                .hint("say none, public, or the URL of your own"));
        }
    };
    let memory_cap = arguments.memory.or(settings.memory).map(|text| {
        let refuse = || Failure::usage(format_args!("\"{text}\" is no amount of memory")).hint("write it like 8GiB");
        parse_bytes(&text).ok_or_else(refuse)
    });
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let bind = arguments.bind.or(settings.bind).unwrap_or(any);
    let name = arguments.name.or(settings.name).unwrap_or_else(hive_node::machine_name);
    let options = NodeOptions {
        data: Some(data),
        // On loopback there is nobody to find.
        discover: !bind.ip().is_loopback(),
        relay,
        share: !arguments.no_share && settings.share.unwrap_or(true),
        memory_cap: memory_cap.transpose()?,
        policy: Policy {
            only_on_power: settings.only_on_power.unwrap_or(false),
            only_when_idle: settings.only_when_idle_minutes.map(|minutes| Duration::from_secs(minutes * 60)),
        },
        ..NodeOptions::new(name, bind)
    };
    Ok((options, arguments.api.or(settings.api).unwrap_or(hive_api::DEFAULT_ADDRESS)))
}
