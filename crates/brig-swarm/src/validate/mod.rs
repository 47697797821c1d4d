//! What may come in from users, and what may go out to agents.

pub(crate) mod outgoing;
pub(crate) mod service;
