//! Events.

use std::collections::BTreeMap;

model! {
    /// One line of `GET /events`.
    pub struct Event {
        /// Only for containers and images.
        #[serde(rename = "status")] status: String = omitempty,
        /// Only for containers and images.
        #[serde(rename = "id")] id: String = omitempty,
        /// Only for containers.
        #[serde(rename = "from")] from: String = omitempty,
        #[serde(rename = "Type")] kind: String,
        action: String,
        actor: Actor,
        /// `local` or `swarm`.
        #[serde(rename = "scope")] scope: String = omitempty,
        /// Unix seconds.
        #[serde(rename = "time")] time: i64 = omitempty,
        /// Unix nanoseconds.
        #[serde(rename = "timeNano")] time_nano: i64 = omitempty,
    }

    /// What the event is about.
    pub struct Actor {
        #[serde(rename = "ID")] id: String,
        attributes: BTreeMap<String, String>,
    }
}
