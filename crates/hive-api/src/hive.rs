//! HiveMind's own API: the machines and the state of the node. The command line uses nothing else.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::Stream;
use hive_node::audit;
use hive_node::data::NotKept;
use hive_node::serving::ModelRequest;
use hive_node::{Code, DecideError, INVITE_VALID_FOR, Node, PairError, PeerId, Rights, Ticket, border};
use hive_types::{
    Approval, Done, Invitation, InviteRequest, JoinRequest, PairingCode, PeerName, PeerView, PlanQuery, PlanView,
    RightsChange, SharingChange, SharingReply, Status, Update, ViewQuery,
};
use hive_view::Taste;

use crate::error::Refusal;
use crate::openai::serve_refusal;
use crate::rights::{MACHINES, MODELS};
use crate::routes::Routes;
use crate::shared::Local;
use crate::views;

pub(crate) fn routes() -> Routes<Local> {
    Routes::new()
        .get("/status", MACHINES, status)
        .get("/events", MACHINES, events)
        .get("/view", MACHINES, view)
        .get("/peers", MACHINES, peers)
        .post("/peers/{who}/pair", MACHINES, pair)
        .post("/peers/{who}/approve", MACHINES, approve)
        .post("/peers/{who}/deny", MACHINES, deny)
        .post("/peers/{who}/remove", MACHINES, remove)
        .post("/peers/{who}/restore", MACHINES, restore)
        .post("/peers/{who}/block", MACHINES, block)
        .post("/peers/{who}/rename", MACHINES, rename)
        .post("/peers/{who}/rights", MACHINES, rights)
        .post("/sharing", MACHINES, sharing)
        .post("/invites", MACHINES, invite)
        .post("/join", MACHINES, join)
        .get("/log", MACHINES, log)
        .get("/plan", MODELS, plan)
}

async fn status(State(node): State<Node>) -> Json<Status> {
    Json(views::status(&node))
}

async fn peers(State(node): State<Node>) -> Json<Vec<PeerView>> {
    Json(node.peer_views().into_iter().map(views::peer).collect())
}

/// Minimum interval between two updates: short enough not to be noticed, long enough to batch heartbeats' changes.
const UPDATE_PAUSE: Duration = Duration::from_millis(100);

async fn events(State(node): State<Node>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut heard = 0;
    followed(node, move |node| {
        let notices = node.notices(heard);
        heard = notices.last().map_or(heard, |notice| notice.number);
        let update = Update { status: views::status(node), notices };
        Event::default().event("update").json_data(&update).unwrap_or_default()
    })
}

/// Sends the pages' snapshot, now and after every change.
async fn view(
    State(node): State<Node>,
    Query(ViewQuery { language }): Query<ViewQuery>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    // Notifications, colours and updates are the app's own.
    let taste = Taste { notify: Some(false), language, ..Taste::default() };
    followed(node, move |node| {
        let shown = hive_view::snapshot(&views::status(node), taste, hive_view::Update::default());
        Event::default().json_data(&shown).unwrap_or_default()
    })
}

/// Sends an event about the node now and after every change, until the node stops.
fn followed(
    node: Node,
    event: impl FnMut(&Node) -> Event + Send + 'static,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut changes = node.changes();
    changes.mark_changed();
    let stream = futures_util::stream::unfold((node, changes, event), |(node, mut changes, mut event)| async move {
        tokio::select! {
            changed = changes.changed() => changed.ok()?,
            () = node.ending() => return None,
        }
        let sent = event(&node);
        tokio::time::sleep(UPDATE_PAUSE).await;
        Some((Ok(sent), (node, changes, event)))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}

async fn sharing(State(node): State<Node>, Json(change): Json<SharingChange>) -> Json<SharingReply> {
    let changed = match change {
        SharingChange::Share(on) => node.share(on),
        SharingChange::PauseMinutes(0) => node.pause(None),
        SharingChange::PauseMinutes(minutes) => node.pause(Some(Duration::from_secs(u64::from(minutes) * 60))),
        SharingChange::MemoryBytes(bytes) => node.give_memory(bytes),
    };
    let not_kept = changed.err().map(|error| format!("{error}; {}", error.hint()));
    Json(SharingReply { status: views::status(&node), not_kept })
}

fn find(node: &Node, who: &str) -> Result<PeerId, Refusal> {
    node.find(who).map_err(|error| Refusal::missing("no_such_peer", error))
}

fn pair_refusal(error: PairError) -> Refusal {
    let code = match &error {
        PairError::Connect(_) => "unreachable",
        PairError::Refused(_) => "refused",
        PairError::BrokeOff | PairError::Protocol(_) => "broke_off",
    };
    Refusal::new(axum::http::StatusCode::BAD_GATEWAY, code, error)
}

async fn pair(State(node): State<Node>, Path(who): Path<String>) -> Result<Json<PairingCode>, Refusal> {
    let peer = find(&node, &who)?;
    let code = node.pair(peer).await.map_err(pair_refusal)?;
    Ok(Json(PairingCode { id: peer.to_text(), code: code.to_string() }))
}

async fn approve(
    State(node): State<Node>,
    Path(who): Path<String>,
    Json(Approval { code }): Json<Approval>,
) -> Result<Json<Done>, Refusal> {
    let peer = find(&node, &who)?;
    let code = Code::parse(&code).ok_or_else(|| Refusal::bad("wrong_code", "a code is six digits"))?;
    node.approve(peer, code).map_err(decide_refusal)?;
    Ok(done())
}

async fn deny(State(node): State<Node>, Path(who): Path<String>) -> Result<Json<Done>, Refusal> {
    let peer = find(&node, &who)?;
    node.deny(peer).map_err(decide_refusal)?;
    Ok(done())
}

async fn remove(State(node): State<Node>, Path(who): Path<String>) -> Result<Json<Done>, Refusal> {
    node.remove(find(&node, &who)?).map_err(not_kept)?;
    Ok(done())
}

/// Undoes a removal. A removed machine has no name any more, so that only its whole ID leads to it.
async fn restore(State(node): State<Node>, Path(who): Path<String>) -> Result<Json<Done>, Refusal> {
    let peer: PeerId = who.parse().map_err(|error| Refusal::missing("no_such_peer", error))?;
    node.restore(peer).map_err(|error| Refusal::conflict("not_restored", error))?;
    Ok(done())
}

async fn block(State(node): State<Node>, Path(who): Path<String>) -> Result<Json<Done>, Refusal> {
    node.block(find(&node, &who)?).map_err(not_kept)?;
    Ok(done())
}

#[allow(clippy::needless_pass_by_value, reason = "map_err passes it by value")]
fn not_kept(error: NotKept) -> Refusal {
    Refusal::internal(&error).hint(error.hint())
}

async fn rights(
    State(node): State<Node>,
    Path(who): Path<String>,
    Json(change): Json<RightsChange>,
) -> Result<Json<hive_types::Rights>, Refusal> {
    let peer = find(&node, &who)?;
    let before = node.rights(peer);
    let before = before.ok_or_else(|| Refusal::bad("not_approved", "only an approved machine has rights"))?;
    let limit = |change: Option<u64>, before: Option<u64>| {
        change.map_or(before, |limit| Some(limit).filter(|limit| *limit > 0))
    };
    let sessions = limit(change.session_limit.map(u64::from), before.session_limit.map(u64::from));
    let rights = Rights {
        memory: change.memory.unwrap_or(before.memory),
        prompts: change.prompts.unwrap_or(before.prompts),
        memory_limit_bytes: limit(change.memory_limit_bytes, before.memory_limit_bytes),
        session_limit: sessions.and_then(|limit| u32::try_from(limit).ok()),
    };
    // A request that only reads a machine's rights changes nothing.
    if rights != before {
        node.set_rights(peer, rights).map_err(|error| Refusal::internal(&error).hint(error.hint()))?;
    }
    Ok(Json(views::rights(rights)))
}

async fn rename(
    State(node): State<Node>,
    Path(who): Path<String>,
    Json(PeerName { name }): Json<PeerName>,
) -> Result<Json<Done>, Refusal> {
    if border::label(&name).is_empty() {
        return Err(Refusal::bad("invalid_value", "a machine needs a name"));
    }
    node.rename(find(&node, &who)?, &name).map_err(not_kept)?;
    Ok(done())
}

/// Maximum lifetime of an invitation, in seconds: 31 days.
const LONGEST_INVITE_S: u64 = 31 * 24 * 3600;

async fn invite(State(node): State<Node>, Json(request): Json<InviteRequest>) -> Result<Json<Invitation>, Refusal> {
    let seconds = request.valid_for_s.unwrap_or(INVITE_VALID_FOR.as_secs()).clamp(1, LONGEST_INVITE_S);
    let ticket = node.invite(Duration::from_secs(seconds)).map_err(Refusal::internal)?;
    Ok(Json(Invitation { ticket: ticket.to_text(), valid_for_s: seconds }))
}

async fn join(
    State(node): State<Node>,
    Json(JoinRequest { ticket }): Json<JoinRequest>,
) -> Result<Json<PairingCode>, Refusal> {
    let ticket = Ticket::parse(&ticket).map_err(|error| Refusal::bad("bad_ticket", error))?;
    let (peer, code) = node.join_by(&ticket).await.map_err(pair_refusal)?;
    Ok(Json(PairingCode { id: peer.to_text(), code: code.to_string() }))
}

async fn plan(State(node): State<Node>, Query(query): Query<PlanQuery>) -> Result<Json<PlanView>, Refusal> {
    let wanted = ModelRequest { model: query.model, stages: query.stages };
    let layout = node.lay_out(&wanted).await.map_err(serve_refusal)?;
    Ok(Json(views::plan(layout)))
}

async fn log(State(node): State<Node>, Query(query): Query<audit::Query>) -> Result<Json<audit::Log>, Refusal> {
    Ok(Json(node.audit_log(&query).map_err(Refusal::internal)?))
}

fn decide_refusal(error: DecideError) -> Refusal {
    match &error {
        DecideError::NotPending(_) => Refusal::new(axum::http::StatusCode::CONFLICT, "not_pending", error),
        DecideError::WrongCode { .. } => Refusal::new(axum::http::StatusCode::CONFLICT, "wrong_code", error),
        DecideError::Data(_) => Refusal::internal(error),
    }
}

fn done() -> Json<Done> {
    Json(Done::DONE)
}
