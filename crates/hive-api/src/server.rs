//! The listener: a bounded number of connections, none of which stays idle for long.
//!
//! Any program on this machine can connect, and each connection uses a file descriptor. So a connection is closed if it
//! sends no complete request header within [`Limits::header`], or if it is kept alive for that long without another
//! request. A client that closes its sending side after a request still gets its response ([`listening`]). When all
//! slots are taken, the connection that has been idle longest is closed. One that is being answered is never closed for
//! a new one; if all are, new connections wait in the system's accept queue.

mod listening;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::paths;
use listening::{Exchange, Listening, Stream};

/// Connection limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Maximum number of connections. A browser opens six, a client library as many as it has concurrent requests.
    pub(crate) connections: usize,
    /// Time to receive a request header, and to keep an idle connection open between requests.
    pub(crate) header: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 64, header: Duration::from_secs(10) }
    }
}

/// Pause before accepting again after the system ran out of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Time for responses in progress to finish when the server stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// Time for a closing connection to send its buffered data.
const LEAVING: Duration = Duration::from_millis(500);

/// Serves, over TLS if there is an acceptor, until `stop` fires or its sender is dropped. Then it accepts no more connections, closes idle ones, and gives
/// the others [`FAREWELL`]. Dropping the future closes all connections at once.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    app: Router,
    limits: Limits,
    mut stop: oneshot::Receiver<()>,
) {
    let places = Arc::new(Places::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!("the API could not take a connection: {error}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
            _ = &mut stop => break,
        };
        let (place, leave) = tokio::select! {
            taken = places.take() => taken,
            _ = &mut stop => break,
        };
        let (app, tls) = (app.clone(), tls.clone());
        connections.spawn(async move {
            let Some(tls) = tls else { return attend(stream, app, limits.header, place, leave).await };
            // A client that does not greet in time is as idle as one that sends no header.
            if let Ok(Ok(stream)) = tokio::time::timeout(limits.header, tls.accept(stream)).await {
                attend(stream, app, limits.header, place, leave).await;
            }
        });
    }
    drop(listener);
    let ended = async {
        loop {
            let changed = places.changed.notified();
            // Also closes connections whose response has finished since.
            places.lock().close_idle();
            tokio::select! {
                ended = connections.join_next() => if ended.is_none() { return },
                () = changed => {}
            }
        }
    };
    let _ = tokio::time::timeout(FAREWELL, ended).await;
}

/// Serves one connection until it ends or must make room.
async fn attend<S: Stream + Send + 'static>(
    stream: S,
    app: Router,
    header: Duration,
    place: Place,
    leave: oneshot::Receiver<()>,
) {
    let app = TowerToHyperService::new(app);
    let exchange = Exchange::default();
    let stream = Listening::new(stream, exchange.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        *request.uri_mut() = paths::tidied(request.uri());
        let (busy, answer) = (place.busy(exchange.clone()), app.call(exchange.begins(request)));
        async move {
            let response = answer.await?;
            Ok::<_, Infallible>(response.map(|body| Body::new(Answering { body, _busy: busy })))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // A client that disconnects is not an error.
        _ = connection.as_mut() => {}
        _ = leave => {
            // The end of its last response may still be in flight.
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(LEAVING, connection).await;
        }
    }
}

/// A response body. While it exists, the connection is not idle.
struct Answering {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The connection slots.
struct Places {
    most: usize,
    taken: Mutex<Taken>,
    /// Notified when a slot is freed or its connection becomes idle.
    changed: Notify,
}

#[derive(Default)]
struct Taken {
    last: u64,
    seats: Vec<Seat>,
}

struct Seat {
    number: u64,
    answering: usize,
    idle_since: Instant,
    leave: oneshot::Sender<()>,
}

impl Places {
    fn new(most: usize) -> Self {
        Self { most, taken: Mutex::default(), changed: Notify::new() }
    }

    /// Takes a slot, with the signal to leave it. Waits while every connection is being answered.
    async fn take(self: &Arc<Self>) -> (Place, oneshot::Receiver<()>) {
        loop {
            let changed = self.changed.notified();
            if let Some((number, leave)) = self.lock().take(self.most, Instant::now()) {
                return (Place { places: self.clone(), number }, leave);
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn take(&mut self, most: usize, now: Instant) -> Option<(u64, oneshot::Receiver<()>)> {
        if self.seats.len() >= most {
            let idle = self.seats.iter().enumerate().filter(|(_, seat)| seat.answering == 0);
            let (longest, _) = idle.min_by_key(|(_, seat)| seat.idle_since)?;
            // The connection may have ended on its own.
            let _ = self.seats.swap_remove(longest).leave.send(());
        }
        let (sender, leave) = oneshot::channel();
        self.last += 1;
        self.seats.push(Seat { number: self.last, answering: 0, idle_since: now, leave: sender });
        Some((self.last, leave))
    }

    /// Closes every connection that is not being answered.
    fn close_idle(&mut self) {
        let (answering, idle) = std::mem::take(&mut self.seats).into_iter().partition(|seat| seat.answering > 0);
        self.seats = answering;
        let idle: Vec<Seat> = idle;
        for seat in idle {
            // The connection may have ended on its own.
            let _ = seat.leave.send(());
        }
    }

    fn answering(&mut self, number: u64, change: impl FnOnce(&mut usize)) {
        if let Some(seat) = self.seats.iter_mut().find(|seat| seat.number == number) {
            change(&mut seat.answering);
            seat.idle_since = Instant::now();
        }
    }
}

/// A connection's slot; dropping it frees the slot.
struct Place {
    places: Arc<Places>,
    number: u64,
}

impl Place {
    fn busy(&self, exchange: Exchange) -> Busy {
        self.places.lock().answering(self.number, |count| *count += 1);
        Busy { places: self.places.clone(), number: self.number, exchange }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().seats.retain(|seat| seat.number != self.number);
        self.places.changed.notify_one();
    }
}

/// A request in progress.
struct Busy {
    places: Arc<Places>,
    number: u64,
    exchange: Exchange,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.exchange.ends();
        self.places.lock().answering(self.number, |count| *count -= 1);
        self.places.changed.notify_one();
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the test runtime drops its tasks")]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    /// Upper bound that ends a hanging test; nothing here takes this long.
    const TEST_TIMEOUT: Duration = Duration::from_mins(1);

    type Server = (oneshot::Sender<()>, tokio::task::JoinHandle<()>);

    async fn serving(limits: Limits) -> (SocketAddr, Server) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let slow = get(|| async { std::future::pending::<()>().await });
        let app = Router::new().route("/", get(|| async { "served" })).route("/slow", slow);
        let (stop, stopped) = oneshot::channel();
        (address, (stop, tokio::spawn(serve(listener, None, app, limits, stopped))))
    }

    /// Sends a request over an open connection; returns what arrives until the response or the connection ends.
    async fn ask(stream: &mut TcpStream, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        let mut piece = [0; 256];
        while !text.ends_with(b"served") {
            match tokio::time::timeout(TEST_TIMEOUT, stream.read(&mut piece)).await.expect("it hangs") {
                Ok(0) | Err(_) => break,
                Ok(read) => text.extend(&piece[..read]),
            }
        }
        String::from_utf8(text).unwrap()
    }

    /// Waits until the server closes the connection; returns the bytes it sent before.
    async fn closed(stream: &mut TcpStream) -> Vec<u8> {
        let mut said = Vec::new();
        // A connection that is reset because of unread data counts as closed too.
        let _ = tokio::time::timeout(TEST_TIMEOUT, stream.read_to_end(&mut said)).await.expect("it is not closed");
        said
    }

    #[tokio::test]
    async fn idle_connections_end_and_an_honest_client_is_served_meanwhile() {
        let (address, (_stop, server)) = serving(Limits { header: Duration::from_secs(2), ..Limits::default() }).await;
        let mut idle = Vec::new();
        for at in 0..231 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // Half of them send nothing, half an incomplete header.
            if at % 2 == 0 {
                stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx: ").await.unwrap();
            }
            idle.push(stream);
        }
        for _ in 0..10 {
            let mut honest = TcpStream::connect(address).await.unwrap();
            assert!(ask(&mut honest, "/").await.starts_with("HTTP/1.1 200 OK"));
        }
        for mut stream in idle {
            closed(&mut stream).await;
        }
        server.abort();
    }

    #[tokio::test]
    async fn a_connection_that_is_kept_alive_and_asks_nothing_more_is_closed() {
        let (address, (_stop, server)) =
            serving(Limits { header: Duration::from_millis(500), ..Limits::default() }).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut stream, "/").await.ends_with("served"));
        assert!(ask(&mut stream, "/").await.ends_with("served"), "it is kept alive for a while");
        closed(&mut stream).await;
        server.abort();
    }

    #[tokio::test]
    async fn the_longest_idle_makes_room_and_one_that_is_being_answered_never_does() {
        let (address, (_stop, server)) = serving(Limits { connections: 2, header: TEST_TIMEOUT }).await;
        let mut answered = TcpStream::connect(address).await.unwrap();
        answered.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut idle = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut idle, "/").await.ends_with("served"));
        let mut newest = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut newest, "/").await.ends_with("served"));
        assert!(closed(&mut idle).await.is_empty());
        let waiting = tokio::time::timeout(Duration::from_millis(50), answered.read_u8()).await;
        assert!(waiting.is_err(), "it is still being answered: {waiting:?}");
        server.abort();
        assert!(closed(&mut answered).await.is_empty(), "connections end with the server");
    }

    #[tokio::test]
    async fn a_server_that_stops_closes_the_idle_and_lets_answers_end() {
        let (address, (stop, server)) = serving(Limits { header: TEST_TIMEOUT, ..Limits::default() }).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut idle, "/").await.ends_with("served"));
        let mut answered = TcpStream::connect(address).await.unwrap();
        answered.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        // Answering a later request shows that the first one has reached the server.
        let mut later = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut later, "/").await.ends_with("served"));
        let stopped = Instant::now();
        stop.send(()).unwrap();
        closed(&mut idle).await;
        let idle_after = stopped.elapsed();
        closed(&mut answered).await;
        assert!(stopped.elapsed() >= FAREWELL && idle_after < FAREWELL, "{idle_after:?}, {:?}", stopped.elapsed());
        server.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    /// Notifies when it is dropped.
    struct Gone(Arc<Notify>);

    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }

    /// A slow server: `/in-one` sends nothing before the end, `/stream` one word at once and then more. Returns what
    /// notifies when an answer is cancelled, and what lets answers continue.
    async fn slow() -> (SocketAddr, Arc<Notify>, Arc<Notify>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (gone, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (guard, goes) = (gone.clone(), go_on.clone());
        let in_one = move |_: Bytes| async move {
            let gone = Gone(guard);
            goes.notified().await;
            std::mem::forget(gone);
            "served"
        };
        let guard = gone.clone();
        let stream = move || async move {
            let gone = Arc::new(Gone(guard));
            Body::from_stream(futures_util::stream::unfold(0, move |sent| {
                let gone = gone.clone();
                async move {
                    let _gone = gone;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    let word = if sent == 20 { "served" } else { "word " };
                    (sent <= 20).then(|| (Ok::<_, Infallible>(word), sent + 1))
                }
            }))
        };
        let in_one = axum::routing::post(in_one);
        // The handler does not read the request body right away.
        let late = axum::middleware::from_fn(|request: axum::extract::Request, next: axum::middleware::Next| async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            next.run(request).await
        });
        let app = Router::new().route("/in-one", in_one).layer(late).route("/stream", get(stream));
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(async move {
            let _stop = stop;
            serve(listener, None, app, Limits { header: TEST_TIMEOUT, ..Limits::default() }, stopped).await;
        });
        (address, gone, go_on)
    }

    async fn asked(address: SocketAddr, path: &str, version: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let method = if path == "/stream" { "GET" } else { "POST" };
        let request = format!("{method} {path} HTTP/{version}\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    #[tokio::test]
    async fn a_client_that_closes_its_direction_after_asking_gets_its_answer() {
        for (path, version) in [("/in-one", "1.1"), ("/in-one", "1.0"), ("/stream", "1.1")] {
            let (address, _gone, go_on) = slow().await;
            let mut stream = asked(address, path, version).await;
            stream.shutdown().await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
            go_on.notify_one();
            let said = String::from_utf8(closed(&mut stream).await).unwrap();
            assert!(said.contains(" 200 OK\r\n") && said.contains("served"), "{path} {version}: {said}");
            assert_eq!(
                said.matches("100 Continue").count(),
                usize::from((path, version) == ("/in-one", "1.1")),
                "{said}"
            );
        }
    }

    #[tokio::test]
    async fn a_client_that_has_gone_is_missed_at_once() {
        for path in ["/in-one", "/stream"] {
            let (address, gone, _go_on) = slow().await;
            let stream = asked(address, path, "1.1").await;
            // Let the request reach the handler first.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let left = Instant::now();
            drop(stream);
            tokio::time::timeout(TEST_TIMEOUT, gone.notified()).await.expect("nobody misses it");
            assert!(left.elapsed() < Duration::from_millis(900), "{path}: {:?}", left.elapsed());
        }
    }

    #[tokio::test]
    async fn a_request_that_breaks_off_is_answered_by_nobody() {
        let (address, _gone, _go_on) = slow().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"POST /in-one HTTP/1.1\r\nhost: x\r\ncontent-length: 200\r\n\r\n{").await.unwrap();
        stream.shutdown().await.unwrap();
        let said = String::from_utf8(closed(&mut stream).await).unwrap();
        assert!(!said.contains("200 OK"), "{said}");
    }

    #[test]
    fn nobody_makes_room_while_all_are_being_answered() {
        let (mut taken, now) = (Taken::default(), Instant::now());
        let (one, _leave_one) = taken.take(2, now).unwrap();
        let (two, mut leave_two) = taken.take(2, now).unwrap();
        taken.answering(one, |count| *count += 1);
        taken.answering(two, |count| *count += 1);
        assert!(taken.take(2, now).is_none());
        taken.answering(two, |count| *count -= 1);
        assert!(taken.take(2, now).is_some());
        assert_eq!(leave_two.try_recv(), Ok(()));
    }
}
