//! The adapters of a stage's worker, and the requests that wait for one.

use std::collections::{HashMap, HashSet};

use hive_model::AdapterId;
use hive_worker::{Raw, ToWorker};
use tokio::sync::oneshot;

use crate::adapters::AdapterBytes;

/// Told whether the adapter is loaded, or why it cannot be.
type Waiting = oneshot::Sender<Result<bool, String>>;

#[derive(Default)]
pub(super) struct Adapters {
    loaded: HashSet<AdapterId>,
    waiting: HashMap<AdapterId, Vec<Waiting>>,
}

impl Adapters {
    /// Answers whether an adapter is loaded; with its bytes, returns the order to load it unless it is.
    pub(super) fn wanted(&mut self, id: AdapterId, bytes: Option<AdapterBytes>, answer: Waiting) -> Option<ToWorker> {
        let is_loaded = self.loaded.contains(&id);
        let Some(AdapterBytes { config, tensors }) = bytes.filter(|_| !is_loaded) else {
            let _ = answer.send(Ok(is_loaded));
            return None;
        };
        let waiting = self.waiting.entry(id).or_default();
        waiting.push(answer);
        (waiting.len() == 1).then_some(ToWorker::Adapt(id, Raw(config), Raw(tensors)))
    }

    /// Takes the worker's reply: all adapters that it has now, or why it did not take this one.
    pub(super) fn adapted(&mut self, id: AdapterId, adapted: Result<Vec<AdapterId>, String>) {
        let result = adapted.map(|all| {
            self.loaded = all.into_iter().collect();
            true
        });
        for answer in self.waiting.remove(&id).unwrap_or_default() {
            let _ = answer.send(result.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: AdapterId = AdapterId([1; 32]);
    const OTHER: AdapterId = AdapterId([2; 32]);

    fn bytes() -> AdapterBytes {
        AdapterBytes { config: vec![1], tensors: vec![2] }
    }

    #[test]
    fn an_adapter_is_loaded_once_for_all_who_wait_and_again_when_another_has_taken_its_place() {
        let mut adapters = Adapters::default();
        let ask = |adapters: &mut Adapters, id, bytes| {
            let (answer, answered) = oneshot::channel();
            (adapters.wanted(id, bytes, answer).is_some(), answered)
        };
        let (ordered, mut answered) = ask(&mut adapters, ONE, None);
        assert!(!ordered && answered.try_recv() == Ok(Ok(false)));
        let (first, mut one) = ask(&mut adapters, ONE, Some(bytes()));
        let (second, mut two) = ask(&mut adapters, ONE, Some(bytes()));
        assert!(first && !second && one.try_recv().is_err());
        adapters.adapted(ONE, Ok(vec![ONE]));
        assert_eq!((one.try_recv(), two.try_recv()), (Ok(Ok(true)), Ok(Ok(true))));
        let (ordered, mut answered) = ask(&mut adapters, ONE, Some(bytes()));
        assert!(!ordered && answered.try_recv() == Ok(Ok(true)));
        // It makes room for another.
        let (_, mut refused) = ask(&mut adapters, OTHER, Some(bytes()));
        adapters.adapted(OTHER, Ok(vec![OTHER]));
        assert_eq!(refused.try_recv(), Ok(Ok(true)));
        let (ordered, mut answered) = ask(&mut adapters, ONE, Some(bytes()));
        assert!(ordered);
        adapters.adapted(ONE, Err("of another model".to_owned()));
        assert_eq!(answered.try_recv(), Ok(Err("of another model".to_owned())));
        assert!(!ask(&mut adapters, ONE, None).1.try_recv().unwrap().unwrap());
    }
}
