//! Runs code that recurses over a file's contents on a thread with a large stack, and turns its panics into errors.
//!
//! Recursive third-party code parses, compiles and drops templates and tokenizers. The nesting of files is limited
//! beforehand; this stack has room for the depth that is allowed.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// Measured on debug builds: the deepest template within the limits takes less than a quarter of it. Untouched memory
/// costs nothing.
const STACK_BYTES: usize = 64 << 20;

/// The code panicked, or no thread could be started.
#[derive(Debug)]
pub(crate) struct Failed;

/// Runs `work` on such a thread and waits for it.
pub(crate) fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Failed> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("model-text".to_owned()).stack_size(STACK_BYTES);
        let thread = thread.spawn_scoped(scope, || quietly(work)).map_err(|_| Failed)?;
        thread.join().unwrap_or(Err(Failed))
    })
}

/// Runs `work`. A panic becomes an error without its message, which may quote a person's text.
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
    // The callers discard what `work` leaves half done, or it is the library's cache, which has a lock.
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
