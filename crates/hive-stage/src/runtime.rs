//! The runtime that a node lives on.
//!
//! A token passes a node in short steps, each of which wakes the next. Where tokio has threads to spare, most steps wake
//! one that finds nothing to do and takes a core from what computes. So there are few of them, and what takes long is done
//! [`aside`].

use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};

/// The cores that compute for each thread of the node's own.
const CORES_PER_THREAD: usize = 4;

/// Makes one.
pub fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(hive_host::threads().div_ceil(CORES_PER_THREAD)).enable_all().build()
}

/// Does what takes long without keeping the runtime from anything else meanwhile.
pub fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        // Nothing else goes on here, or nothing else could.
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn what_takes_long_keeps_nothing_else_from_going_on() {
        let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (say, hear) = mpsc::channel();
        let waits = runtime.spawn(async move { aside(|| hear.recv_timeout(Duration::from_secs(10))) });
        runtime.spawn(async move { say.send(7).unwrap() });
        assert_eq!(runtime.block_on(waits).unwrap(), Ok(7));
    }

    #[tokio::test]
    async fn without_other_threads_it_is_done_where_it_is() {
        assert_eq!(aside(|| 7), 7);
    }
}
