//! Work that blocks on the disk, off the threads that serve requests.

use crate::server::ApiError;

/// Runs `work` on a thread for blocking work.
///
/// # Errors
/// What `work` fails with. It runs to its end even when nobody waits for it any more.
pub async fn blocking<T, E, F>(work: F) -> Result<T, ApiError>
where
    F: FnOnce() -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Into<ApiError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(_) => Err(ApiError::system("the work ended unexpectedly")),
    }
}
