//! Bodies on their way: a request's, which must make progress, and a response's, whose end is noted.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::{Activity, Phase};
use super::limits::Limits;

/// The body of a request. It fails when the client makes no progress.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    /// `None` if there is nothing to wait for.
    wait: Option<Wait>,
}

#[derive(Debug)]
struct Wait {
    activity: Arc<Activity>,
    limits: Limits,
    begun: Instant,
    progressed: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Why a request's body cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the body did not arrive in time")]
    Stalled,
    #[error("the body did not arrive whole")]
    Broken(#[source] hyper::Error),
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, activity: &Arc<Activity>, limits: &Limits) -> Self {
        if incoming.is_end_stream() {
            return Self { incoming, wait: None };
        }
        activity.has_unread_body.store(true, Ordering::Relaxed);
        let now = Instant::now();
        let wait = Wait {
            activity: activity.clone(),
            limits: *limits,
            begun: now,
            progressed: now,
            timer: None,
        };
        Self { incoming, wait: Some(wait) }
    }
}

impl Wait {
    /// Completes when the client has made no progress for too long.
    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let deadline =
            (self.progressed + self.limits.body_progress).min(self.begun + self.limits.body);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(context)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(context);
        let is_whole = self.incoming.is_end_stream() || matches!(polled, Poll::Ready(None));
        if let Some(wait) = &mut self.wait {
            if is_whole {
                wait.activity.has_unread_body.store(false, Ordering::Relaxed);
                self.wait = None;
            } else if polled.is_ready() {
                wait.progressed = Instant::now();
            } else if wait.poll_stalled(context).is_ready() {
                return Poll::Ready(Some(Err(BodyError::Stalled)));
            }
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(BodyError::Broken)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// The body of a response. When it ends, the connection waits for its next request.
#[derive(Debug)]
pub(super) struct ResponseBody<B> {
    body: B,
    activity: Arc<Activity>,
}

impl<B> ResponseBody<B> {
    pub(super) fn new(body: B, activity: Arc<Activity>) -> Self {
        Self { body, activity }
    }
}

impl<B> Drop for ResponseBody<B> {
    fn drop(&mut self) {
        self.activity.enter(Phase::Idle);
    }
}

impl<B: Body + Unpin> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
