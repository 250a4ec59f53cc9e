//! What every handler has at hand.

use std::sync::Arc;

use axum::extract::FromRef;
use http_api::TokenVerifier;

use crate::execute::Posts;

/// Shared by all requests. Clones are cheap.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) posts: Posts,
    pub(crate) verifier: TokenVerifier,
    /// Where readers find the pages; without a slash at its end.
    pub(crate) public_url: Arc<str>,
}

impl FromRef<Service> for TokenVerifier {
    fn from_ref(service: &Service) -> Self {
        service.verifier.clone()
    }
}
