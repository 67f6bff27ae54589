//! Streams of counters: a client reads a list again whenever its number changes.

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, stream};
use tokio::sync::watch;

/// Sends the count, now and after each change.
pub(crate) fn counts(mut changes: watch::Receiver<u64>) -> Sse<impl Stream<Item = Result<Event, axum::Error>>> {
    changes.mark_changed();
    let frames = stream::unfold(changes, |mut changes| async {
        changes.changed().await.ok()?;
        let count = *changes.borrow_and_update();
        Some((Event::default().json_data(count), changes))
    });
    Sse::new(frames).keep_alive(KeepAlive::default())
}
