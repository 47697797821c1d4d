//! `GET /images/search`: what an index of images has.

use serde::Serialize;

use super::image_transfer::credentials;
use crate::server::{ApiError, Call, Response, body};

/// Results when the client does not say how many.
const DEFAULT_LIMIT: u32 = 25;
/// Most results that an index gives.
const MAX_LIMIT: u32 = 100;

#[derive(Serialize)]
struct Found {
    star_count: i64,
    is_official: bool,
    name: String,
    is_automated: bool,
    description: String,
}

/// Asks the index that the term names.
///
/// # Errors
/// Bad filters or limits, and what the index says.
pub async fn search(call: Call) -> Result<Response, ApiError> {
    let filters = call.query.filters()?;
    filters.check_keys(&["is-automated", "is-official", "stars"])?;
    let official = filters.boolean("is-official")?;
    let automated = filters.boolean("is-automated")?;
    let mut stars = 0_i64;
    for text in filters.get("stars") {
        let least: i64 = text
            .parse()
            .map_err(|_| ApiError::invalid(format!("invalid filter 'stars={text}'")))?;
        stars = stars.max(least);
    }
    let limit = match call.query.number::<i64>("limit")? {
        None | Some(0) => DEFAULT_LIMIT,
        Some(limit) => u32::try_from(limit)
            .ok()
            .filter(|limit| (1..=MAX_LIMIT).contains(limit))
            .ok_or_else(|| {
                ApiError::invalid(format!("limit {limit} is outside the range of [1, {MAX_LIMIT}]"))
            })?,
    };
    let term = call.query.text("term").unwrap_or_default();
    let credentials = credentials(&call)?;
    let results = call.state.engine.images().search(term, limit, credentials).await?;
    let found: Vec<Found> = results
        .into_iter()
        .filter(|result| {
            official.is_none_or(|wanted| wanted == result.is_official)
                && automated.is_none_or(|wanted| wanted == result.is_automated)
                && result.star_count >= stars
        })
        .map(|result| Found {
            star_count: result.star_count,
            is_official: result.is_official,
            name: result.name,
            is_automated: result.is_automated,
            description: result.description,
        })
        .collect();
    body::ok(&found)
}
