//! A newer version: looked for when somebody asks, fetched, checked against the publisher's key, and run after a restart.
//! Nothing is asked of the network before that.

use serde::Serialize;
use specta::Type;
use tauri::{AppHandle, Manager, Url};
use tauri_plugin_updater::UpdaterExt;

use crate::problem::Problem;
use crate::shell::Shell;

/// Where newer versions are, and the publisher's key: set when a release is built.
const PLACE: Option<&str> = option_env!("HIVEMIND_UPDATE_URL");
const KEY: Option<&str> = option_env!("HIVEMIND_UPDATE_KEY");

/// How far an update has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Type)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Update {
    /// Nobody has asked.
    #[default]
    Unknown,
    /// Being looked for.
    Looking,
    /// There is none.
    Current,
    /// There is one.
    Found {
        /// Its version.
        version: String,
        /// What is new in it.
        notes: String,
    },
    /// On its way.
    Fetching {
        /// Its version.
        version: String,
        /// How much is here.
        percent: u32,
    },
    /// Here; it runs after a restart.
    Ready {
        /// Its version.
        version: String,
    },
    /// It did not work.
    Failed {
        /// Why.
        why: String,
    },
}

/// What a click leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Look,
    Fetch,
    Restart,
    /// It is busy already.
    Wait,
}

impl Update {
    /// What comes next, if somebody wants it to.
    pub(crate) fn next(&self) -> Next {
        match self {
            Self::Unknown | Self::Current | Self::Failed { .. } => Next::Look,
            Self::Found { .. } => Next::Fetch,
            Self::Ready { .. } => Next::Restart,
            Self::Looking | Self::Fetching { .. } => Next::Wait,
        }
    }

    /// The words of the menu's entry.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Unknown | Self::Current => "Check for Updates…".to_owned(),
            Self::Looking => "Checking for Updates…".to_owned(),
            Self::Found { version, .. } => format!("Update to {version}…"),
            Self::Fetching { version, percent } => format!("Fetching {version}: {percent} %"),
            Self::Ready { version } => format!("Restart into {version}"),
            Self::Failed { .. } => "Update Failed; Try Again…".to_owned(),
        }
    }
}

/// Takes the update one step on.
pub(crate) async fn go_on(app: &AppHandle) {
    let shell = app.state::<Shell>();
    let now = shell.shown().borrow().update.clone();
    let failed = |why: Problem| Update::Failed { why: why.message };
    match (now.next(), &now) {
        (Next::Look, _) => {
            shell.set_update(Update::Looking);
            shell.set_update(look(app).await.unwrap_or_else(failed));
        }
        (Next::Fetch, Update::Found { version, .. }) => {
            shell.set_update(Update::Fetching { version: version.clone(), percent: 0 });
            shell.set_update(fetch(app, version).await.unwrap_or_else(failed));
        }
        (Next::Restart, _) => crate::end(app, true),
        _ => {}
    }
}

fn updater(app: &AppHandle) -> Result<tauri_plugin_updater::Updater, Problem> {
    let problem = |error: tauri_plugin_updater::Error| Problem::new("update", error);
    // A release asks nobody else; a build for tests asks the test.
    let for_tests = |name| std::env::var(name).ok().filter(|_| cfg!(debug_assertions));
    let place = for_tests("HIVEMIND_UPDATE_URL").or(PLACE.map(str::to_owned));
    let key = for_tests("HIVEMIND_UPDATE_KEY").or(KEY.map(str::to_owned));
    let (Some(place), Some(key)) = (place, key) else {
        return Err(Problem::new("update", "this build does not know where newer ones are; get it where you got this one"));
    };
    let place = Url::parse(&place).map_err(Problem::of("update"))?;
    let mut builder = app.updater_builder().pubkey(key).endpoints(vec![place]).map_err(problem)?;
    if let Some(over) = for_tests("HIVEMIND_UPDATE_OVER") {
        builder = builder.executable_path(over);
    }
    builder.build().map_err(problem)
}

async fn look(app: &AppHandle) -> Result<Update, Problem> {
    let found = updater(app)?.check().await;
    let found = found.map_err(|error| Problem::new("update", format!("no newer version could be looked for: {error}")))?;
    Ok(found.map_or(Update::Current, |update| Update::Found {
        version: update.version.clone(),
        notes: update.body.clone().unwrap_or_default(),
    }))
}

async fn fetch(app: &AppHandle, version: &str) -> Result<Update, Problem> {
    let failed = |error| Problem::new("update", format!("{version} was not installed: {error}"));
    let Some(update) = updater(app)?.check().await.map_err(failed)? else { return Ok(Update::Current) };
    let (shell, mut here) = (app.state::<Shell>(), 0);
    let progress = |bytes: usize, all: Option<u64>| {
        here += bytes as u64;
        let percent = all.filter(|all| *all > 0).map_or(0, |all| (here * 100 / all).min(100) as u32);
        shell.set_update(Update::Fetching { version: version.to_owned(), percent });
    };
    // What is not signed by the publisher ends here.
    let bytes = update.download(progress, || ()).await.map_err(failed)?;
    update.install(bytes).map_err(failed)?;
    Ok(Update::Ready { version: version.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_click_leads_on_from_wherever_it_is() {
        let (version, notes) = ("9.9.9".to_owned(), String::new());
        let found = Update::Found { version: version.clone(), notes };
        let fetching = Update::Fetching { version: version.clone(), percent: 40 };
        let next = |update: &Update| (update.next(), update.words());
        assert_eq!(next(&Update::Unknown), (Next::Look, "Check for Updates…".to_owned()));
        assert_eq!(next(&found), (Next::Fetch, "Update to 9.9.9…".to_owned()));
        assert_eq!(next(&fetching), (Next::Wait, "Fetching 9.9.9: 40 %".to_owned()));
        assert_eq!(next(&Update::Ready { version }), (Next::Restart, "Restart into 9.9.9".to_owned()));
        assert_eq!(Update::Failed { why: String::new() }.next(), Next::Look);
    }
}
