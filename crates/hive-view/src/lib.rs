//! The app's view model: everything that the windows and the tray menu show, as values. Pure, and free of any toolkit.

mod machines;
mod menu;
mod placed;
mod snapshot;
mod update;

pub use machines::{Found, LinkView, Machine, Request, RightsView, Today};
pub use menu::{Choice, Entry, choice, menu};
pub use placed::placed;
pub use snapshot::{Snapshot, State, snapshot};
pub use update::{Next, Update};
