//! The settings as the settings page shows them, and their mapping to `config.toml`.

use std::net::SocketAddr;

use hive_node::settings::{Accent, SettingError, Settings};
use serde::{Deserialize, Serialize};
use specta::Type;

/// The owner's settings; null means the default.
#[allow(clippy::struct_excessive_bools, reason = "independent switches on the settings page")]
#[derive(Debug, Clone, Serialize, Deserialize, Type)]
pub(crate) struct Preferences {
    /// The name shown to other machines.
    pub(crate) name: Option<String>,
    /// Maximum memory to share, such as "8GiB".
    pub(crate) memory: Option<String>,
    /// Share only on mains power.
    pub(crate) only_on_power: bool,
    /// Share only after this many minutes without input.
    pub(crate) only_when_idle_minutes: Option<u32>,
    /// Maximum upload to other machines, in megabits per second.
    pub(crate) bandwidth_mbit_per_s: Option<u32>,
    /// Whether all traffic stays on the local network.
    pub(crate) lan_only: bool,
    /// `none`, `public`, or the URL of the owner's own relay.
    pub(crate) relay: Option<String>,
    /// API address for programs on this machine.
    pub(crate) api: Option<String>,
    /// Listening address for other machines.
    pub(crate) bind: Option<String>,
    /// Whether to notify the owner of pairing requests.
    pub(crate) notify: bool,
    /// Accent colour of switches, buttons and lights.
    pub(crate) accent: Accent,
    /// Whether the app opens at login.
    pub(crate) open_at_login: bool,
}

impl Preferences {
    /// The current settings, with the system's own state for opening at login.
    pub(crate) fn of(settings: Settings, open_at_login: bool) -> Self {
        let text = |address: Option<SocketAddr>| address.map(|address| address.to_string());
        let small = |number: Option<u64>| number.map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        Self {
            name: settings.name,
            memory: settings.memory,
            only_on_power: settings.only_on_power.unwrap_or(false),
            only_when_idle_minutes: small(settings.only_when_idle_minutes),
            bandwidth_mbit_per_s: small(settings.bandwidth_mbit_per_s),
            lan_only: settings.lan_only.unwrap_or(false),
            relay: settings.relay,
            api: text(settings.api),
            bind: text(settings.bind),
            notify: settings.notify.unwrap_or(false),
            accent: settings.accent.unwrap_or_default(),
            open_at_login,
        }
    }

    /// The settings after applying these to `before`.
    pub(crate) fn over(self, before: &Settings) -> Result<Settings, SettingError> {
        let given = |text: Option<String>| text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let address = |text: Option<String>| {
            given(text).map(|text| text.parse().map_err(|_| SettingError::Address(text))).transpose()
        };
        let settings = Settings {
            name: given(self.name),
            memory: given(self.memory),
            only_on_power: Some(self.only_on_power),
            only_when_idle_minutes: self.only_when_idle_minutes.map(u64::from),
            bandwidth_mbit_per_s: self.bandwidth_mbit_per_s.filter(|rate| *rate > 0).map(u64::from),
            lan_only: Some(self.lan_only),
            relay: given(self.relay),
            api: address(self.api)?,
            bind: address(self.bind)?,
            share: before.share,
            keep_prompts_here: before.keep_prompts_here,
            allow_origins: before.allow_origins.clone(),
            allow_hosts: before.allow_hosts.clone(),
            accent: Some(self.accent).filter(|accent| *accent != Accent::default()),
            // While notifications are off, the owner may still be asked when they first become useful.
            notify: if self.notify { Some(true) } else { before.notify.map(|_| false) },
        };
        settings.check()?;
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_nobody_changed_changes_nothing() {
        let set = Settings {
            name: Some("Attic".to_owned()),
            share: Some(false),
            only_on_power: Some(true),
            lan_only: Some(false),
            bandwidth_mbit_per_s: Some(50),
            accent: Some(Accent::Blue),
            api: "127.0.0.1:4000".parse().ok(),
            ..Settings::default()
        };
        assert_eq!(Preferences::of(set.clone(), true).over(&set).unwrap(), set);
    }

    #[test]
    fn what_is_emptied_is_as_usual_and_what_cannot_be_is_named() {
        let before = Settings { name: Some("Attic".to_owned()), accent: Some(Accent::Red), ..Settings::default() };
        let page = Preferences::of(before.clone(), false);
        let usual = Preferences { name: Some("  ".to_owned()), accent: Accent::Honey, ..page.clone() };
        let settings = usual.over(&before).unwrap();
        assert_eq!((settings.name, settings.accent, settings.notify), (None, None, None));
        let wrong = Preferences { api: Some("here".to_owned()), ..page.clone() };
        assert!(wrong.over(&before).unwrap_err().to_string().contains("\"here\" is no address"));
        let wrong = Preferences { memory: Some("lots".to_owned()), ..page };
        assert!(wrong.over(&before).unwrap_err().to_string().contains("lots"));
    }

    #[test]
    fn notifications_that_nobody_was_asked_about_may_still_be_asked_about() {
        let page = |notify| Preferences { notify, ..Preferences::of(Settings::default(), false) };
        let (unasked, asked) = (Settings::default(), Settings { notify: Some(true), ..Settings::default() });
        assert_eq!(page(false).over(&unasked).unwrap().notify, None);
        assert_eq!(page(false).over(&asked).unwrap().notify, Some(false));
        assert_eq!(page(true).over(&unasked).unwrap().notify, Some(true));
    }
}
