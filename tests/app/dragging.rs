//! A hand that drags files onto the window: a source of the X window system's drag and drop (XDND, version 5), as a file
//! manager is one. The app, its toolkit and its web view get what they would get from any other program.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use x11rb::connection::Connection;
use x11rb::protocol::Event;
use x11rb::protocol::xproto::{
    AtomEnum, ClientMessageEvent, ConnectionExt, CreateWindowAux, EventMask, PropMode, SELECTION_NOTIFY_EVENT,
    SelectionNotifyEvent, SelectionRequestEvent, Window, WindowClass,
};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;
use x11rb::{COPY_DEPTH_FROM_PARENT, COPY_FROM_PARENT, CURRENT_TIME, NONE};

/// The version of the protocol.
const VERSION: u32 = 5;

/// How long the app may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

x11rb::atom_manager! {
    Names: NamesCookie {
        XdndAware,
        XdndEnter,
        XdndPosition,
        XdndStatus,
        XdndDrop,
        XdndFinished,
        XdndSelection,
        XdndActionCopy,
        uris: b"text/uri-list",
    }
}

/// Files that are being dragged.
pub(crate) struct Drag {
    connection: RustConnection,
    names: Names,
    source: Window,
    target: Window,
    uris: String,
}

impl Drag {
    /// Takes files, and moves them over the middle of the widest window on this display until it would take them.
    pub(crate) fn over(display: &str, files: &[&Path]) -> Self {
        let (connection, screen) = x11rb::connect(Some(display)).unwrap();
        let names = Names::new(&connection).unwrap().reply().unwrap();
        let (root, visual) = (connection.setup().roots[screen].root, connection.setup().roots[screen].root_visual);
        let source = connection.generate_id().unwrap();
        let looks = CreateWindowAux::new().override_redirect(1);
        let (depth, class) = (COPY_DEPTH_FROM_PARENT, WindowClass::COPY_FROM_PARENT);
        assert_eq!(COPY_FROM_PARENT, 0);
        connection.create_window(depth, source, root, 0, 0, 1, 1, 0, class, visual, &looks).unwrap();
        connection.set_selection_owner(source, names.XdndSelection, CURRENT_TIME).unwrap();
        let target = widest(&connection, root, names.XdndAware).expect("a window takes what is dragged");
        let mut drag = Self { connection, names, source, target, uris: files.iter().map(|file| uri(file)).collect() };
        drag.tell(drag.names.XdndEnter, [source, VERSION << 24, drag.names.uris, NONE, NONE]);
        let until = Instant::now() + PATIENCE;
        let place = drag.place(root);
        loop {
            let position = [source, 0, place, CURRENT_TIME, drag.names.XdndActionCopy];
            drag.tell(drag.names.XdndPosition, position);
            if drag.answer(drag.names.XdndStatus).is_some_and(|[_, taken, ..]| taken & 1 == 1) {
                return drag;
            }
            assert!(Instant::now() < until, "the window does not take what is dragged over it");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Lets go.
    pub(crate) fn drop_here(mut self) {
        self.tell(self.names.XdndDrop, [self.source, 0, CURRENT_TIME, 0, 0]);
        assert!(self.answer(self.names.XdndFinished).is_some(), "what was dropped is not taken");
    }

    /// The middle of the window, as the protocol writes a place on the screen.
    fn place(&self, root: Window) -> u32 {
        let size = self.connection.get_geometry(self.target).unwrap().reply().unwrap();
        let corner = self.connection.translate_coordinates(self.target, root, 0, 0).unwrap().reply().unwrap();
        let [x, y] = [(corner.dst_x, size.width), (corner.dst_y, size.height)]
            .map(|(at, length)| u32::try_from(i32::from(at) + i32::from(length) / 2).unwrap());
        x << 16 | y
    }

    fn tell(&self, kind: u32, data: [u32; 5]) {
        let message = ClientMessageEvent::new(32, self.target, kind, data);
        self.connection.send_event(false, self.target, EventMask::NO_EVENT, message).unwrap();
        self.connection.flush().unwrap();
    }

    /// The next message of a kind, within a time. Whoever wants to know what is dragged is told meanwhile.
    fn answer(&mut self, kind: u32) -> Option<[u32; 5]> {
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            match self.connection.poll_for_event().unwrap() {
                Some(Event::SelectionRequest(request)) => self.give(&request),
                Some(Event::ClientMessage(message)) if message.type_ == kind => return Some(message.data.as_data32()),
                Some(_) => {}
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        None
    }

    fn give(&self, request: &SelectionRequestEvent) {
        let property = if request.property == NONE { request.target } else { request.property };
        let is_ours = request.target == self.names.uris;
        if is_ours {
            let kind = u8::from(AtomEnum::NONE);
            assert_eq!(kind, 0);
            let (mode, to) = (PropMode::REPLACE, request.requestor);
            self.connection.change_property8(mode, to, property, self.names.uris, self.uris.as_bytes()).unwrap();
        }
        let told = SelectionNotifyEvent {
            response_type: SELECTION_NOTIFY_EVENT,
            sequence: 0,
            time: request.time,
            requestor: request.requestor,
            selection: request.selection,
            target: request.target,
            property: if is_ours { property } else { NONE },
        };
        self.connection.send_event(false, request.requestor, EventMask::NO_EVENT, told).unwrap();
        self.connection.flush().unwrap();
    }
}

/// The widest visible window that takes what is dragged.
fn widest(connection: &RustConnection, root: Window, aware: u32) -> Option<Window> {
    use x11rb::protocol::xproto::MapState;
    let windows = connection.query_tree(root).unwrap().reply().unwrap().children;
    let takes = |window: &Window| {
        let property = connection.get_property(false, *window, aware, AtomEnum::ANY, 0, 1).ok()?.reply().ok()?;
        let state = connection.get_window_attributes(*window).ok()?.reply().ok()?.map_state;
        let width = connection.get_geometry(*window).ok()?.reply().ok()?.width;
        (property.type_ != NONE && state == MapState::VIEWABLE).then_some(width)
    };
    windows.into_iter().filter_map(|window| Some((takes(&window)?, window))).max().map(|(_, window)| window)
}

/// A line of a list of URIs: every byte of the path but plain letters is escaped.
fn uri(file: &Path) -> String {
    let path: PathBuf = std::path::absolute(file).unwrap();
    let escaped = path.as_os_str().as_encoded_bytes().iter().map(|byte| match byte {
        b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(*byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    format!("file://{}\r\n", escaped.collect::<String>())
}
