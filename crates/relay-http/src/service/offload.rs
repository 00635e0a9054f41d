//! Moves long computations away from the threads that serve connections.

use crate::api::error::ApiError;

/// Larger bodies are processed on a blocking thread, so that they do not delay the other
/// connections of their thread. To parse a body of this size takes about 100 microseconds.
pub(super) const OFFLOAD_BYTES: usize = 256 * 1024;

/// Runs `work` on a blocking thread.
///
/// # Errors
/// [`ApiError::Internal`] if `work` panics.
pub(super) async fn offload<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let result = tokio::task::spawn_blocking(work).await;
    result.map_err(|error| ApiError::Internal(format!("a blocking task failed: {error}")))
}
