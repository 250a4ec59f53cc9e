//! Serves one connection, and closes it such that the client receives the last response.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use axum::http::{HeaderValue, header};
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::util::Oneshot;
use tower::{Service, ServiceExt as _};

use super::activity::{Activity, Phase, Reason};
use super::body::{RequestBody, ResponseBody};
use super::limits::Limits;
use super::stream::Watched;

/// The largest piece of a body that is read at once, which bounds the buffers of a connection.
const BUFFER_BYTES: usize = 64 << 10;

/// Sent where a head has begun and does not end.
const HEAD_TIMED_OUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

pub(super) async fn serve<S>(stream: TcpStream, service: S, activity: Arc<Activity>, limits: Limits)
where
    S: Service<Request<RequestBody>, Response = Response, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    // Responses are small and written at once; waiting for more to send only delays them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
    let io = TokioIo::new(Watched { stream, activity: activity.clone() });
    let service = Guarded { inner: service, activity: activity.clone(), limits };
    let mut connection = http1::Builder::new()
        // Times are limited by the server, for all connections at once.
        .header_read_timeout(None)
        .max_header_size(Limits::HEAD_BYTES)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(io, service);
    let mut is_told_to_stop = false;
    let closed = loop {
        tokio::select! {
            biased;
            outcome = &mut connection => break Err(outcome),
            () = activity.looked_at() => {}
        }
        if activity.is_stopping() && !is_told_to_stop {
            is_told_to_stop = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        if let Some(reason) = activity.verdict(&limits) {
            break Ok(reason);
        }
    };
    let mut stream = connection.into_parts().io.into_inner().stream;
    match closed {
        Ok(reason) => {
            count(reason, &limits);
            match reason {
                Reason::Idle | Reason::Evicted => {}
                Reason::Head => {
                    // It fits into the buffer of the system. If it does not, the client does not read.
                    let _ = stream.try_write(HEAD_TIMED_OUT);
                    drain(stream, &activity, &limits).await;
                }
                // What it has not read is not worth keeping.
                Reason::Write => drop(stream.set_zero_linger()),
            }
        }
        Err(Ok(())) if activity.has_unread_body.load(Ordering::Relaxed) => {
            drain(stream, &activity, &limits).await;
        }
        Err(Ok(())) => {}
        Err(Err(error)) => {
            tracing::debug!(%error, "connection ended");
            if error.is_parse() {
                drain(stream, &activity, &limits).await;
            } else {
                drop(stream.shutdown().await);
            }
        }
    }
}

/// Counts a connection that the server has closed.
fn count(reason: Reason, limits: &Limits) {
    let labels = [("port", limits.port), ("reason", reason.name())];
    metrics::counter!("http_connections_closed_total", &labels).increment(1);
}

/// Lingering close: says that nothing more will be sent, and discards what the client is still sending.
///
/// If the socket were closed at once, the system would reset the connection for bytes that nothing reads,
/// and the client might never see its response.
async fn drain(mut stream: TcpStream, activity: &Activity, limits: &Limits) {
    activity.enter(Phase::Draining);
    if stream.shutdown().await.is_err() {
        return;
    }
    let discard = async {
        let mut buffer = vec![0; 16 << 10];
        let mut left = limits.drained_bytes;
        while left > 0 {
            match timeout(limits.body_progress, stream.read(&mut buffer)).await {
                Ok(Ok(count @ 1..)) => left = left.saturating_sub(count),
                Ok(Ok(0) | Err(_)) | Err(_) => return,
            }
        }
    };
    let evicted = async {
        while activity.verdict(limits).is_none() {
            activity.looked_at().await;
        }
        count(Reason::Evicted, limits);
    };
    tokio::select! {
        _ = timeout(limits.body, discard) => {}
        () = evicted => {}
    }
}

/// Stands between a connection and what answers its requests.
#[derive(Debug)]
struct Guarded<S> {
    inner: S,
    activity: Arc<Activity>,
    limits: Limits,
}

impl<S> hyper::service::Service<Request<Incoming>> for Guarded<S>
where
    S: Service<Request<RequestBody>, Response = Response, Error = Infallible> + Clone,
{
    type Response = hyper::Response<ResponseBody<axum::body::Body>>;
    type Error = Infallible;
    type Future = Answering<Oneshot<S, Request<RequestBody>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.activity.enter(Phase::Busy);
        let request = request.map(|body| RequestBody::new(body, &self.activity, &self.limits));
        Answering { answer: self.inner.clone().oneshot(request), activity: self.activity.clone() }
    }
}

pin_project! {
    struct Answering<F> {
        #[pin]
        answer: F,
        activity: Arc<Activity>,
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for Answering<F> {
    type Output = Result<hyper::Response<ResponseBody<axum::body::Body>>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(mut response) = ready!(this.answer.poll(context));
        if this.activity.has_unread_body.load(Ordering::Relaxed) {
            // The client may still be sending, so this connection cannot carry another request.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response.map(|body| ResponseBody::new(body, this.activity.clone()))))
    }
}
