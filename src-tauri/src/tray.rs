//! The tray icon and its menu: a driver that renders the model (`hive_view::menu`).
//!
//! Label changes are applied in place, so that an open menu stays open; only a change of its entries rebuilds the menu.

use std::collections::HashMap;
use std::mem::ManuallyDrop;

use hive_view::{Entry, State};
use tauri::image::Image;
use tauri::menu::{CheckMenuItem, IsMenuItem, Menu, MenuItem, PredefinedMenuItem, Submenu};
use tauri::tray::{TrayIcon, TrayIconBuilder};
use tauri::{AppHandle, Wry, include_image};

/// The tray's ID, which is also its name on the session bus of a Linux desktop.
pub(crate) const ID: &str = "hivemind";

/// A handle to a menu entry on screen.
enum Shown {
    Text(MenuItem<Wry>),
    Check(CheckMenuItem<Wry>),
    Within(Submenu<Wry>),
}

/// The tray.
pub(crate) struct Tray {
    /// Tauri removes it when the app exits. It is not dropped before: its count of owners is not atomic.
    icon: ManuallyDrop<TrayIcon<Wry>>,
    state: Option<State>,
    entries: Vec<Entry>,
    shown: HashMap<String, Shown>,
}

impl Tray {
    /// Adds the tray icon.
    pub(crate) fn new(app: &AppHandle) -> tauri::Result<Self> {
        let icon = TrayIconBuilder::with_id(ID)
            .tooltip("HiveMind")
            .icon(image(State::Idle))
            .icon_as_template(true)
            // On macOS, a left click opens the popover and a right click the menu.
            .show_menu_on_left_click(false)
            .build(app)?;
        Ok(Self { icon: ManuallyDrop::new(icon), state: None, entries: Vec::new(), shown: HashMap::new() })
    }

    /// Updates the icon and the menu.
    pub(crate) fn show(&mut self, app: &AppHandle, state: State, entries: Vec<Entry>) -> tauri::Result<()> {
        if self.state != Some(state) {
            self.icon.set_icon_with_as_template(Some(image(state)), true)?;
            self.state = Some(state);
        }
        if shape(&self.entries) == shape(&entries) {
            self.reword(&entries)?;
        } else {
            self.shown.clear();
            let items = build(app, &entries, &mut self.shown)?;
            let items: Vec<_> = items.iter().map(AsRef::as_ref).collect();
            self.icon.set_menu(Some(Menu::with_items(app, &items)?))?;
        }
        self.entries = entries;
        Ok(())
    }

    fn reword(&self, entries: &[Entry]) -> tauri::Result<()> {
        for entry in entries {
            match entry {
                Entry::Text { id, text, enabled } => {
                    if let Some(Shown::Text(item)) = self.shown.get(id) {
                        item.set_text(text)?;
                        item.set_enabled(*enabled)?;
                    }
                }
                Entry::Check { id, text, on } => {
                    if let Some(Shown::Check(item)) = self.shown.get(id) {
                        item.set_text(text)?;
                        item.set_checked(*on)?;
                    }
                }
                Entry::Within { id, text, entries } => {
                    if let Some(Shown::Within(item)) = self.shown.get(id) {
                        item.set_text(text)?;
                    }
                    self.reword(entries)?;
                }
                Entry::Line => {}
            }
        }
        Ok(())
    }
}

/// The IDs of all entries; menus with equal IDs differ only in labels.
fn shape(entries: &[Entry]) -> Vec<&str> {
    entries.iter().flat_map(ids).collect()
}

fn ids(entry: &Entry) -> Vec<&str> {
    match entry {
        Entry::Text { id, .. } | Entry::Check { id, .. } => vec![id.as_str()],
        Entry::Within { id, entries, .. } => [vec![id.as_str(), "("], shape(entries), vec![")"]].concat(),
        Entry::Line => vec!["-"],
    }
}

fn build(
    app: &AppHandle,
    entries: &[Entry],
    shown: &mut HashMap<String, Shown>,
) -> tauri::Result<Vec<Box<dyn IsMenuItem<Wry>>>> {
    let mut items: Vec<Box<dyn IsMenuItem<Wry>>> = Vec::with_capacity(entries.len());
    for entry in entries {
        match entry {
            Entry::Text { id, text, enabled } => {
                let item = MenuItem::with_id(app, id, text, *enabled, None::<&str>)?;
                shown.insert(id.clone(), Shown::Text(item.clone()));
                items.push(Box::new(item));
            }
            Entry::Check { id, text, on } => {
                let item = CheckMenuItem::with_id(app, id, text, true, *on, None::<&str>)?;
                shown.insert(id.clone(), Shown::Check(item.clone()));
                items.push(Box::new(item));
            }
            Entry::Within { id, text, entries } => {
                let within = build(app, entries, shown)?;
                let within: Vec<_> = within.iter().map(AsRef::as_ref).collect();
                let item = Submenu::with_id_and_items(app, id, text, true, &within)?;
                shown.insert(id.clone(), Shown::Within(item.clone()));
                items.push(Box::new(item));
            }
            Entry::Line => items.push(Box::new(PredefinedMenuItem::separator(app)?)),
        }
    }
    Ok(items)
}

fn image(state: State) -> Image<'static> {
    match state {
        State::Idle => include_image!("../icons/tray-idle.png"),
        State::Sharing => include_image!("../icons/tray-sharing.png"),
        State::Busy => include_image!("../icons/tray-busy.png"),
        State::Attention => include_image!("../icons/tray-attention.png"),
        State::Paused => include_image!("../icons/tray-paused.png"),
    }
}
