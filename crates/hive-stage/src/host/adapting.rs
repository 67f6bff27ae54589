//! LoRA adapters on their way to the stages that need them: from the disk of the machine that asks for the answer.

use std::time::Duration;

use hive_audit as audit;
use hive_net::{Channel, PeerAddr, PeerId, Protocol};
use hive_protocol::{AdapterHead, NONSENSE, Reply, Request, StageId};
use hive_worker::{AdaptFailure, Raw};

use super::StageHost;
use crate::adapters::{AdapterBytes, AdapterFiles, check_sizes};
use crate::runtime::aside;

/// Bytes in one message.
const PART_BYTES: usize = 1 << 20;
/// How long the next part may take, and the end of another transfer.
const PART_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an adapter waits until another one has arrived at its stage.
const TURN_TIMEOUT: Duration = Duration::from_mins(5);
/// The memory of an adapter in a worker, as a multiple of its file: in single precision, and with joined projections.
const GROWTH: u64 = 3;

/// Why a stage did not get an adapter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAdapted {
    /// The adapter does not suit the model, or cannot be read.
    #[error("{0}")]
    Unfit(String),
    /// The machine has no room for it now.
    #[error("{0}")]
    Full(String),
    /// The machine cannot be reached, or failed.
    #[error("{0}")]
    Failed(String),
}

impl From<AdaptFailure> for NotAdapted {
    fn from(failure: AdaptFailure) -> Self {
        match failure {
            AdaptFailure::Unfit(why) => Self::Unfit(why),
            AdaptFailure::Full(why) => Self::Full(why),
            AdaptFailure::Failed(why) => Self::Failed(why),
        }
    }
}

impl StageHost {
    /// Has a stage of this machine's rings load an adapter, unless it has it.
    pub async fn give_adapter(&self, to: &PeerAddr, id: StageId, adapter: &AdapterFiles) -> Result<(), NotAdapted> {
        let member = self.membership();
        if to.id() == member.id() {
            let stage = self.commanded(to.id(), id).map_err(|denied| NotAdapted::Failed(denied.to_string()))?;
            if stage.has_adapter(adapter.id()).await? {
                return Ok(());
            }
            let bytes = read(adapter)?;
            let _reserved =
                self.reserve(to.id(), GROWTH * bytes.tensors.len() as u64, false).map_err(NotAdapted::Full)?;
            return Ok(stage.adapt(adapter.id(), bytes).await?);
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
            let written = tokio::time::timeout(PART_TIMEOUT, channel.write_part(&Raw(part.to_vec()))).await;
            written.map_err(|_| failed(&"it accepts nothing"))?.map_err(|error| failed(&error))?;
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
        self.note_refusal(from, audit::asked(&Request::Adapt(id, head)), &reply);
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
        check_sizes(head)?;
        // The same adapter may be on its way for another answer.
        let turn = tokio::time::timeout(TURN_TIMEOUT, stage.adapter_turn().acquire_owned()).await;
        let Ok(Ok(_turn)) = turn else { return Err("it is still receiving another adapter".to_owned()) };
        match stage.has_adapter(head.id).await {
            Ok(true) => return Ok(Reply::Done),
            Ok(false) => {}
            Err(why) => return Err(why.to_string()),
        }
        let _reserved = match self.reserve(from, GROWTH * head.tensor_bytes, false) {
            Ok(reserved) => reserved,
            Err(full) => return Ok(Reply::Full(full)),
        };
        channel.write_message(&Reply::Lacks).await.map_err(|error| error.to_string())?;
        let config = take(channel, head.config_bytes).await?;
        let bytes = AdapterBytes { config, tensors: take(channel, head.tensor_bytes).await? };
        if aside(|| bytes.id()) != head.id {
            return Err("what arrived is not the adapter that was announced".to_owned());
        }
        Ok(match stage.adapt(head.id, bytes).await {
            Ok(()) => Reply::Done,
            Err(AdaptFailure::Unfit(why)) => Reply::Unfit(why),
            Err(AdaptFailure::Full(why)) => Reply::Full(why),
            Err(AdaptFailure::Failed(why)) => Reply::Refused(why),
        })
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
        Reply::Full(why) => NotAdapted::Full(why),
        Reply::Refused(why) | Reply::Declined(why) => NotAdapted::Failed(why),
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
