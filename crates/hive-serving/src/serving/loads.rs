//! The models that are being fetched or loaded, as people see them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hive_types::LoadingView;

/// Every fetch and load in progress, the one that began first first.
#[derive(Debug, Default)]
pub(super) struct Loads(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    begun: u64,
    shown: Vec<(u64, LoadingView)>,
}

impl Loads {
    /// The number of another one. It is shown once it has something to say.
    pub(super) fn begin(&self) -> u64 {
        let mut state = self.state();
        state.begun += 1;
        state.begun
    }

    pub(super) fn show(&self, number: u64, view: LoadingView) {
        let shown = &mut self.state().shown;
        match shown.iter_mut().find(|(known, _)| *known == number) {
            Some((_, known)) => *known = view,
            None => shown.push((number, view)),
        }
    }

    pub(super) fn end(&self, number: u64) {
        self.state().shown.retain(|(known, _)| *known != number);
    }

    pub(super) fn views(&self) -> Vec<LoadingView> {
        self.state().shown.iter().map(|(_, view)| view.clone()).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_shown_from_its_first_progress_to_its_end() {
        let loads = Loads::default();
        let [first, second] = [loads.begin(), loads.begin()];
        let named = |name: &str, layers| LoadingView { name: name.to_owned(), layers, ..LoadingView::default() };
        assert!(loads.views().is_empty());
        loads.show(first, named("a", 1));
        loads.show(second, named("b", 1));
        loads.show(first, named("a", 2));
        assert_eq!(loads.views(), [named("a", 2), named("b", 1)]);
        loads.end(first);
        assert_eq!(loads.views(), [named("b", 1)]);
    }
}
