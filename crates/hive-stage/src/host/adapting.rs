//! LoRA adapters on their way to the stages that need them: from the disk of the machine that asks for the answer.

use std::time::Duration;

use hive_net::{Channel, PeerAddr, PeerId, Protocol};
use hive_protocol::{AdapterHead, NONSENSE, Reply, Request, StageId};
use hive_worker::Raw;

use super::StageHost;
use crate::adapters::{AdapterBytes, AdapterFiles, check_sizes};
use crate::runtime::aside;

/// Bytes in one message.
const PART_BYTES: usize = 1 << 20;
/// Adapters that are received at the same time; each is held in memory until its stage has it.
pub(super) const MAX_AT_ONCE: usize = 2;
/// How long the next part may take.
const PART_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a stage did not get an adapter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAdapted {
    /// The adapter does not suit the model, or cannot be read.
    #[error("{0}")]
    Unfit(String),
    /// The machine cannot be reached, or does not take it now.
    #[error("{0}")]
    Failed(String),
}

impl StageHost {
    /// Has a stage of this machine's rings load an adapter, unless it has it.
    pub async fn give_adapter(&self, to: &PeerAddr, id: StageId, adapter: &AdapterFiles) -> Result<(), NotAdapted> {
        let member = self.membership();
        if to.id() == member.id() {
            let stage = self.commanded(to.id(), id).map_err(|denied| NotAdapted::Failed(denied.to_string()))?;
            if stage.has_adapter(adapter.id()).await.map_err(NotAdapted::Failed)? {
                return Ok(());
            }
            let bytes = read(adapter)?;
            return stage.adapt(adapter.id(), bytes).await.map_err(NotAdapted::Unfit);
        }
        self.send_adapter(to, id, adapter).await
    }

    async fn send_adapter(&self, to: &PeerAddr, id: StageId, adapter: &AdapterFiles) -> Result<(), NotAdapted> {
        let failed = |error: &dyn std::fmt::Display| NotAdapted::Failed(error.to_string());
        let to = self.membership().latest_addr(to);
        let opened = self.membership().endpoint().open(&to, Protocol::Control).await;
        let mut channel = opened.map_err(|error| failed(&error))?;
        channel.write_message(&Request::Adapt(id, adapter.head())).await.map_err(|error| failed(&error))?;
        match answer(&mut channel).await? {
            Reply::Done => return Ok(()),
            Reply::Lacks => {}
            other => return Err(refused(other)),
        }
        let bytes = read(adapter)?;
        channel.give_way();
        for part in bytes.config.chunks(PART_BYTES).chain(bytes.tensors.chunks(PART_BYTES)) {
            self.inner.pace.pass(part.len()).await;
            channel.write_part(&Raw(part.to_vec())).await.map_err(|error| failed(&error))?;
        }
        channel.finish();
        match answer(&mut channel).await? {
            Reply::Done => Ok(()),
            other => Err(refused(other)),
        }
    }

    /// The receiving side.
    pub(super) async fn receive_adapter(&self, from: PeerId, id: StageId, head: AdapterHead, mut channel: Channel) {
        let reply = self.received(from, id, head, &mut channel).await.unwrap_or_else(Reply::Refused);
        if channel.write_message(&reply).await.is_ok() {
            channel.finish();
        }
    }

    async fn received(
        &self,
        from: PeerId,
        id: StageId,
        head: AdapterHead,
        channel: &mut Channel,
    ) -> Result<Reply, String> {
        let stage = self.commanded(from, id).map_err(|denied| denied.to_string())?;
        if stage.has_adapter(head.id).await? {
            return Ok(Reply::Done);
        }
        check_sizes(head)?;
        let Ok(_one_of_few) = self.inner.adapting.clone().try_acquire_owned() else {
            return Err("it is receiving other adapters now; try again".to_owned());
        };
        channel.write_message(&Reply::Lacks).await.map_err(|error| error.to_string())?;
        let config = take(channel, head.config_bytes).await?;
        let bytes = AdapterBytes { config, tensors: take(channel, head.tensor_bytes).await? };
        if aside(|| bytes.id()) != head.id {
            return Err("what arrived is not the adapter that was announced".to_owned());
        }
        Ok(stage.adapt(head.id, bytes).await.map_or_else(Reply::Unfit, |()| Reply::Done))
    }
}

fn read(adapter: &AdapterFiles) -> Result<AdapterBytes, NotAdapted> {
    aside(|| adapter.read()).map_err(|error| NotAdapted::Unfit(error.to_string()))
}

async fn answer(channel: &mut Channel) -> Result<Reply, NotAdapted> {
    match channel.read_message::<Reply>().await {
        Ok(Some(reply)) => Ok(reply.at_the_border()),
        Ok(None) => Err(NotAdapted::Failed("it broke off".to_owned())),
        Err(error) => Err(NotAdapted::Failed(error.to_string())),
    }
}

fn refused(reply: Reply) -> NotAdapted {
    match reply {
        Reply::Unfit(why) => NotAdapted::Unfit(why),
        Reply::Refused(why) | Reply::Declined(why) | Reply::Full(why) => NotAdapted::Failed(why),
        _ => NotAdapted::Failed(NONSENSE.to_owned()),
    }
}

/// Reads this many bytes, in parts. They take memory as they arrive, not as they were announced.
async fn take(channel: &mut Channel, bytes: u64) -> Result<Vec<u8>, String> {
    let mut taken = Vec::new();
    while (taken.len() as u64) < bytes {
        let part = tokio::time::timeout(PART_TIMEOUT, channel.read_part::<Raw>()).await;
        let part = part.map_err(|_| "it stopped sending".to_owned())?.map_err(|error| error.to_string())?;
        let Raw(part) = part.filter(|Raw(part)| !part.is_empty()).ok_or("it broke off")?;
        if taken.len() as u64 + part.len() as u64 > bytes {
            return Err("it sent more than it announced".to_owned());
        }
        taken.extend_from_slice(&part);
    }
    Ok(taken)
}
