//! The app: a tray icon, a popover and a window around a node. It adds no behaviour of its own.

mod end;
mod folder;
mod handed;
mod ipc;
mod links;
#[cfg(target_os = "macos")]
mod mac;
mod menu;
mod notify;
mod off;
mod pages;
mod popover;
mod preferences;
mod problem;
mod programs;
mod repair;
mod shell;
mod shortcut;
mod start_failure;
mod text_size;
mod tray;
mod update;
mod windows;
mod words;

use std::process::ExitCode;

use hive_node::settings::Settings;
use tauri::tray::{MouseButton, MouseButtonState, TrayIconEvent};
use tauri::{Manager, RunEvent};
use tauri_plugin_autostart::MacosLauncher;

use handed::Handed;
use shell::Shell;
use start_failure::StartFailure;
use tray::Tray;

/// The first argument of a worker process.
const WORKER: &str = "worker";

/// Passed when the system starts the app at login: no window is shown.
const HIDDEN: &str = "--hidden";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(WORKER) {
        // A worker needs no window and no runtime, only its MLX thread and its pipes.
        return match hive_node::worker::serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(error),
        };
    }
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(hive_node::colours_on_stderr());
    log.with_writer(std::io::stderr).init();
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(error),
    }
}

#[allow(clippy::print_stderr, reason = "the app could not start, so there is no other place to report to")]
fn failed(error: impl std::fmt::Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

/// The commands of the windows and their types.
fn commands() -> tauri_specta::Builder<tauri::Wry> {
    // The pages read these as JSON, from the node's own interface.
    let read = tauri_specta::Builder::new()
        .typ::<hive_mind::Entry>()
        .typ::<hive_mind::ChatEvent>()
        .typ::<hive_mind::Preset>()
        .typ::<hive_mind::Prompt>()
        .typ::<hive_node::ModelOnDisk>()
        .typ::<hive_node::CatalogueView>()
        .typ::<hive_api::PlanView>();
    read.disable_serde_phases().dangerously_cast_bigints_to_number().commands(tauri_specta::collect_commands![
        repair::start_failure,
        repair::repair,
        ipc::watch,
        popover::fit_popover,
        folder::show_models,
        handed::dropped_files,
        handed::choose_files,
        handed::read_handed,
        pages::request,
        pages::follow,
        ipc::export_conversation,
        ipc::show_exports,
        programs::programs,
        programs::add_program,
        programs::revoke_program,
        programs::use_another_port,
        programs::browser_link,
        preferences::preferences,
        preferences::change,
        preferences::reset_settings,
        preferences::about,
        preferences::show_folder,
        preferences::show_log,
        ipc::notify,
        ipc::update,
        ipc::restart,
        ipc::show_main,
        ipc::show_settings,
        ipc::show_conversation,
        ipc::has_written,
        ipc::hide,
        ipc::quit,
        links::open_link,
        text_size::text_size,
    ])
}

fn start() -> Result<(), Box<dyn std::error::Error>> {
    let display = ["DISPLAY", "WAYLAND_DISPLAY"].into_iter().any(|name| std::env::var_os(name).is_some());
    if cfg!(target_os = "linux") && !display {
        return Err("no display found; run `hivemind node` instead".into());
    }
    let folder = folder::data_folder()?;
    let runtime = hive_node::runtime()?;
    tauri::async_runtime::set(runtime.handle().clone());
    let commands = commands();
    let app = tauri::Builder::default()
        // Starting the app again shows the running app's window.
        .plugin(tauri_plugin_single_instance::init(|app, _, _| windows::show_main(app)))
        .plugin(tauri_plugin_updater::Builder::new().build())
        .plugin(tauri_plugin_autostart::init(MacosLauncher::LaunchAgent, Some(vec![HIDDEN])))
        .plugin(
            tauri_plugin_window_state::Builder::new()
                .with_denylist(&[windows::POPOVER, windows::START_FAILURE])
                .with_state_flags(remembered())
                .build(),
        )
        .invoke_handler(commands.invoke_handler())
        .on_menu_event(|app, event| {
            if let (Some(choice), Some(shell)) = (hive_view::choice(event.id().as_ref()), app.try_state::<Shell>()) {
                shell.choose(app, choice);
            }
        })
        .on_tray_icon_event(|app, event| {
            if let TrayIconEvent::Click {
                button: MouseButton::Left, button_state: MouseButtonState::Up, rect, ..
            } = event
            {
                windows::toggle_popover(app, rect);
            }
        })
        .setup(move |app| {
            match tauri::async_runtime::block_on(Shell::start(&folder)) {
                Ok(shell) => {
                    preferences::frame(app.handle(), shell.started.look.unwrap_or_default());
                    app.manage(shell);
                }
                Err(error) => {
                    failed(&error);
                    // The settings may be what is wrong.
                    let language = words::language(&Settings::read(&folder).unwrap_or_default());
                    app.manage(StartFailure::of(&error, language, repair::written));
                    return Ok(windows::show_start_failure(app.handle())?);
                }
            }
            app.manage(Handed::default());
            windows::make(app.handle())?;
            handed::listen(app.handle());
            #[cfg(target_os = "macos")]
            {
                mac::stay_awake();
                mac::bar(app.handle(), words::language(&app.state::<Shell>().started))?;
            }
            let opening = app.handle().clone();
            app.state::<Shell>().spawn(async move {
                let shell = opening.state::<Shell>();
                if let Err(problem) = shell.open_to_browsers(&opening, &shell.started).await {
                    tracing::warn!("{problem:?}");
                }
            });
            let chosen = app.state::<Shell>().started.quick_ask.clone();
            if let Err(unusable) = shortcut::listen(app.handle(), None, chosen.as_deref()) {
                tracing::warn!("the shortcut for a question is off: {unusable:?}");
            }
            let (handle, tray) = (app.handle().clone(), Tray::new(app.handle())?);
            app.state::<Shell>().spawn(async move {
                let app = handle.clone();
                handle.state::<Shell>().follow(app, tray).await;
            });
            if !std::env::args().any(|argument| argument == HIDDEN) {
                windows::show_main(app.handle());
            }
            Ok(())
        })
        .build(tauri::generate_context!())?;
    app.run(|app, event| match event {
        // Without a window, the app stays in the tray.
        RunEvent::ExitRequested { api, code: None, .. } => api.prevent_exit(),
        #[cfg(target_os = "macos")]
        RunEvent::Reopen { .. } => windows::show_main(app),
        _ => {
            let _ = app;
        }
    });
    Ok(())
}

/// The restored state of a window: its position and size, not whether it is open.
fn remembered() -> tauri_plugin_window_state::StateFlags {
    use tauri_plugin_window_state::StateFlags;
    StateFlags::POSITION | StateFlags::SIZE | StateFlags::MAXIMIZED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_told_what_is_looked_for_on_its_network() {
        let service = hive_node::SERVICE.trim_end_matches(".local.");
        assert!(include_str!("../Info.plist").contains(&format!("<string>{service}</string>")), "{service}");
    }

    #[test]
    fn the_bindings_of_the_windows_are_current() {
        let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/../ui/src/lib/bindings.ts");
        let fresh = tempfile::tempdir().unwrap();
        let fresh = fresh.path().join("bindings.ts");
        commands().export(specta_typescript::Typescript::default(), &fresh).unwrap();
        let fresh = std::fs::read_to_string(fresh).unwrap();
        if std::env::var_os("HIVEMIND_WRITE_BINDINGS").is_some() {
            std::fs::write(kept, &fresh).unwrap();
        }
        let kept = std::fs::read_to_string(kept).unwrap_or_default();
        assert!(kept == fresh, "ui/src/lib/bindings.ts does not match the commands: run `./dev bindings`");
    }
}
