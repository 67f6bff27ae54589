//! The tokio runtime of a node.
//!
//! A token passes a node in short steps, each of which wakes the next. With many tokio threads, most steps would wake a
//! thread that finds nothing to do and takes a core from the computation. So there are few threads, and long work runs
//! [`aside`].

use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};

/// Computing cores per thread of the runtime.
const CORES_PER_THREAD: usize = 4;

/// Creates the runtime.
pub fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(hive_host::threads().div_ceil(CORES_PER_THREAD)).enable_all().build()
}

/// Runs blocking work without holding up the runtime.
pub fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        // There is nothing to hold up, or no other thread for it.
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
