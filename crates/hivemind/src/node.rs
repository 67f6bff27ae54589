//! `hivemind node`: runs a node without the app.

use std::net::SocketAddr;
use std::path::Path;

use clap::Args;
use hive_api::{Allowed, Api, BrowserAccess};
use hive_mind::Store;
use hive_node::data::{DataError, DataFolder};
use hive_node::settings::Settings;
use hive_node::{Node, NodeOptions, PeerState};
use tokio::signal::unix::{SignalKind, signal};

use crate::{Failure, browser, output, values};

#[derive(Debug, Args)]
pub(crate) struct NodeArguments {
    /// Name shown to other machines; defaults to the computer's name
    #[arg(long, env = "HIVEMIND_NAME", value_name = "N", value_parser = values::machine_name)]
    pub(crate) name: Option<String>,
    /// Maximum memory to share, such as 8GB
    #[arg(long, env = "HIVEMIND_MEMORY", value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Share no memory; only use memory that other machines share
    #[arg(long, env = "HIVEMIND_NO_SHARE")]
    pub(crate) no_share: bool,
    /// Run models that fit on this machine here only, so that no other machine sees the prompts
    #[arg(long, env = "HIVEMIND_KEEP_PROMPTS_HERE")]
    pub(crate) keep_prompts_here: bool,
    /// Stay on the local network: no relays, no outside lookups
    #[arg(long, env = "HIVEMIND_LAN_ONLY")]
    pub(crate) lan_only: bool,
    /// API address for programs on this machine; defaults to 127.0.0.1:4483
    #[arg(long, env = "HIVEMIND_API", value_name = "ADDR", value_parser = values::address)]
    pub(crate) api: Option<SocketAddr>,
    /// Let web pages from this origin use the API, with a token; can be repeated
    #[arg(long, env = "HIVEMIND_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub(crate) allow_origin: Vec<String>,
    /// Also accept API requests for this host name, such as host.docker.internal; can be repeated
    #[arg(long, env = "HIVEMIND_ALLOW_HOST", value_name = "HOST", value_delimiter = ',')]
    pub(crate) allow_host: Vec<String>,
    /// Open HiveMind's pages to browsers: off, here (this machine), or network (other devices, over TLS)
    #[arg(long, env = "HIVEMIND_BROWSER", value_name = "WHERE")]
    pub(crate) browser: Option<BrowserAccess>,
    /// Address of the pages for other devices; defaults to port 4484 on every interface
    #[arg(long, env = "HIVEMIND_BROWSER_BIND", value_name = "ADDR", value_parser = values::address)]
    pub(crate) browser_bind: Option<SocketAddr>,
    /// Address for other machines; defaults to a free port on every interface
    #[arg(long, env = "HIVEMIND_BIND", value_name = "ADDR", value_parser = values::address)]
    pub(crate) bind: Option<SocketAddr>,
    /// Relay for machines on other networks: none, public, or the URL of your own
    #[arg(long, env = "HIVEMIND_RELAY", value_name = "RELAY")]
    pub(crate) relay: Option<String>,
}

pub(crate) async fn run(arguments: NodeArguments, folder: &Path) -> Result<(), Failure> {
    let explain = |error: DataError| Failure::new(&error).hinted(error.hint());
    let data = DataFolder::open(folder).map_err(explain)?;
    for warning in data.warnings() {
        output::warning(warning);
    }
    let store = Store::open(folder).map_err(Failure::new)?;
    let keep_prompts_here = arguments.keep_prompts_here;
    let settings = merged(arguments, Settings::read(folder).map_err(explain)?);
    let api_address = settings.api.unwrap_or(hive_api::DEFAULT_ADDRESS);
    let [origins, hosts] =
        [&settings.allow_origins, &settings.allow_hosts].map(|list| list.as_deref().unwrap_or_default());
    let allowed = Allowed::new(origins, hosts).map_err(Failure::usage)?;
    if let Some(warning) = allowed.warning() {
        output::warning(warning);
    }
    let browsers = Settings { browser: settings.browser, browser_bind: settings.browser_bind, ..Settings::default() };
    let options = NodeOptions { keep_prompts_here, ..settings.options(data).map_err(Failure::usage)? };
    let lan_only = options.lan_only;
    let node = Node::start(options).await.map_err(|error| Failure::new(&error).hinted(error.hint()))?;
    let chats = hive_api::chats(store, node.clone());
    let api = match Api::start(node.clone(), chats.clone(), api_address, allowed, folder).await {
        Ok(api) => api,
        Err(error) => {
            node.stop().await;
            return Err(Failure::new(&error).hinted(error.hint()));
        }
    };
    if let Err(failure) = browser::open(&api, &browsers).await {
        api.stop().await;
        node.stop().await;
        return Err(failure);
    }
    if let Some(warning) = api.warning() {
        output::warning(warning);
    }
    let status = node.status();
    output::line(format_args!("{} · {}", status.profile.name, status.fingerprint));
    let addresses: Vec<_> = status.addresses.iter().map(SocketAddr::to_string).collect();
    output::line(format_args!("listening for other machines on {}", addresses.join(", ")));
    output::line(format_args!("serving the API at http://{}", api.address()));
    if browsers.browser.unwrap_or_default() != BrowserAccess::Off {
        output::line("open to browsers; `hivemind browser` makes a link");
    }
    if lan_only {
        output::line("nothing leaves the local network");
    }
    tell(&node).await;
    output::line("shutting down");
    // Answers in progress stay, and can be continued.
    chats.close().await;
    // A second request to stop skips the draining.
    tokio::select! {
        () = node.leave() => {}
        () = asked_to_end() => {}
    }
    // Pending answers return their tokens so far.
    node.end_answers();
    api.stop().await;
    node.stop().await;
    Ok(())
}

/// Completes when the process is asked to stop.
async fn asked_to_end() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        () = hung_up() => {}
    }
}

/// Completes when the terminal or the ssh session closes; never for a process started by `nohup`.
async fn hung_up() {
    if hive_node::outlives_its_terminal() {
        return std::future::pending().await;
    }
    match signal(SignalKind::hangup()) {
        Ok(mut hang_up) => drop(hang_up.recv().await),
        Err(_) => std::future::pending().await,
    }
}

/// Prints events about other machines until the process is asked to stop.
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
                    "  if both machines show {code}, run `hivemind approve {} --code {}`; if not, `hivemind deny {}`",
                    peer.fingerprint,
                    code.replace(' ', ""),
                    peer.fingerprint
                ));
            }
        }
    }
}

/// Flags and environment variables take precedence over the file.
fn merged(arguments: NodeArguments, file: Settings) -> Settings {
    Settings {
        name: arguments.name.or(file.name),
        memory: arguments.memory.or(file.memory),
        share: if arguments.no_share { Some(false) } else { file.share },
        lan_only: if arguments.lan_only { Some(true) } else { file.lan_only },
        api: arguments.api.or(file.api),
        allow_origins: Some(arguments.allow_origin).filter(|list| !list.is_empty()).or(file.allow_origins),
        allow_hosts: Some(arguments.allow_host).filter(|list| !list.is_empty()).or(file.allow_hosts),
        browser: arguments.browser.or(file.browser),
        browser_bind: arguments.browser_bind.or(file.browser_bind),
        bind: arguments.bind.or(file.bind),
        relay: arguments.relay.or(file.relay),
        ..file
    }
}
