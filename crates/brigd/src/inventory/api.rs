//! What is in the images, over the API.

use super::running;
use crate::route;
use crate::server::body;
use crate::server::{ApiError, Call, Response, Route};

/// Routes of inventories.
pub static ROUTES: &[Route] = &[
    route!(GET "/brig/images/{name*}/inventory", ImageInventory, of_image),
    route!(GET "/brig/inventories", InventoryList, running::list),
];

/// `GET /brig/images/{name}/inventory`: read now where that has not been done yet.
///
/// # Errors
/// No such image.
pub async fn of_image(call: Call) -> Result<Response, ApiError> {
    let name = call.param("name");
    match call.state.inventories.ensure(name).await? {
        Some(inventory) => body::ok(&inventory),
        None => Err(ApiError::not_found(format!("No such image: {name}"))),
    }
}
