//! The adapters of a stage's worker, and the requests that wait for one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hive_model::AdapterId;
use hive_worker::{AdaptFailure, LoadedAdapters, Raw, ToWorker};
use tokio::sync::oneshot;

use crate::adapters::AdapterBytes;

/// Told whether the adapter is loaded, or why it cannot be.
type Waiting = oneshot::Sender<Result<bool, AdaptFailure>>;

#[derive(Default)]
pub(super) struct Adapters {
    loaded: HashSet<AdapterId>,
    /// Their memory in the worker, in bytes; shared with the stage's handles.
    bytes: Arc<AtomicU64>,
    /// Who waits for an adapter that the worker is loading.
    waiting: HashMap<AdapterId, Vec<Waiting>>,
    /// Who asked for another meanwhile, which may have to make room.
    asking: Vec<(AdapterId, Waiting)>,
}

impl Adapters {
    /// The memory that they take in the worker, in bytes.
    pub(super) fn bytes(&self) -> Arc<AtomicU64> {
        self.bytes.clone()
    }

    /// Answers whether an adapter is loaded; with its bytes, returns the order to load it unless it is.
    pub(super) fn wanted(&mut self, id: AdapterId, bytes: Option<AdapterBytes>, answer: Waiting) -> Option<ToWorker> {
        let Some(AdapterBytes { config, tensors }) = bytes else {
            if self.waiting.is_empty() {
                let _ = answer.send(Ok(self.loaded.contains(&id)));
            } else {
                self.asking.push((id, answer));
            }
            return None;
        };
        // The worker is asked even if it is loaded: it may be about to make room for another.
        let waiting = self.waiting.entry(id).or_default();
        waiting.push(answer);
        (waiting.len() == 1).then_some(ToWorker::Adapt(id, Raw(config), Raw(tensors)))
    }

    /// Takes the worker's reply.
    pub(super) fn adapted(&mut self, id: AdapterId, adapted: &Result<(), AdaptFailure>, loaded: LoadedAdapters) {
        self.loaded = loaded.ids.into_iter().collect();
        self.bytes.store(loaded.bytes, Ordering::Relaxed);
        for answer in self.waiting.remove(&id).unwrap_or_default() {
            let _ = answer.send(adapted.clone().map(|()| true));
        }
        if self.waiting.is_empty() {
            for (id, answer) in self.asking.drain(..) {
                let _ = answer.send(Ok(self.loaded.contains(&id)));
            }
        }
    }

    /// The worker has ended.
    pub(super) fn clear(&mut self) {
        self.loaded.clear();
        self.bytes.store(0, Ordering::Relaxed);
        self.waiting.clear();
        self.asking.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: AdapterId = AdapterId([1; 32]);
    const OTHER: AdapterId = AdapterId([2; 32]);

    type Answered = oneshot::Receiver<Result<bool, AdaptFailure>>;

    fn ask(adapters: &mut Adapters, id: AdapterId) -> Answered {
        let (answer, answered) = oneshot::channel();
        assert!(adapters.wanted(id, None, answer).is_none());
        answered
    }

    /// Also returns whether the worker is given an order.
    fn load(adapters: &mut Adapters, id: AdapterId) -> (bool, Answered) {
        let (answer, answered) = oneshot::channel();
        let bytes = AdapterBytes { config: vec![1], tensors: vec![2] };
        (adapters.wanted(id, Some(bytes), answer).is_some(), answered)
    }

    fn with(ids: &[AdapterId]) -> LoadedAdapters {
        LoadedAdapters { ids: ids.to_vec(), bytes: 10 * ids.len() as u64 }
    }

    #[test]
    fn an_adapter_is_loaded_once_for_all_who_wait() {
        let mut adapters = Adapters::default();
        assert_eq!(ask(&mut adapters, ONE).try_recv(), Ok(Ok(false)));
        let ((first, mut one), (second, mut two)) = (load(&mut adapters, ONE), load(&mut adapters, ONE));
        assert!(first && !second && one.try_recv().is_err());
        adapters.adapted(ONE, &Ok(()), with(&[ONE]));
        assert_eq!((one.try_recv(), two.try_recv()), (Ok(Ok(true)), Ok(Ok(true))));
        assert_eq!(ask(&mut adapters, ONE).try_recv(), Ok(Ok(true)));
        assert_eq!(adapters.bytes().load(Ordering::Relaxed), 10);
    }

    #[test]
    fn nobody_is_told_of_an_adapter_that_may_be_making_room() {
        let mut adapters = Adapters::default();
        let (_, _one) = load(&mut adapters, ONE);
        adapters.adapted(ONE, &Ok(()), with(&[ONE]));
        let (_, mut other) = load(&mut adapters, OTHER);
        let mut asked = ask(&mut adapters, ONE);
        assert!(asked.try_recv().is_err());
        adapters.adapted(OTHER, &Ok(()), with(&[OTHER]));
        assert_eq!((other.try_recv(), asked.try_recv()), (Ok(Ok(true)), Ok(Ok(false))));
    }

    #[test]
    fn one_that_is_refused_may_have_cost_another_its_place_and_that_is_known() {
        let mut adapters = Adapters::default();
        let (_, _one) = load(&mut adapters, ONE);
        adapters.adapted(ONE, &Ok(()), with(&[ONE]));
        let (_, mut other) = load(&mut adapters, OTHER);
        let unfit = AdaptFailure::Unfit("of another model".to_owned());
        adapters.adapted(OTHER, &Err(unfit.clone()), with(&[]));
        assert_eq!(other.try_recv(), Ok(Err(unfit)));
        assert_eq!(ask(&mut adapters, ONE).try_recv(), Ok(Ok(false)));
    }
}
