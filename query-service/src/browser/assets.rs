//! The files beside the pages. Each has a hash of what it holds in its name, so a browser keeps it for good.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use http_api::Problem;
use sha2::{Digest as _, Sha256};

pub(super) struct Asset {
    name: String,
    media_type: &'static str,
    bytes: &'static [u8],
}

pub(super) static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("style", "css", "text/css; charset=utf-8", include_bytes!("../../assets/style.css"))
});
pub(super) static ICON: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("icon", "svg", "image/svg+xml", include_bytes!("../../assets/icon.svg"))
});

impl Asset {
    fn new(name: &str, extension: &str, media_type: &'static str, bytes: &'static [u8]) -> Self {
        let hash = format!("{:x}", Sha256::digest(bytes));
        Self { name: format!("{name}-{}.{extension}", &hash[..12]), media_type, bytes }
    }

    pub(super) fn path(&self) -> String {
        format!("/assets/{}", self.name)
    }
}

/// `GET /assets/{name}`
pub(crate) async fn asset(Path(name): Path<String>) -> Result<Response, Problem> {
    let known = [&STYLE, &ICON].into_iter().find(|asset| asset.name == name);
    let asset = known.ok_or_else(|| Problem::not_found("there is nothing at this address"))?;
    let headers = [
        (header::CONTENT_TYPE, asset.media_type),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    Ok((headers, asset.bytes).into_response())
}
