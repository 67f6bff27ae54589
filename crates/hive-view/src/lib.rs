//! The app's view model: everything that the windows and the tray menu show, as values. Pure, and free of any toolkit.

mod machines;
mod menu;
mod snapshot;
mod update;
mod words;

pub use machines::{Found, LinkView, Machine, Request, RightsView, Today};
pub use menu::{Choice, Entry, choice, menu};
pub use snapshot::{Snapshot, State, Taste, snapshot};
pub use update::{Next, Update};
