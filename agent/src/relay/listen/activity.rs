//! What a connection is doing, and until when it may.
//!
//! Requests and answers say what begins and ends; the connection's task asks for
//! the next deadline and keeps one timer for all of them. Nothing here locks, and
//! a request that comes whole touches no timer.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::body::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::connection::Outcome;
use crate::config::Limits;

/// How long a client may take to go that was told to, or of whose request a part
/// was not read: closing at once would reset the connection, and the answer with
/// it.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// A connection that had nothing to do for so long is put to sleep. Making it anew
/// takes less than a thousandth of that; and where thousands come at once, the memory of
/// those that are awake is not given back to the system.
pub(super) const REST: Duration = Duration::from_millis(200);

/// What it means that a deadline has passed.
pub(super) enum Expired {
    /// There is nothing to do: the connection is put to sleep.
    Rest,
    /// There was no request for so long: the connection is closed.
    Idle,
    /// It is broken off.
    Broken(Outcome),
}

/// What is never taken for a moment of a connection's.
const NEVER: u64 = u64::MAX;

/// What a connection is doing.
#[derive(Debug)]
pub(super) struct Activity {
    /// When its handshake ended. Moments are milliseconds from then.
    start: Instant,
    is_http1: bool,
    /// Requests under way.
    requests: AtomicU32,
    /// Those of them that are answered, of HTTP/2: their answers wait until the client
    /// makes room, for which nothing has to be written.
    answers: AtomicU32,
    /// When there was the last one.
    answered: AtomicU64,
    /// Whether there was any.
    asked: AtomicBool,
    /// Whether the head of a request has begun, and not ended. HTTP/2 interleaves
    /// heads with all else: there, only the first one.
    head: AtomicBool,
    /// When this state began.
    since: AtomicU64,
    /// Since when the client takes nothing of what we send.
    blocked: AtomicU64,
    /// Whether a part of a request was left unread.
    unread: AtomicBool,
    /// Since when we wait for the client to close.
    closing: AtomicU64,
    /// Whether the client was told that nothing will come any more.
    shut: AtomicBool,
    /// Whether the client was told to go.
    ending: AtomicBool,
}

impl Activity {
    /// A connection whose handshake ends now.
    pub(super) fn new(is_http1: bool) -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            is_http1,
            requests: AtomicU32::new(0),
            answers: AtomicU32::new(0),
            answered: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            head: AtomicBool::new(true),
            since: AtomicU64::new(0),
            blocked: AtomicU64::new(NEVER),
            unread: AtomicBool::new(false),
            closing: AtomicU64::new(NEVER),
            shut: AtomicBool::new(false),
            ending: AtomicBool::new(false),
        })
    }

    /// The head of a request has been read.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        self.asked.store(true, Relaxed);
        self.head.store(false, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        UnderWay { activity: Arc::clone(self), is_answered: false }
    }

    /// Whether there was a request.
    pub(super) fn was_asked(&self) -> bool {
        self.asked.load(Relaxed)
    }

    /// Whether a request is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.requests.load(Relaxed) > 0
    }

    /// Whether the client was told that nothing will come any more.
    pub(super) fn was_shut(&self) -> bool {
        self.shut.load(Relaxed)
    }

    /// A part of a request's body will not be read.
    pub(super) fn left_unread(&self) {
        self.unread.store(true, Relaxed);
    }

    /// The client is told to go.
    pub(super) fn end(&self) {
        self.since.store(self.now(), Relaxed);
        self.ending.store(true, Relaxed);
    }

    /// When to look again, and what has happened if nothing else has by then. A
    /// connection that is `restless` can be put to sleep.
    pub(super) fn deadline(
        &self,
        limits: &Limits,
        is_restless: bool,
    ) -> (Instant, Option<Expired>) {
        let (deadline, expired) = self.deadline_of_request(limits);
        let blocked = self.blocked.load(Relaxed);
        if is_restless
            && blocked == NEVER
            && matches!(expired, Some(Expired::Idle))
            && !self.unread.load(Relaxed)
        {
            let rest = self.after(self.since.load(Relaxed), REST);
            return if rest < deadline { (rest, Some(Expired::Rest)) } else { (deadline, expired) };
        }
        if blocked != NEVER {
            let taken_by = self.after(blocked, limits.body_timeout);
            // Who was told to go may have answers on the way.
            if taken_by < deadline || self.ending.load(Relaxed) {
                return (taken_by, Some(Expired::Broken(Outcome::NotReading)));
            }
        }
        (deadline, expired)
    }

    fn deadline_of_request(&self, limits: &Limits) -> (Instant, Option<Expired>) {
        let ended = Expired::Broken(Outcome::of_served(self.was_asked()));
        let closing = self.closing.load(Relaxed);
        if closing != NEVER {
            return (self.after(closing, LINGER), Some(ended));
        }
        let requests = self.requests.load(Relaxed);
        if requests > 0 && self.answers.load(Relaxed) == requests {
            let taken_by = self.after(self.answered.load(Relaxed), limits.body_timeout);
            return (taken_by, Some(Expired::Broken(Outcome::NotReading)));
        }
        if requests > 0 {
            // Nothing to wait for; but an end of the last request is not announced.
            return (self.after(self.now(), limits.idle_timeout), None);
        }
        let since = self.since.load(Relaxed);
        let (limit, expired) = if self.ending.load(Relaxed) {
            (LINGER, ended)
        } else if self.head.load(Relaxed) {
            (limits.header_timeout, Expired::Broken(Outcome::HeaderTimeout))
        } else {
            (limits.idle_timeout, Expired::Idle)
        };
        (self.after(since, limit), Some(expired))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }

    fn after(&self, moment: u64, time: Duration) -> Instant {
        let moment = Duration::from_millis(moment).saturating_add(time);
        self.start.checked_add(moment).unwrap_or(self.start)
    }

    /// Bytes of a request have come.
    fn read(&self) {
        if self.is_http1 && !self.is_busy() && !self.head.load(Relaxed) {
            self.since.store(self.now(), Relaxed);
            self.head.store(true, Relaxed);
        }
    }

    /// The client took bytes of an answer, or could not. An answer is often handed
    /// over long before the client has all of it.
    fn wrote(&self, result: &Poll<io::Result<usize>>) {
        if self.is_http1 && matches!(result, Poll::Ready(Ok(1..))) && !self.is_busy() {
            self.since.store(self.now(), Relaxed);
        }
        self.flushed(result);
    }

    fn flushed<T>(&self, result: &Poll<io::Result<T>>) {
        let is_blocked = self.blocked.load(Relaxed) != NEVER;
        if result.is_ready() == is_blocked {
            let since = if is_blocked { NEVER } else { self.now() };
            self.blocked.store(since, Relaxed);
        }
    }
}

/// A request is under way until this is dropped.
#[derive(Debug)]
pub(super) struct UnderWay {
    activity: Arc<Activity>,
    is_answered: bool,
}

impl UnderWay {
    /// The answer is there, and the client may take it.
    pub(super) fn answer(&mut self) {
        let activity = &self.activity;
        // HTTP/1 waits for nothing but the connection itself.
        if !activity.is_http1 && !self.is_answered {
            self.is_answered = true;
            activity.answered.store(activity.now(), Relaxed);
            activity.answers.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let activity = &self.activity;
        if self.is_answered {
            activity.answers.fetch_sub(1, Relaxed);
        }
        activity.since.store(activity.now(), Relaxed);
        activity.requests.fetch_sub(1, Relaxed);
    }
}

/// A stream that tells what happens on it.
pub(super) struct Watched<S> {
    stream: S,
    /// What comes before all that the stream still has.
    unread: Bytes,
    activity: Arc<Activity>,
    is_at_end: bool,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, unread: Bytes, activity: Arc<Activity>) -> Self {
        Self { stream, unread, activity, is_at_end: false }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let length = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread.split_to(length));
            self.activity.read();
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        if buffer.filled().len() > before {
            self.activity.read();
        } else {
            self.is_at_end = true;
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.activity.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.activity.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.activity.flushed(&result);
        result
    }

    /// Says that no more will come. Where a part of a request was not read, waits
    /// for the client to close as well: until then it may not have seen the answer.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let activity = &this.activity;
        activity.shut.store(true, Relaxed);
        if activity.closing.load(Relaxed) == NEVER {
            let result = Pin::new(&mut this.stream).poll_shutdown(cx);
            activity.flushed(&result);
            ready!(result)?;
            let is_unread = activity.unread.load(Relaxed) || activity.head.load(Relaxed);
            if this.is_at_end || !activity.is_http1 || !is_unread {
                return Poll::Ready(Ok(()));
            }
            activity.closing.store(activity.now(), Relaxed);
        }
        let mut scrap = [0; 4096];
        loop {
            let mut scrap = ReadBuf::new(&mut scrap);
            let result = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut scrap));
            if result.is_err() || scrap.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
