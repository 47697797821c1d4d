//! The body of error answers.

model! {
    /// `{"message":"text"}`, sent as `application/json` exactly.
    pub struct ErrorResponse {
        #[serde(rename = "message")] message: String,
    }
}

impl ErrorResponse {
    /// An error body.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}
