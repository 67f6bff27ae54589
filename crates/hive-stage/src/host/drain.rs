//! Draining a stage: its sessions move to the machine that takes it over, with their caches.
//!
//! The coordinator asks the machine that has the stage (`Request::Drain`), which opens a stream to the new one
//! (`Request::ReceiveSessions`). A session leaves the old stage together with its caches, so it cannot continue in two
//! places. A session that is lost on the way is recomputed, as after a failure.

use hive_net::{Channel, PeerId, Protocol, border};
use hive_plan::{Handover, Load, handover};

use super::StageHost;
use crate::stage::{Part, Stage, Transit};
use hive_protocol::{Drain, Reply, Request, StageId};

impl StageHost {
    /// Sends the sessions of a stage to another machine, if that is faster than recomputing them.
    pub(super) async fn drain(&self, stage: &Stage, id: StageId, order: &Drain) -> Result<Reply, String> {
        let sessions = stage.open_sessions().await;
        let rows = sessions.iter().map(|(_, rows)| u64::from(*rows)).sum::<u64>();
        let load = Load { rows, bytes: rows.saturating_mul(order.bytes_per_row) };
        if handover(load, self.membership().rate(order.to.id()), order.rows_per_s) == Handover::ReadAgain {
            return Err(format!("{rows} tokens are read again sooner than carried"));
        }
        let to = self.membership().latest_addr(&order.to);
        let mut channel =
            self.membership().endpoint().open(&to, Protocol::Control).await.map_err(|error| error.to_string())?;
        channel.write_message(&Request::ReceiveSessions(id)).await.map_err(|error| error.to_string())?;
        for (session, _) in &sessions {
            let mut parts = stage.give_away(*session).await;
            while let Some(part) = parts.recv().await {
                self.inner.pace.pass(part.bytes()).await;
                channel.write_part(&part).await.map_err(|error| error.to_string())?;
            }
        }
        channel.finish();
        match channel.read_message().await.map_err(|error| error.to_string())? {
            Some(Reply::SessionsReceived(taken)) if taken as usize == sessions.len() => {
                tracing::info!(sessions = taken, rows, "a stage was handed over with its caches");
                Ok(Reply::Done)
            }
            Some(Reply::SessionsReceived(taken)) => Err(format!("{taken} of {} sessions arrived", sessions.len())),
            Some(Reply::Refused(why)) => Err(border::reason(&why)),
            _ => Err("it broke off".to_owned()),
        }
    }

    /// The receiving side: takes in the sessions of a stage that was loaded for this, and replies with their number.
    pub(super) async fn receive_sessions(&self, from: PeerId, id: StageId, mut channel: Channel) {
        let taken = match self.receiving(from, id) {
            Ok((stage, planned_bytes)) => take_sessions(&stage, planned_bytes, &mut channel).await,
            Err(denied) => Err(denied.to_string()),
        };
        let answer = taken.map_or_else(Reply::Refused, Reply::SessionsReceived);
        if channel.write_message(&answer).await.is_ok() {
            channel.finish();
        }
    }
}

/// Receives sessions, up to the size planned for the stage: caches may have twice the planned precision.
async fn take_sessions(stage: &Stage, planned_bytes: u64, channel: &mut Channel) -> Result<u32, String> {
    let most_bytes = planned_bytes.saturating_mul(2);
    let (mut bytes, mut taken) = (0, 0);
    let mut transit: Option<Transit> = None;
    while let Some(part) = channel.read_part::<Part>().await.map_err(|error| error.to_string())? {
        bytes += part.bytes() as u64;
        if bytes > most_bytes {
            return Err("it would take more memory than was planned for the stage".to_owned());
        }
        match (part, &mut transit) {
            (Part::Session(spec, kept, state), transit) => *transit = Some(Transit::new(*spec, kept, state)),
            (Part::Whole, transit) => {
                let whole = transit.take().ok_or("a session ends that did not begin")?;
                match stage.take_in(whole).await {
                    Ok(()) => taken += 1,
                    Err(why) => tracing::info!("a session is computed again, its caches are of no use here: {why}"),
                }
            }
            (part, Some(transit)) => transit.add(part)?,
            (_, None) => return Err("a part of no session came".to_owned()),
        }
    }
    Ok(taken)
}
