//! The actions of the tray menu.

use std::time::Duration;

use hive_view::Choice;
use tauri::AppHandle;

use crate::end::end;
use crate::problem::Problem;
use crate::shell::Shell;
use crate::{update, windows};

impl Shell {
    /// Performs the action chosen in the tray menu.
    pub(crate) fn choose(&self, app: &AppHandle, choice: Choice) {
        let done = match choice {
            Choice::Share => self.node.share(!self.shown().borrow().share).map_err(Problem::from),
            Choice::Pause => self.node.pause(Some(Duration::from_hours(1))).map_err(Problem::from),
            Choice::Resume => self.node.pause(None).map_err(Problem::from),
            Choice::Approve { id, code } => self.approve(&id, &code),
            Choice::Deny(id) => self.deny(&id),
            Choice::Overview => {
                windows::show_popover(app, None);
                Ok(())
            }
            Choice::Chat => {
                windows::show_page(app, "chat");
                Ok(())
            }
            Choice::Settings => {
                windows::show_page(app, "settings");
                Ok(())
            }
            Choice::NewChat => {
                windows::show_page(app, "new-chat");
                Ok(())
            }
            Choice::Update => {
                windows::show_page(app, "settings");
                let app = app.clone();
                self.spawn(async move { update::go_on(&app).await });
                Ok(())
            }
            Choice::Quit => {
                end(app, false);
                Ok(())
            }
        };
        if let Err(problem) = done {
            tracing::warn!("{}", problem.message);
        }
    }
}
