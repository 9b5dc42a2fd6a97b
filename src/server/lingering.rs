//! Closing a connection so that the last answer arrives.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

/// How long the peer may be silent while what it still sends is thrown away.
const SILENCE: Duration = Duration::from_secs(1);
/// How much is thrown away at most, in bytes.
const MAX_DISCARDED_BYTES: usize = 16 * 1024 * 1024;

/// A connection that reads what the peer is still sending before it closes.
///
/// An answer can be ready before the request has arrived: a body that is too large is refused while it is being sent.
/// Whoever closes with bytes unread makes the system reset the connection, and the reset overtakes the answer: the
/// caller would see a broken connection instead of a 413.
#[derive(Debug)]
pub(super) struct Lingering {
    stream: TcpStream,
    silence: Option<Pin<Box<Sleep>>>,
    discarded_bytes: usize,
}

impl Lingering {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, silence: None, discarded_bytes: 0 }
    }
}

impl AsyncRead for Lingering {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, to)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let silence = if let Some(silence) = &mut this.silence {
            silence
        } else {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.silence.insert(Box::pin(sleep(SILENCE)))
        };
        let mut scratch = [0; 8 * 1024];
        loop {
            let mut read = ReadBuf::new(&mut scratch);
            match Pin::new(&mut this.stream).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    this.discarded_bytes += read.filled().len();
                    if this.discarded_bytes > MAX_DISCARDED_BYTES {
                        return Poll::Ready(Ok(()));
                    }
                    silence.as_mut().reset(Instant::now() + SILENCE);
                }
                // The peer is done, or gone.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return silence.as_mut().poll(cx).map(Ok),
            }
        }
    }
}
