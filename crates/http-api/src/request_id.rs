//! Request ids (`X-Request-Id`): one name for a request in its response, in problem documents, in log output
//! and in the metadata of events.
//!
//! The client's id is accepted; a request without one is given a UUIDv7.

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// The name of the header.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Maximum length of an id that a client may choose.
const MAX_LENGTH: usize = 128;

tokio::task_local! {
    /// The id of the request that is being served.
    static PRESENT: RequestId;
}

/// 1–128 visible ASCII characters. Clones share the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// Returns the id that the client has chosen, if there is one, and it is valid.
    pub fn shown(headers: &HeaderMap) -> Option<Self> {
        let mut given = headers.get_all(HEADER).iter();
        let id = given.next()?;
        let visible = id.as_bytes().iter().all(u8::is_ascii_graphic);
        let is_valid = visible && (1..=MAX_LENGTH).contains(&id.len()) && given.next().is_none();
        is_valid.then(|| Self(id.clone()))
    }

    /// Returns the client's id, or else a new one.
    pub fn of(headers: &HeaderMap) -> Self {
        Self::shown(headers).unwrap_or_else(Self::new)
    }

    fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(now.as_millis()).unwrap_or_default();
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&random().to_be_bytes());
        bytes[8..].copy_from_slice(&random().to_be_bytes()[..2]);
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid();
        let text = id.hyphenated();
        let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
        // Digits and hyphens are visible ASCII.
        let text = HeaderValue::from_str(text.encode_lower(&mut buffer));
        Self(text.unwrap_or(HeaderValue::from_static("unknown")))
    }

    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// Puts the id on a response.
    pub fn put_on(self, headers: &mut HeaderMap) {
        headers.insert(HEADER, self.0);
    }

    /// Returns the id of the request that is being served by this task.
    pub(crate) fn present() -> Option<Self> {
        PRESENT.try_with(Clone::clone).ok()
    }

    /// Makes this the id of the request that is served by a future.
    pub(crate) fn scope<F: Future>(self, future: F) -> Scoped<F> {
        PRESENT.scope(self, future)
    }

    /// Makes this the id of the request that is served by a function.
    pub(crate) fn sync_scope<T>(self, serve: impl FnOnce() -> T) -> T {
        PRESENT.sync_scope(self, serve)
    }
}

/// A future that serves one request.
pub(crate) type Scoped<F> = tokio::task::futures::TaskLocalFuture<RequestId, F>;

/// Returns 64 bits that do not repeat. Nothing is kept secret by them, so speed counts (SplitMix64).
fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
    }
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_id_of_a_client_is_kept_if_it_is_valid() {
        let read = |values: &[&str]| {
            let pair = |value: &&str| (HEADER, value.parse().unwrap());
            RequestId::shown(&values.iter().map(pair).collect())
        };
        let long = "x".repeat(128);
        for good in ["a", "7f9c/1:2=~", long.as_str()] {
            assert_eq!(read(&[good]).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a\tb", &format!("{long}x")] {
            assert_eq!(read(&[bad]), None, "{bad} was accepted");
        }
        assert_eq!(read(&[]), None);
        assert_eq!(read(&["a", "b"]), None);
    }

    #[test]
    fn new_ids_are_uuids_and_differ() {
        let ids: HashSet<_> =
            (0..1000).map(|_| RequestId::new().as_str().parse::<uuid::Uuid>().unwrap()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
    }
}
