//! The desktop's notifications, as a service on the test's own bus.

#![allow(
    clippy::unused_self,
    clippy::used_underscore_binding,
    clippy::too_many_arguments,
    reason = "the desktop's interface has methods and arguments that a test does not need"
)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use zbus::blocking::{Connection, connection::Builder};
use zbus::zvariant::OwnedValue;

const PATH: &str = "/org/freedesktop/Notifications";
const NAME: &str = "org.freedesktop.Notifications";

/// What was to be shown: title and text.
type Shown = Arc<Mutex<Vec<(String, String)>>>;

struct Service(Shown);

#[zbus::interface(name = "org.freedesktop.Notifications")]
impl Service {
    fn notify(
        &self,
        _app: &str,
        _replaces: u32,
        _icon: &str,
        title: &str,
        text: &str,
        _actions: Vec<String>,
        _hints: HashMap<String, OwnedValue>,
        _timeout: i32,
    ) -> u32 {
        let mut shown = self.0.lock().unwrap();
        shown.push((title.to_owned(), text.to_owned()));
        shown.len() as u32
    }

    fn get_capabilities(&self) -> Vec<String> {
        ["body", "actions"].map(str::to_owned).to_vec()
    }

    fn get_server_information(&self) -> (String, String, String, String) {
        ("test".to_owned(), "test".to_owned(), "1".to_owned(), "1.2".to_owned())
    }

    fn close_notification(&self, _id: u32) {}
}

/// A desktop that shows notifications, and whose owner may click on them.
pub(crate) struct Notices {
    bus: Connection,
    shown: Shown,
}

impl Notices {
    pub(crate) fn on(bus: &str) -> Self {
        let shown = Shown::default();
        let builder = Builder::address(bus).unwrap().name(NAME).unwrap();
        let bus = builder.serve_at(PATH, Service(shown.clone())).unwrap().build().unwrap();
        Self { bus, shown }
    }

    pub(crate) fn shown(&self) -> Vec<(String, String)> {
        self.shown.lock().unwrap().clone()
    }

    /// A click on the latest.
    pub(crate) fn click(&self) {
        let id = self.shown().len() as u32;
        self.bus.emit_signal(None::<&str>, PATH, NAME, "ActionInvoked", &(id, "default")).unwrap();
    }
}
