//! A place for code that recurses on what a file says: a thread with a large stack, whose panics are errors.
//!
//! Templates and tokenizers are parsed, compiled and dropped by recursive code of other people. How deep a file may
//! nest is limited before; this is the room that the allowed depth takes.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// Measured on debug builds: the deepest template that passes the limits takes less than a quarter of it. Memory that
/// is not touched costs nothing.
const STACK_BYTES: usize = 64 << 20;

/// The code panicked, or no thread could be started.
#[derive(Debug)]
pub(crate) struct Failed;

/// Runs `work` there and waits for it.
pub(crate) fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Failed> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("model-text".to_owned()).stack_size(STACK_BYTES);
        let thread = thread.spawn_scoped(scope, || quietly(work)).map_err(|_| Failed)?;
        thread.join().unwrap_or(Err(Failed))
    })
}

/// Runs `work`; a panic is an error, and its message goes nowhere, because it may quote what a person wrote.
pub(crate) fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, Failed> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                loud(panic);
            }
        }));
    });
    let before = QUIET.replace(true);
    // What `work` leaves half done is thrown away by those who ask, or is the library's cache, which is guarded by a
    // lock.
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    QUIET.set(before);
    result.map_err(|_| Failed)
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(left: usize) -> usize {
        let frame = std::hint::black_box([left; 16]);
        if left == 0 { 0 } else { 1 + depth(frame[3] - 1) }
    }

    #[test]
    fn recursion_that_would_overflow_a_usual_stack_returns() {
        assert_eq!(on_deep_stack(|| depth(100_000)).unwrap(), 100_000);
    }

    #[test]
    fn a_panic_is_an_error() {
        assert!(on_deep_stack(|| panic!("of a library")).is_err());
    }
}
