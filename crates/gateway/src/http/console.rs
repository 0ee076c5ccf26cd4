//! The console: files that the build embedded, gzipped, and the page behind every address of it.
//!
//! Names under `assets/` have a hash in them and are kept by browsers for good; the page itself is
//! asked for anew each time. Nothing is loaded from anywhere else, and the policy says so.

use std::io::Read;

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, header},
    response::{IntoResponse, Response},
};
use flate2::read::GzDecoder;

use super::{Problem, problem};

/// A file of the console.
struct Asset {
    /// From the root, without the first slash.
    path: &'static str,
    content_type: &'static str,
    gzipped: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/console.rs"));

const PAGE: &str = "index.html";
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; \
     base-uri 'none'; frame-ancestors 'none'";

/// Answers what no route takes: with a file of the console, with its page where a browser asks for
/// one, else with a problem.
pub(super) async fn serve(request: Request) -> Response {
    let (path, headers) = (request.uri().path(), request.headers());
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let name = path.trim_start_matches('/');
    let asset = find(name).or_else(|| find(PAGE).filter(|_| is_for_page(path, headers)));
    match asset.filter(|_| is_read && !path.starts_with("/api/")) {
        Some(asset) => answer(asset, headers),
        None => problem::no_such_resource(request.uri()).into_response(),
    }
}

fn find(name: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == name)
}

/// A browser goes to an address of the console.
fn is_for_page(path: &str, headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok());
    path == "/" || accept.is_some_and(|accept| accept.contains("text/html"))
}

fn answer(asset: &'static Asset, headers: &HeaderMap) -> Response {
    let lasts = if asset.path.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let told = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static(asset.content_type),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static(lasts)),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(POLICY),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
        (header::VARY, HeaderValue::from_static("Accept-Encoding")),
    ];
    let accepted = headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|a| a.to_str().ok());
    if accepted.is_some_and(|accepted| accepted.contains("gzip")) {
        return (told, [(header::CONTENT_ENCODING, "gzip")], asset.gzipped).into_response();
    }
    let mut body = Vec::new();
    match GzDecoder::new(asset.gzipped).read_to_end(&mut body) {
        Ok(_) => (told, body).into_response(),
        Err(error) => {
            tracing::error!(%error, path = asset.path, "an embedded file is damaged");
            Problem::not_found(format!("{} is damaged in this binary", asset.path)).into_response()
        }
    }
}
