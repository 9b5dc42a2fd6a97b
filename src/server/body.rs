//! The rest of a request's body that nobody has read.
//!
//! hyper closes a connection after an answer that came before the body was read, and the answer does not say so. A client
//! that keeps connections sends its next request into a dead one, and can't tell whether that was done. So what has been
//! left is read and thrown away before the answer goes out, if it is small or already on its way; if not, the answer says
//! that the connection ends.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, timeout_at};

use super::peers::{Peer, Phase};

/// How much is thrown away at most, in bytes.
const MAX_DISCARDED_BYTES: u64 = 256 * 1024;
/// How long it may take to come.
const DISCARD_TIMEOUT: Duration = Duration::from_millis(500);

/// A body that is lent to those who serve the request. When they are done, what is left of it comes back.
pub(super) struct Lent {
    body: Option<Incoming>,
    was_read: bool,
    peer: Arc<Peer>,
    lender: Lender,
}

/// Whoever lent the body, and takes back what is left.
#[derive(Debug, Clone, Default)]
pub(super) struct Lender(Arc<Mutex<Returned>>);

#[derive(Debug, Default)]
struct Returned {
    body: Option<Incoming>,
    /// Whether somebody has begun to read it, which invites a client that waits (`Expect: 100-continue`) to send it.
    was_read: bool,
}

impl Lender {
    pub(super) fn lend(&self, body: Incoming, peer: Arc<Peer>) -> Lent {
        Lent { body: Some(body), was_read: false, peer, lender: self.clone() }
    }

    /// Reads the rest of the body, and tells whether another request can follow on the connection.
    ///
    /// `waits` says that the client sends its body only when it is invited to.
    pub(super) async fn discard_rest(self, waits: bool, peer: &Peer) -> bool {
        let Returned { body, was_read } = std::mem::take(&mut *self.0.lock().expect("nothing panics with it"));
        let Some(mut rest) = body.filter(|rest| !rest.is_end_stream()) else { return true };
        if waits && !was_read || rest.size_hint().lower() > MAX_DISCARDED_BYTES {
            return false;
        }
        if peer.is_spare {
            return false;
        }
        // Its peer is who is waited for.
        peer.enter(Phase::Body);
        let deadline = Instant::now() + DISCARD_TIMEOUT;
        let mut discarded = 0;
        loop {
            match timeout_at(deadline, rest.frame()).await {
                Ok(None) => return true,
                Ok(Some(Ok(frame))) => discarded += frame.data_ref().map_or(0, |data| data.len() as u64),
                Ok(Some(Err(_))) | Err(_) => return false,
            }
            if discarded > MAX_DISCARDED_BYTES {
                return false;
            }
        }
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.was_read = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(cx).map_err(io::Error::other);
        self.peer.awaits_body(frame.is_pending());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let returned = Returned { body: self.body.take(), was_read: self.was_read };
        *self.lender.0.lock().expect("nothing panics with it") = returned;
    }
}
