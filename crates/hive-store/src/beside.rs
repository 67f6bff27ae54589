//! Files are touched beside the runtime: a disk that hangs must not hold up everything else.

use std::io;

/// Does work on files beside the runtime.
pub(crate) async fn beside<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
