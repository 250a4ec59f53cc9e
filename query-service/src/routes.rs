//! The one table of URLs.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::FromRef;
use axum::http::{HeaderValue, header};
use axum::middleware::{from_fn, map_response};
use axum::response::Response;
use axum::routing::get;
use http_api::layers::surround;
use http_api::{ConsistencyTokens, CorsArgs, TokenVerifier};

use crate::documents::Documents;
use crate::page_cache::PageCache;
use crate::reads::Reads;
use crate::site::Site;
use crate::{browser, feed, lists, openapi, posts, sitemap};

/// What handlers work with.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) memory: PageCache,
    pub(crate) reads: Arc<Reads>,
    pub(crate) tokens: TokenVerifier,
    pub(crate) consistency: ConsistencyTokens,
    pub(crate) site: Site,
    pub(crate) feeds: Arc<Documents>,
    pub(crate) sitemaps: Arc<Documents>,
}

impl FromRef<Service> for TokenVerifier {
    fn from_ref(service: &Service) -> Self {
        service.tokens.clone()
    }
}

/// The route of pages, most of which are sent before any route is looked for.
pub(crate) const PAGE: &str = "/posts/{address}";

/// `GET` here takes `HEAD` as well.
pub(crate) fn routes(service: Service, time_limit: Duration, cors: &CorsArgs) -> Router {
    let routes = Router::new()
        .route("/", get(browser::root))
        .route("/posts", get(browser::list))
        .route(PAGE, get(browser::page))
        .route("/me/posts", get(lists::own_posts))
        .route("/post/{slug}", get(posts::article))
        .route(Site::FEED, get(feed::feed))
        .route("/sitemap.xml", get(sitemap::sitemap))
        .route("/assets/{name}", get(browser::asset))
        .merge(http_api::openapi::serve(&openapi::document()));
    surround(routes, time_limit, cors)
        .layer(from_fn(browser::problems_as_pages))
        .layer(map_response(async |response| store_only_what_may_be(response)))
        .with_state(service)
}

/// Caches may keep a 404, a 410 or a 301 for as long as they see fit, unless they are told otherwise.
pub(crate) fn store_only_what_may_be(mut response: Response) -> Response {
    response
        .headers_mut()
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
