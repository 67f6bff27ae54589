//! A connection whose client has closed its direction, and may still listen.
//!
//! Some clients close their direction when they have asked (`nc`, `shutdown(SHUT_WR)`) and wait for the answer. Seen from here
//! that is the end of input, as it is when a client has gone, and hyper takes both for gone. What tells them apart is what
//! happens to bytes that are sent to them: the system of a client that has gone refuses these, and says so. So while a request
//! is being answered, the end of input is kept from hyper, and the client is sent something: the answer, where that has begun, or
//! else `100 Continue`, which may come before any answer in HTTP/1.1. Only a client that speaks HTTP/1.0, has closed its
//! direction and gets its answer in one piece is not missed before that is sent.

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

/// Between two looks whether a client that says nothing more has gone.
const LOOK: Duration = Duration::from_millis(200);

/// A request that has come whole is read by whoever answers it within this time; one that is not by then has broken off.
const READING: Duration = Duration::from_secs(2);

/// What a client is sent to see whether it is there. It waits for the answer after this as before.
const ARE_YOU_THERE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a connection is in the middle of.
#[derive(Debug, Clone, Default)]
pub(super) struct Exchange(Arc<Mutex<State>>);

/// How far the request of a connection is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// No request is being answered.
    #[default]
    Idle,
    /// One is, and has not come to its end.
    Asking,
    /// One is, of which no more comes.
    Asked,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// The client takes `100 Continue`.
    takes_continue: bool,
    /// Something of the answer, or `100 Continue`, was sent.
    begun: bool,
    /// What was sent last has not all gone out.
    stuck: bool,
}

/// What to do when a client says nothing more.
#[derive(Debug, PartialEq, Eq)]
enum AtEnd {
    /// It is the end of the connection.
    End,
    /// Wait for the answer.
    Wait,
    /// The same, and see whether the client is there.
    Probe,
}

impl State {
    /// What to do about a client that has said nothing more for so long.
    fn at_end(&self, silent: Duration) -> AtEnd {
        match self.phase {
            Phase::Asking if silent < READING => AtEnd::Wait,
            Phase::Idle | Phase::Asking => AtEnd::End,
            Phase::Asked if self.takes_continue && !self.begun && !self.stuck => AtEnd::Probe,
            Phase::Asked => AtEnd::Wait,
        }
    }

    /// No more of the request comes, or is wanted.
    fn is_asked(&mut self) {
        if self.phase == Phase::Asking {
            self.phase = Phase::Asked;
        }
    }

    fn sent(&mut self, sent: &Poll<std::io::Result<usize>>, offered: usize) {
        match sent {
            Poll::Ready(Ok(bytes)) => {
                // Before the request is whole, only "100 Continue" is sent.
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

    /// A request has come, with its header; what it says more is followed.
    pub(super) fn begins(&self, request: Request<Incoming>) -> Request<Body> {
        {
            let mut state = self.lock();
            let takes_continue = request.version() == Version::HTTP_11;
            let phase = if request.body().is_end_stream() { Phase::Asked } else { Phase::Asking };
            *state = State { phase, takes_continue, begun: false, stuck: state.stuck };
        }
        request.map(|body| Body::new(Asking { body, exchange: self.clone() }))
    }

    /// It has been answered.
    pub(super) fn ends(&self) {
        self.lock().phase = Phase::Idle;
    }
}

/// The body of a request, which tells when it has come to its end.
struct Asking {
    body: Incoming,
    exchange: Exchange,
}

/// Nobody reads the rest of it.
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

/// The connection, as hyper sees it.
pub(super) struct Listening {
    stream: TcpStream,
    exchange: Exchange,
    /// Since the client has nothing more to say.
    silent: Option<Silence>,
}

/// A client that has nothing more to say.
struct Silence {
    since: Instant,
    look: Interval,
}

impl Listening {
    pub(super) fn new(stream: TcpStream, exchange: Exchange) -> Self {
        Self { stream, exchange, silent: None }
    }

    /// Sees whether the client is there; an error says that it has gone.
    fn probe(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        match Pin::new(&mut self.stream).poll_write(cx, ARE_YOU_THERE) {
            Poll::Ready(Ok(sent)) if sent == ARE_YOU_THERE.len() => self.exchange.lock().begun = true,
            // A part of it would spoil the answer.
            Poll::Ready(Ok(_)) => return Err(Error::from(ErrorKind::BrokenPipe)),
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => {}
        }
        Ok(())
    }
}

impl AsyncRead for Listening {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        if this.silent.is_none() {
            let before = into.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, into))?;
            if into.filled().len() > before || into.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let mut look = interval(LOOK);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            this.silent = Some(Silence { since: Instant::now(), look });
        }
        loop {
            let silent = this.silent.as_ref().map_or(Duration::ZERO, |silence| silence.since.elapsed());
            let at_end = this.exchange.lock().at_end(silent);
            match at_end {
                AtEnd::End => return Poll::Ready(Ok(())),
                AtEnd::Wait => {}
                AtEnd::Probe => this.probe(cx)?,
            }
            if let Some(error) = this.stream.take_error()? {
                return Poll::Ready(Err(error));
            }
            if let Some(Silence { look, .. }) = &mut this.silent {
                ready!(look.poll_tick(cx));
            }
        }
    }
}

impl AsyncWrite for Listening {
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
