//! Work that several wait for: it is done once for all of them, goes on while anybody waits, and ends when nobody does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};

/// The work of one key. Whoever waits for it polls it.
type Work<T, E> = BoxFuture<'static, Result<T, Arc<E>>>;

struct UnderWay<K, T, E> {
    key: K,
    is_over: Arc<AtomicBool>,
    work: WeakShared<Work<T, E>>,
}

/// Marks work as over when it ends in any way.
struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The work under way, by what it is for.
pub(crate) struct Joint<K, T, E> {
    under_way: Mutex<Vec<UnderWay<K, T, E>>>,
}

impl<K, T, E> Default for Joint<K, T, E> {
    fn default() -> Self {
        Self { under_way: Mutex::default() }
    }
}

impl<K: PartialEq + Clone, T: Clone + Send + 'static, E: Send + Sync + 'static> Joint<K, T, E> {
    /// Waits for the work of `key`, which begins with `work` if nobody waits for it yet.
    pub(crate) async fn run<F>(&self, key: &K, work: impl FnOnce() -> F) -> Result<T, Arc<E>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.join(key, work).await
    }

    fn join<F>(&self, key: &K, work: impl FnOnce() -> F) -> Shared<Work<T, E>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        // What has ended is not the answer to a question that comes later.
        under_way.retain(|known| !known.is_over.load(Ordering::Relaxed));
        let known = under_way.iter().find(|known| known.key == *key).and_then(|known| known.work.upgrade());
        known.unwrap_or_else(|| {
            let is_over = Arc::new(AtomicBool::new(false));
            let (over, work) = (Over(is_over.clone()), work());
            let made = async move {
                let _over = over;
                work.await.map_err(Arc::new)
            };
            let made = made.boxed().shared();
            under_way.extend(made.downgrade().map(|work| UnderWay { key: key.clone(), is_over, work }));
            made
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::oneshot;

    use super::*;

    /// Counts what was begun, and what was dropped before its end.
    #[derive(Clone, Default)]
    struct Counts {
        begun: Arc<AtomicUsize>,
        dropped: Arc<AtomicUsize>,
    }

    struct Guard(Counts, bool);

    impl Drop for Guard {
        fn drop(&mut self) {
            if !self.1 {
                self.0.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    impl Counts {
        fn of(&self) -> (usize, usize) {
            (self.begun.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed))
        }

        async fn work(self, until: oneshot::Receiver<Result<u8, &'static str>>) -> Result<u8, &'static str> {
            self.begun.fetch_add(1, Ordering::Relaxed);
            let mut guard = Guard(self, false);
            let done = until.await.unwrap();
            guard.1 = true;
            done
        }
    }

    fn never() -> std::future::Pending<Result<u8, &'static str>> {
        unreachable!("it is under way")
    }

    #[tokio::test]
    async fn it_goes_on_when_the_one_who_began_it_leaves() {
        let (joint, counts) = (Joint::default(), Counts::default());
        let (end, until) = oneshot::channel();
        let mut first = Box::pin(joint.run(&"a", || counts.clone().work(until)));
        let mut second = Box::pin(joint.run(&"a", never));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        drop(first);
        assert_eq!(counts.of(), (1, 0));
        end.send(Ok(7)).unwrap();
        assert_eq!(second.await, Ok(7));
        assert_eq!(counts.of(), (1, 0));
    }

    #[tokio::test]
    async fn it_ends_when_the_last_one_leaves_and_begins_again_for_the_next() {
        let (joint, counts) = (Joint::default(), Counts::default());
        let (_end, until) = oneshot::channel();
        let mut first = Box::pin(joint.run(&"a", || counts.clone().work(until)));
        let mut second = Box::pin(joint.run(&"a", never));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        drop((first, second));
        assert_eq!(counts.of(), (1, 1));
        let (end, until) = oneshot::channel();
        end.send(Ok(8)).unwrap();
        assert_eq!(joint.run(&"a", || counts.clone().work(until)).await, Ok(8));
    }

    #[tokio::test]
    async fn all_hear_why_it_failed_and_who_asks_afterwards_tries_again() {
        let (joint, counts) = (Joint::default(), Counts::default());
        let (end, until) = oneshot::channel();
        let mut first = Box::pin(joint.run(&"a", || counts.clone().work(until)));
        let mut second = Box::pin(joint.run(&"a", never));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        end.send(Err("no machine")).unwrap();
        let [first, second] = [first.await, second.await].map(|said| said.map_err(|error| *error));
        assert_eq!((first, second), (Err("no machine"), Err("no machine")));
        let (end, until) = oneshot::channel();
        end.send(Ok(9)).unwrap();
        // What is for another key is other work.
        assert_eq!(joint.run(&"b", || counts.clone().work(until)).await, Ok(9));
        let (end, until) = oneshot::channel();
        end.send(Ok(1)).unwrap();
        assert_eq!(joint.run(&"a", || counts.clone().work(until)).await, Ok(1));
        assert_eq!(counts.of().0, 3);
    }
}
