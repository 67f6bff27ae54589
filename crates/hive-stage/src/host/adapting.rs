//! LoRA adapters on their way to the stages that need them: from the disk of the machine that asks for the answer.

use std::time::Duration;

use hive_audit as audit;
use hive_net::{Channel, PeerAddr, PeerId, Protocol};
use hive_protocol::{AdapterHead, NONSENSE, Reply, Request, StageId};
use hive_worker::{AdaptFailure, Raw};

use super::StageHost;
use super::orders::Order;
use crate::adapters::{AdapterBytes, AdapterFiles, check_sizes};
use crate::runtime::aside;
use crate::stage::{ADAPT_TIMEOUT, Stage};

/// Bytes in one message.
const PART_BYTES: usize = 1 << 20;
/// How long the next part may take, and the end of another transfer.
const PART_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an adapter waits until another one has arrived at its stage, which only the stage's owner sends.
const TURN_TIMEOUT: Duration = Duration::from_mins(5);
/// How long all parts may take: 384 MB at 2 Mbit/s.
const TRANSFER_TIMEOUT: Duration = Duration::from_mins(30);
/// The memory that is reserved while an adapter is loaded, as a multiple of its file. An estimate: numbers of two bytes
/// become four, and those of joined projections more. What it takes once it is loaded is counted.
const GROWTH: u64 = 3;

impl StageHost {
    /// Has a stage of this machine's rings load an adapter, unless it has it.
    pub async fn give_adapter(&self, to: &PeerAddr, id: StageId, adapter: &AdapterFiles) -> Result<(), AdaptFailure> {
        let own = self.membership().id();
        if to.id() != own {
            return self.send_adapter(to, id, adapter).await;
        }
        let (stage, standby) = self.adapted_stage(own, id).map_err(AdaptFailure::Failed)?;
        if stage.has_adapter(adapter.id()).await? {
            return Ok(());
        }
        let bytes = GROWTH * adapter.head().tensor_bytes;
        let _reserved = self.reserve(own, bytes, standby).map_err(AdaptFailure::Full)?;
        stage.adapt(adapter.id(), read(adapter)?).await
    }

    /// A stage that `asker` commands, and whether it is a standby replica, for which others make no room.
    fn adapted_stage(&self, asker: PeerId, id: StageId) -> Result<(Stage, bool), String> {
        let found = self.with_claims(asker, Order::Command, id, |hosted| (hosted.stage.clone(), hosted.standby));
        found.map_err(|denied| denied.to_string())
    }

    async fn send_adapter(&self, to: &PeerAddr, id: StageId, adapter: &AdapterFiles) -> Result<(), AdaptFailure> {
        let failed = |error: &dyn std::fmt::Display| AdaptFailure::Failed(error.to_string());
        let to = self.membership().latest_addr(to);
        let asked = async {
            let opened = self.membership().endpoint().open(&to, Protocol::Control).await;
            let mut channel = opened.map_err(|error| failed(&error))?;
            channel.write_message(&Request::Adapt(id, adapter.head())).await.map_err(|error| failed(&error))?;
            let reply = answer(&mut channel).await?;
            Ok((channel, reply))
        };
        let (mut channel, reply) = within(TURN_TIMEOUT + PART_TIMEOUT, asked).await?;
        match reply {
            Reply::Done => return Ok(()),
            Reply::Lacks => {}
            other => return Err(refused(other)),
        }
        let bytes = read(adapter)?;
        channel.give_way();
        for part in bytes.config.chunks(PART_BYTES).chain(bytes.tensors.chunks(PART_BYTES)) {
            self.inner.pace.pass(part.len()).await;
            let part = Raw(part.to_vec());
            within(PART_TIMEOUT, async { channel.write_part(&part).await.map_err(|error| failed(&error)) }).await?;
        }
        channel.finish();
        match within(ADAPT_TIMEOUT + PART_TIMEOUT, answer(&mut channel)).await? {
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
        let (stage, standby) = self.adapted_stage(from, id)?;
        check_sizes(head)?;
        // The same adapter may be on its way for another answer.
        let turn = tokio::time::timeout(TURN_TIMEOUT, stage.adapter_turn().acquire_owned()).await;
        let Ok(Ok(_turn)) = turn else { return Err("it is still receiving another adapter".to_owned()) };
        match stage.has_adapter(head.id).await {
            Ok(true) => return Ok(Reply::Done),
            Ok(false) => {}
            Err(why) => return Err(why.to_string()),
        }
        let _reserved = match self.reserve(from, GROWTH * head.tensor_bytes, standby) {
            Ok(reserved) => reserved,
            Err(full) => return Ok(Reply::Full(full)),
        };
        channel.write_message(&Reply::Lacks).await.map_err(|error| error.to_string())?;
        let all = async {
            let config = take(channel, head.config_bytes).await?;
            Ok::<_, String>(AdapterBytes { config, tensors: take(channel, head.tensor_bytes).await? })
        };
        let bytes =
            tokio::time::timeout(TRANSFER_TIMEOUT, all).await.map_err(|_| "it sends too slowly".to_owned())??;
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

fn read(adapter: &AdapterFiles) -> Result<AdapterBytes, AdaptFailure> {
    aside(|| adapter.read()).map_err(|error| AdaptFailure::Unfit(error.to_string()))
}

async fn within<T>(time: Duration, work: impl Future<Output = Result<T, AdaptFailure>>) -> Result<T, AdaptFailure> {
    let silent = || Err(AdaptFailure::Failed("it does not answer".to_owned()));
    tokio::time::timeout(time, work).await.unwrap_or_else(|_| silent())
}

async fn answer(channel: &mut Channel) -> Result<Reply, AdaptFailure> {
    match channel.read_message::<Reply>().await {
        Ok(Some(reply)) => Ok(reply.at_the_border()),
        Ok(None) => Err(AdaptFailure::Failed("it broke off".to_owned())),
        Err(error) => Err(AdaptFailure::Failed(error.to_string())),
    }
}

fn refused(reply: Reply) -> AdaptFailure {
    match reply {
        Reply::Unfit(why) => AdaptFailure::Unfit(why),
        Reply::Full(why) => AdaptFailure::Full(why),
        Reply::Refused(why) | Reply::Declined(why) => AdaptFailure::Failed(why),
        _ => AdaptFailure::Failed(NONSENSE.to_owned()),
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
