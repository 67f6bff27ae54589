//! The app in a real window, with real nodes.
//!
//! `HIVEMIND_SCREENS=docs/screens` keeps pictures of what it shows.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

#[path = "app/adding.rs"]
mod adding;
#[path = "app/browser.rs"]
mod browser;
#[path = "app/chaos.rs"]
mod chaos;
#[path = "app/composing.rs"]
mod composing;
#[path = "app/conversations.rs"]
mod conversations;
#[path = "app/dragging.rs"]
mod dragging;
#[path = "app/driver.rs"]
mod driver;
#[path = "app/faults.rs"]
mod faults;
#[path = "app/fetching.rs"]
mod fetching;
#[path = "app/figures.rs"]
mod figures;
#[path = "app/german.rs"]
mod german;
#[path = "app/machines.rs"]
mod machines;
#[path = "app/nothing_lost.rs"]
mod nothing_lost;
#[path = "app/notices.rs"]
mod notices;
#[path = "app/pages.rs"]
mod pages;
#[path = "app/presets.rs"]
mod presets;
#[path = "app/releases.rs"]
mod releases;
#[path = "app/settings.rs"]
mod settings;
#[allow(dead_code, unreachable_pub, reason = "the stand-in hub has more faults than are used here")]
#[path = "../crates/hive-store/tests/hub/stand_in.rs"]
mod stand_in;
#[path = "app/starting.rs"]
mod starting;
#[path = "app/steps.rs"]
mod steps;
#[path = "app/tour.rs"]
mod tour;
#[path = "app/typing.rs"]
mod typing;
#[path = "app/walk.rs"]
mod walk;

const QUESTION: &str = "What is the capital of France?";
/// Answered at length by the starter model, if it takes its most certain words (`ask_at_length`).
const LONG: &str = "Write a very long story about bees.";
