//! Desktop notifications: for pairing requests, and for long answers that are done. A click shows where they are.

use hive_mind::Ended;
use hive_node::settings::Language;
use hive_view::Request;
use notify_rust::{Notification, NotificationResponse};
use tauri::AppHandle;

use crate::windows;
use crate::words::{Words, words};

/// Requests in `now` that need a notification: made by the other machine and not in `before`.
pub(crate) fn news<'a>(before: &[Request], now: &'a [Request]) -> Vec<&'a Request> {
    let new = |request: &&Request| request.asked_by_them && !before.iter().any(|known| known.id == request.id);
    now.iter().filter(new).collect()
}

/// An answer that took less is done before its owner looks away.
const LONG_ANSWER_S: f64 = 10.0;

/// Whether the end of an answer needs a notification, if no window is seen.
pub(crate) fn is_news(ended: &Ended) -> bool {
    ended.complete && ended.took_s >= LONG_ANSWER_S
}

/// Notifies the owner of a request.
pub(crate) fn tell(app: &AppHandle, language: Language, request: &Request) {
    let words = words(language);
    let (title, text) = ((words.wants_to_join)(&request.name), (words.approve_only)(&request.code));
    show(app, words, title, text, |app| windows::show_popover(app, None));
}

/// Notifies the owner that an answer is done.
pub(crate) fn tell_of_answer(app: &AppHandle, language: Language, ended: &Ended) {
    let words = words(language);
    let title = if ended.title.is_empty() { words.answer.to_owned() } else { ended.title.clone() };
    let id = ended.id.clone();
    show(app, words, title, words.answer_done.to_owned(), move |app| windows::show_conversation(app, &id));
}

/// Shows a notification; `open` follows a click on it. Waiting for the click occupies a thread until it closes.
fn show(
    app: &AppHandle,
    words: &'static Words,
    title: String,
    text: String,
    open: impl FnOnce(&AppHandle) + Send + 'static,
) {
    let app = app.clone();
    std::thread::spawn(move || {
        let mut notification = Notification::new();
        notification.appname("HiveMind").summary(&title).body(&text).action("default", words.show);
        let shown = notification.show();
        let waited = shown.and_then(|shown| {
            shown.wait_for_response(move |response: &NotificationResponse| {
                if matches!(response, NotificationResponse::Default | NotificationResponse::Action(_)) {
                    let handle = app.clone();
                    let _ = app.run_on_main_thread(move || open(&handle));
                }
            })
        });
        // On a desktop without notifications, the shape of the tray icon still shows a request.
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

    #[test]
    fn a_long_answer_that_is_done_is_told_of() {
        let ended = |took_s, complete| Ended { id: String::new(), title: String::new(), complete, took_s };
        assert!(is_news(&ended(12.0, true)));
        assert!(!is_news(&ended(3.0, true)) && !is_news(&ended(12.0, false)));
    }
}
