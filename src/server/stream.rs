//! A connection that is neither held for ever nor closed too early.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::{
    peers::{Peer, Peers},
    refusal,
};

/// How long a connection that is being closed goes on throwing away what the peer still sends.
pub(super) const LINGER: Duration = Duration::from_secs(3);
/// How much is thrown away at most, in bytes.
const MAX_DISCARDED_BYTES: usize = 16 * 1024 * 1024;

/// A connection which says how its peer gets on, and reads what the peer is still sending before it closes.
///
/// An answer can be ready before the request has arrived: a body that is too large is refused while it is being sent.
/// Whoever closes with bytes unread makes the system reset the connection. The peer then fails to send the rest, and
/// many a client looks no further: it reports a broken connection instead of the 413.
#[derive(Debug)]
pub(super) struct Stream {
    inner: TcpStream,
    peer: Arc<Peer>,
    peers: Arc<Peers>,
    /// Runs while the connection is being closed.
    lingering: Option<Pin<Box<Sleep>>>,
    discarded_bytes: usize,
    has_begun: bool,
    /// Whether it has been given up, because a head took too long.
    has_expired: bool,
    /// What is written in the place of something else, as far as it has not been written yet.
    replacement: Option<Bytes>,
}

impl Stream {
    pub(super) fn new(inner: TcpStream, peer: Arc<Peer>, peers: Arc<Peers>) -> Self {
        Self {
            inner,
            peer,
            peers,
            lingering: None,
            discarded_bytes: 0,
            has_begun: false,
            has_expired: false,
            replacement: None,
        }
    }

    /// Looks whether the peer has closed its sending side, if a request waits: while one is being served, hyper does not read.
    fn look_for_end(&mut self, cx: &mut Context<'_>) {
        if !self.peer.presence.is_asked_for() {
            return;
        }
        let mut byte = [0];
        match self.inner.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(0) | Err(_)) => self.peer.presence.leave(),
            // The next request, behind which no end is seen, or nothing yet: it is looked at again when something comes.
            Poll::Ready(Ok(_)) | Poll::Pending => {}
        }
    }

    /// Writes what is to be written in the place of something else.
    fn poll_replacement(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.replacement.as_mut().filter(|rest| !rest.is_empty()) {
            let count = ready!(Pin::new(&mut self.inner).poll_write(cx, rest))?;
            rest.advance(count);
        }
        self.replacement = None;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.has_expired || self.peer.is_expired() {
            if !self.has_expired {
                self.has_expired = true;
                self.replacement = Some(refusal::of_slow_head());
            }
            ready!(self.poll_shutdown(cx))?;
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = to.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, to))?;
        if to.filled().len() == before {
            return Poll::Ready(Ok(()));
        }
        self.peer.has_sent();
        if !self.has_begun {
            self.has_begun = true;
            if refusal::is_http2(&to.filled()[before..]) {
                // As if nothing had come: the connection is then closed, and says why.
                to.set_filled(before);
                self.replacement = Some(refusal::of_http2());
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        if self.replacement.is_none() {
            self.replacement = refusal::of_hyper(from);
        }
        if self.replacement.is_some() {
            return self.poll_replacement(cx).map_ok(|()| from.len());
        }
        let count = ready!(Pin::new(&mut self.inner).poll_write(cx, from))?;
        self.peer.has_taken_some();
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [from] = from {
            return self.poll_write(cx, from);
        }
        let count = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, from))?;
        self.peer.has_taken_some();
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // It is called when nothing is left to be written.
        self.peers.has_taken_all(&self.peer);
        self.look_for_end(cx);
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_replacement(cx))?;
        let this = &mut *self;
        let end = if let Some(end) = &mut this.lingering {
            end
        } else {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            this.lingering.insert(Box::pin(sleep(LINGER)))
        };
        let mut scratch = [0; 8 * 1024];
        while this.discarded_bytes < MAX_DISCARDED_BYTES && end.as_mut().poll(cx).is_pending() {
            let mut read = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut this.inner).poll_read(cx, &mut read)) {
                Ok(()) if !read.filled().is_empty() => this.discarded_bytes += read.filled().len(),
                // The peer is done, or gone.
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::{Instant, interval, timeout},
    };

    use super::*;
    use crate::config::Config;

    /// A connection, and its peer.
    async fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let peers = Arc::new(Peers::new(&Config::default().server, 1));
        let place = peers.admit(peer.local_addr().unwrap()).unwrap();
        (Stream::new(listener.accept().await.unwrap().0, place, peers), peer)
    }

    // The time is the tests' own: it jumps ahead when there is nothing else to do.
    #[tokio::test(start_paused = true)]
    async fn a_peer_that_goes_on_sending_does_not_keep_a_closed_connection() {
        let (mut stream, mut peer) = pair().await;
        let trickle = tokio::spawn(async move {
            let mut ticks = interval(Duration::from_millis(100));
            while peer.write_all(b"x").await.is_ok() {
                ticks.tick().await;
            }
        });
        let started = Instant::now();

        timeout(LINGER * 2, stream.shutdown()).await.expect("it waits").unwrap();
        drop(stream);

        assert!((LINGER..LINGER * 2).contains(&started.elapsed()), "{:?}", started.elapsed());
        trickle.await.unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_is_done_is_not_waited_for() {
        let (mut stream, mut peer) = pair().await;
        let started = Instant::now();
        let reads = tokio::spawn(async move {
            peer.shutdown().await.unwrap();
            peer.read_to_end(&mut Vec::new()).await.unwrap()
        });

        stream.shutdown().await.unwrap();

        assert!(started.elapsed() < LINGER);
        drop(stream);
        assert_eq!(reads.await.unwrap(), 0);
    }
}
