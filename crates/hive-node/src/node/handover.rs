//! A stage that leaves in peace: its sessions are carried to the machine that takes it over, caches and all.
//!
//! The coordinator asks the machine that has the stage (`Question::HandOver`), which opens a stream to the new one
//! (`Question::TakeOver`). A session leaves the old stage with its caches, so that it cannot go on in two places; one that is
//! lost on the way is computed again, as after a failure.

use hive_net::{Channel, PeerId, Protocol, border};
use hive_plan::{Handover, Load, handover};

use super::{Node, lock};
use crate::control::{Answer, HandOver, Question, StageId};
use crate::stage::{Part, Transit};

impl Node {
    /// Carries the sessions of a stage to another machine, where that is worth it.
    pub(super) async fn hand_over(&self, asker: PeerId, id: StageId, order: &HandOver) -> Result<Answer, String> {
        // What people wrote goes where the one who asked them for it says, and nowhere else.
        if lock(&self.inner.stages).get(&id).is_some_and(|hosted| hosted.owner != asker) {
            return Err("the stage is another machine's".to_owned());
        }
        let stage = self.stage(id)?;
        let sessions = stage.open_sessions().await;
        let rows = sessions.iter().map(|(_, rows)| u64::from(*rows)).sum::<u64>();
        let load = Load { rows, bytes: rows.saturating_mul(order.bytes_per_row) };
        if handover(load, self.rate(order.to.id()), order.rows_per_s) == Handover::ReadAgain {
            return Err(format!("{rows} tokens are read again sooner than carried"));
        }
        let to = self.latest_addr(&order.to);
        let mut channel = self.endpoint().open(&to, Protocol::Control).await.map_err(|error| error.to_string())?;
        channel.write_message(&Question::TakeOver(id)).await.map_err(|error| error.to_string())?;
        for (session, _) in &sessions {
            let mut parts = stage.give_away(*session).await;
            while let Some(part) = parts.recv().await {
                self.inner.pace.pass(part.bytes()).await;
                channel.write_message(&part).await.map_err(|error| error.to_string())?;
            }
        }
        channel.finish();
        match channel.read_message().await.map_err(|error| error.to_string())? {
            Some(Answer::Taken(taken)) if taken as usize == sessions.len() => {
                tracing::info!(sessions = taken, rows, "a stage was handed over with its caches");
                Ok(Answer::Done)
            }
            Some(Answer::Taken(taken)) => Err(format!("{taken} of {} sessions arrived", sessions.len())),
            Some(Answer::Refused(why)) => Err(border::reason(&why)),
            _ => Err("it broke off".to_owned()),
        }
    }

    /// The other side: takes the sessions of a stage that it has just been asked to load, and says how many.
    pub(crate) async fn take_over(&self, id: StageId, mut channel: Channel) {
        let taken = self.take_sessions(id, &mut channel).await;
        let answer = taken.map_or_else(Answer::Refused, Answer::Taken);
        if channel.write_message(&answer).await.is_ok() {
            channel.finish();
        }
    }

    async fn take_sessions(&self, id: StageId, channel: &mut Channel) -> Result<u32, String> {
        let stage = self.stage(id)?;
        let most_bytes = self.profile().offered_bytes;
        let (mut bytes, mut taken) = (0, 0);
        let mut transit: Option<Transit> = None;
        while let Some(part) = channel.read_message::<Part>().await.map_err(|error| error.to_string())? {
            bytes += part.bytes() as u64;
            if bytes > most_bytes {
                return Err("it would take more memory than is given here".to_owned());
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
}
