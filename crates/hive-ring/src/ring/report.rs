//! The reports of a ring's stages.

use hive_protocol::{Reply, Request, StageReport};

use super::Ring;
use super::placed::{RingError, failed};

impl Ring {
    /// A report from every stage.
    pub async fn report(&self) -> Result<Vec<StageReport>, RingError> {
        let mut reports = Vec::new();
        for (index, stage) in self.stages().into_iter().enumerate() {
            let request = Request::Report(self.inner.stage_id(index));
            match self.inner.host.ask(&stage.placement.addr, request, |_| ()).await {
                Ok(Reply::Report(report)) => reports.push(report),
                Ok(_) => reports.push(StageReport::default()),
                Err(why) => return Err(failed(&stage.placement, &stage.layers, why)),
            }
        }
        Ok(reports)
    }

    /// The time that a token took in the stages of this machine since the last report, in microseconds.
    pub async fn own_token_us(&self, is_own: &[bool]) -> f64 {
        let mut sum = 0.0;
        for (index, stage) in self.stages().iter().enumerate().filter(|(index, _)| is_own[*index]) {
            let request = Request::Report(self.inner.stage_id(index));
            if let Ok(Reply::Report(report)) = self.inner.host.ask(&stage.placement.addr, request, |_| ()).await {
                sum += report.decode_us as f64 / report.decoded.max(1) as f64;
            }
        }
        sum
    }
}
