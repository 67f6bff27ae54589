//! Applies the remedy for a failed start, then starts the app again.

use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hive_node::data;
use hive_node::settings::Settings;
use tauri::{AppHandle, Manager};

use crate::end::end;
use crate::folder::{data_folder, show};
use crate::problem::Problem;
use crate::start_failure::{COMMAND, Cause, Remedy, StartFailure, aside};

/// Time for the other process to drain and end.
const ENDING: Duration = Duration::from_secs(20);

/// How often to check whether it has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Why the node could not start, if it could not; every other command then fails.
#[tauri::command]
#[specta::specta]
pub(crate) async fn start_failure(app: AppHandle) -> Option<StartFailure> {
    app.try_state::<StartFailure>().map(|failure| failure.inner().clone())
}

/// Applies one of the failure's remedies.
#[tauri::command]
#[specta::specta]
pub(crate) async fn repair(app: AppHandle, remedy: Remedy) -> Result<(), Problem> {
    let failure = app.try_state::<StartFailure>().map(|failure| failure.inner().clone());
    let Some(StartFailure { cause, .. }) = failure.filter(|failure| failure.remedies.contains(&remedy)) else {
        return Err(Problem::new("not_repaired", "this remedy does not apply"));
    };
    let folder = data_folder()?;
    let repaired = tauri::async_runtime::spawn_blocking(move || apply(remedy, &cause, &folder)).await;
    repaired.map_err(Problem::of("not_repaired"))??;
    match remedy {
        Remedy::OpenFolder => {}
        Remedy::Quit => end(&app, false),
        _ => end(&app, true),
    }
    Ok(())
}

fn apply(remedy: Remedy, cause: &Cause, folder: &Path) -> Result<(), Problem> {
    match (remedy, cause) {
        (Remedy::MoveAside, Cause::Damaged { file, .. } | Cause::Newer { file }) => move_aside(&folder.join(file)),
        (Remedy::StopOther, Cause::InUse { process: Some(process), .. }) => stop(*process, folder),
        (Remedy::UseAnotherPort, _) => use_another_port(folder),
        (Remedy::OpenFolder, _) => show(folder),
        _ => Ok(()),
    }
}

/// Whether a file, and another one beside it, can be written.
pub(crate) fn written(file: &Path) -> std::io::Result<()> {
    if file.exists() {
        std::fs::OpenOptions::new().append(true).open(file)?;
    }
    let beside = aside(file, Path::exists);
    let tried = std::fs::File::create(&beside).and_then(|mut file| file.write_all(&[0; 4096]));
    let _ = std::fs::remove_file(beside);
    tried
}

/// Renames a file, and the files that `SQLite` keeps beside it.
fn move_aside(file: &Path) -> Result<(), Problem> {
    let to = aside(file, Path::exists);
    let with = |path: &Path, suffix: &str| {
        let mut path = path.as_os_str().to_owned();
        path.push(suffix);
        PathBuf::from(path)
    };
    for suffix in ["", "-wal", "-shm"] {
        match std::fs::rename(with(file, suffix), with(&to, suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Problem::new("not_repaired", format!("cannot move {}: {error}", file.display())));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Ends a node without an app, as `kill` does, and waits until it has let go of the folder.
fn stop(process: u32, folder: &Path) -> Result<(), Problem> {
    let process = process.to_string();
    let failed = Problem::of("not_repaired");
    // The process that held the folder may have ended, and another one may have its number.
    let named = Command::new("ps").args(["-o", "comm=", "-p", &process]).output().map_err(&failed)?;
    let named = String::from_utf8_lossy(&named.stdout).trim().to_owned();
    if Path::new(&named).file_name().is_some_and(|name| name == COMMAND) {
        Command::new("kill").args(["-TERM", &process]).status().map_err(&failed)?;
    }
    let until = Instant::now() + ENDING;
    while data::is_held(folder) == Some(true) {
        if Instant::now() > until {
            return Err(Problem::new("not_stopped", "the other HiveMind has not stopped yet; try again in a moment"));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// Leaves the port for other machines to the system.
fn use_another_port(folder: &Path) -> Result<(), Problem> {
    let settings = Settings::read(folder)?;
    // An address that is not this machine's any more has no free port either.
    let free = |bind: &SocketAddr| UdpSocket::bind((bind.ip(), 0)).is_ok();
    let bind = settings.bind.filter(free).map(|bind| SocketAddr::new(bind.ip(), 0));
    Ok(Settings { bind, ..settings }.write(folder)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_moved_with_what_belongs_to_it_and_nothing_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        for name in ["a.sqlite", "a.sqlite-wal", "a.sqlite.aside"] {
            std::fs::write(file(name), name).unwrap();
        }
        move_aside(&file("a.sqlite")).unwrap();
        let read = |name: &str| std::fs::read_to_string(file(name)).ok();
        assert_eq!((read("a.sqlite"), read("a.sqlite-wal")), (None, None));
        assert_eq!(read("a.sqlite.aside").as_deref(), Some("a.sqlite.aside"));
        assert_eq!(read("a.sqlite.aside-2").as_deref(), Some("a.sqlite"));
        assert_eq!(read("a.sqlite.aside-2-wal").as_deref(), Some("a.sqlite-wal"));
    }

    #[test]
    fn another_port_is_a_free_one_of_the_same_address_or_of_any() {
        let folder = tempfile::tempdir().unwrap();
        let after = |bind: &str| {
            let settings = Settings { bind: bind.parse().ok(), name: Some("Attic".to_owned()), ..Settings::default() };
            settings.write(folder.path()).unwrap();
            use_another_port(folder.path()).unwrap();
            Settings::read(folder.path()).unwrap()
        };
        assert_eq!(after("127.0.0.1:4000").bind, "127.0.0.1:0".parse().ok());
        // From a network for documentation, which no machine is on.
        let elsewhere = after("192.0.2.1:4000");
        assert_eq!((elsewhere.bind, elsewhere.name.as_deref()), (None, Some("Attic")));
    }

    #[test]
    fn a_process_that_is_not_hivemind_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut other = Command::new("sleep").arg("60").spawn().unwrap();
        stop(other.id(), folder.path()).unwrap();
        let ended = other.try_wait().unwrap();
        let _ = other.kill();
        let _ = other.wait();
        assert_eq!(ended, None);
    }

    #[test]
    fn trying_to_write_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        written(&folder.path().join("a.sqlite")).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(written(Path::new("/proc/nowhere/a.sqlite")).is_err());
    }
}
