//! A connection whose client has closed its sending side but may still be reading.
//!
//! Some clients close their sending side after a request (`nc`, `shutdown(SHUT_WR)`) and wait for the response. To the
//! server this looks like a client that has disconnected: end of input, which hyper treats as a disconnect. Only a
//! write tells the two apart, because the peer's system rejects data for a closed socket. So while a request is being
//! answered, end of input is hidden from hyper and the client is sent something: the response if it has begun,
//! otherwise `100 Continue`, which HTTP/1.1 allows before any response. The one disconnect that goes undetected is that
//! of an HTTP/1.0 client that closed its sending side and waits for a response sent in one piece.

use std::io::{Error, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::{Request, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_rustls::server::TlsStream;

/// Interval between probes of a client that has closed its sending side.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Time for the handler to read a request that has fully arrived; one not read by then was cut off.
const READING: Duration = Duration::from_secs(2);

/// Probe sent to a client. Clients keep waiting for the response after it.
const ARE_YOU_THERE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The exchange in progress on a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Exchange(Arc<Mutex<State>>);

/// Progress of the connection's request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// No request in progress.
    #[default]
    Idle,
    /// A request is in progress and has not fully arrived.
    Asking,
    /// A request is in progress and no more of it will arrive.
    Asked,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// Whether the client understands `100 Continue`.
    takes_continue: bool,
    /// Whether part of the response, or `100 Continue`, was sent.
    begun: bool,
    /// Whether the last write was incomplete.
    stuck: bool,
}

/// What to do at end of input.
#[derive(Debug, PartialEq, Eq)]
enum AtEnd {
    /// Close the connection.
    End,
    /// Wait for the response.
    Wait,
    /// Wait, and probe the client.
    Probe,
}

impl State {
    /// What to do about a client whose input ended this long ago.
    fn at_end(&self, silent: Duration) -> AtEnd {
        match self.phase {
            Phase::Asking if silent < READING => AtEnd::Wait,
            Phase::Idle | Phase::Asking => AtEnd::End,
            Phase::Asked if self.takes_continue && !self.begun && !self.stuck => AtEnd::Probe,
            Phase::Asked => AtEnd::Wait,
        }
    }

    /// No more of the request will arrive, or is needed.
    fn is_asked(&mut self) {
        if self.phase == Phase::Asking {
            self.phase = Phase::Asked;
        }
    }

    fn sent(&mut self, sent: &Poll<std::io::Result<usize>>, offered: usize) {
        match sent {
            Poll::Ready(Ok(bytes)) => {
                // Before the request is complete, only "100 Continue" is sent.
                self.begun |= *bytes > 0 && self.phase == Phase::Asked;
                self.stuck = *bytes < offered;
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.stuck = true,
        }
    }
}

impl Exchange {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks a request as begun once its header has arrived, and tracks its body.
    pub(super) fn begins(&self, request: Request<Incoming>) -> Request<Body> {
        {
            let mut state = self.lock();
            let takes_continue = request.version() == Version::HTTP_11;
            let phase = if request.body().is_end_stream() { Phase::Asked } else { Phase::Asking };
            *state = State { phase, takes_continue, begun: false, stuck: state.stuck };
        }
        request.map(|body| Body::new(Asking { body, exchange: self.clone() }))
    }

    /// Marks the request as answered.
    pub(super) fn ends(&self) {
        self.lock().phase = Phase::Idle;
    }
}

/// A request body that records when it has fully arrived.
struct Asking {
    body: Incoming,
    exchange: Exchange,
}

/// A dropped body is not read any further.
impl Drop for Asking {
    fn drop(&mut self) {
        self.exchange.lock().is_asked();
    }
}

impl HttpBody for Asking {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.exchange.lock().is_asked();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection that can say why it broke.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// The error that the system has noted since.
    fn take_error(&self) -> std::io::Result<Option<Error>>;
}

impl Stream for TcpStream {
    fn take_error(&self) -> std::io::Result<Option<Error>> {
        Self::take_error(self)
    }
}

impl Stream for TlsStream<TcpStream> {
    fn take_error(&self) -> std::io::Result<Option<Error>> {
        self.get_ref().0.take_error()
    }
}

/// The connection as hyper sees it.
pub(super) struct Listening<S> {
    stream: S,
    exchange: Exchange,
    /// Set once the client's input has ended.
    half_closed: Option<HalfClosed>,
}

/// A client whose input has ended.
struct HalfClosed {
    since: Instant,
    look: Interval,
}

impl<S: Stream> Listening<S> {
    pub(super) fn new(stream: S, exchange: Exchange) -> Self {
        Self { stream, exchange, half_closed: None }
    }

    /// Probes the client; an error means that it has disconnected.
    fn probe(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        match Pin::new(&mut self.stream).poll_write(cx, ARE_YOU_THERE) {
            Poll::Ready(Ok(sent)) if sent == ARE_YOU_THERE.len() => self.exchange.lock().begun = true,
            // A partially sent probe would corrupt the response.
            Poll::Ready(Ok(_)) => return Err(Error::from(ErrorKind::BrokenPipe)),
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => {}
        }
        Ok(())
    }
}

impl<S: Stream> AsyncRead for Listening<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        if this.half_closed.is_none() {
            let before = into.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, into))?;
            if into.filled().len() > before || into.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let mut look = interval(POLL_INTERVAL);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            this.half_closed = Some(HalfClosed { since: Instant::now(), look });
        }
        loop {
            let silent = this.half_closed.as_ref().map_or(Duration::ZERO, |client| client.since.elapsed());
            let at_end = this.exchange.lock().at_end(silent);
            match at_end {
                AtEnd::End => return Poll::Ready(Ok(())),
                AtEnd::Wait => {}
                AtEnd::Probe => this.probe(cx)?,
            }
            if let Some(error) = this.stream.take_error()? {
                return Poll::Ready(Err(error));
            }
            if let Some(HalfClosed { look, .. }) = &mut this.half_closed {
                ready!(look.poll_tick(cx));
            }
        }
    }
}

impl<S: Stream> AsyncWrite for Listening<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.exchange.lock().sent(&sent, bytes.len());
        sent
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.exchange.lock().sent(&sent, parts.iter().map(|part| part.len()).sum());
        sent
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_says_no_more_is_waited_for_only_while_it_is_answered() {
        let at_end = |phase, takes_continue, begun, stuck| {
            State { phase, takes_continue, begun, stuck }.at_end(Duration::from_millis(300))
        };
        assert_eq!(at_end(Phase::Idle, true, true, false), AtEnd::End, "it asked nothing more");
        assert_eq!(
            at_end(Phase::Asking, true, false, false),
            AtEnd::Wait,
            "it may have come whole, and not be read yet"
        );
        let broken_off = State { phase: Phase::Asking, ..State::default() };
        assert_eq!(broken_off.at_end(READING), AtEnd::End);
        assert_eq!(at_end(Phase::Asked, true, false, false), AtEnd::Probe);
        assert_eq!(at_end(Phase::Asked, true, true, false), AtEnd::Wait, "the answer itself shows whether it is there");
        assert_eq!(at_end(Phase::Asked, true, false, true), AtEnd::Wait, "the answer before has not all gone out");
        assert_eq!(at_end(Phase::Asked, false, false, false), AtEnd::Wait, "HTTP/1.0 has no such words");
    }
}
