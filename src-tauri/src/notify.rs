//! Desktop notifications for pairing requests. A click shows the popover.

use hive_view::Request;
use notify_rust::{Notification, NotificationResponse};
use tauri::AppHandle;

use crate::windows;

/// Requests in `now` that need a notification: made by the other machine and not in `before`.
pub(crate) fn news<'a>(before: &[Request], now: &'a [Request]) -> Vec<&'a Request> {
    let new = |request: &&Request| request.asked_by_them && !before.iter().any(|known| known.id == request.id);
    now.iter().filter(new).collect()
}

/// Notifies the owner of a request. Waiting for the click occupies a thread until the notification closes.
pub(crate) fn tell(app: &AppHandle, request: &Request) {
    let (app, name, code) = (app.clone(), request.name.clone(), request.code.clone());
    std::thread::spawn(move || {
        let mut notification = Notification::new();
        notification
            .appname("HiveMind")
            .summary(&format!("{name} wants to join"))
            .body(&format!("Approve only if the other machine also shows {code}."))
            .action("default", "Show");
        let shown = notification.show();
        let waited = shown.and_then(|shown| {
            shown.wait_for_response(move |response: &NotificationResponse| {
                if matches!(response, NotificationResponse::Default | NotificationResponse::Action(_)) {
                    let handle = app.clone();
                    let _ = app.run_on_main_thread(move || windows::show_popover(&handle, None));
                }
            })
        });
        // On a desktop without notifications, the shape of the tray icon still shows the request.
        if let Err(error) = waited {
            tracing::debug!("no notification: {error}");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: &str, asked_by_them: bool) -> Request {
        let text = String::new;
        Request {
            id: id.to_owned(),
            name: text(),
            fingerprint: text(),
            code: text(),
            approved_here: false,
            asked_by_them,
        }
    }

    #[test]
    fn each_machine_that_asks_is_told_of_once() {
        let (mini, attic) = (request("mini", true), request("attic", true));
        let told = |before: &[Request], now: &[Request]| {
            news(before, now).into_iter().map(|request| request.id.clone()).collect::<Vec<_>>()
        };
        assert_eq!(told(&[], std::slice::from_ref(&mini)), ["mini"]);
        assert_eq!(told(std::slice::from_ref(&mini), &[mini.clone(), attic]), ["attic"]);
        // The owner's own requests need no notification.
        assert!(told(&[], &[request("own", false)]).is_empty());
    }
}
