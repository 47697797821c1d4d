//! `GET /system/expiring`, an extension of brig's.

model! {
    /// Something that ends at a known time.
    pub struct Expiring {
        /// root-certificate, pending-root-certificate, node-certificate, join-token, access-ca,
        /// access-certificate; there may be more.
        kind: String,
        /// A node's or an identity's id, a root's digest, a token's role.
        #[serde(rename = "ID")] id: String,
        name: String,
        /// manager or worker; what an identity may do.
        role: String = omitempty,
        issued: String = omitempty,
        ends: String = omitempty,
        /// Between these its node renews it by itself.
        renews_from: String = omitempty,
        renews_until: String = omitempty,
        /// How often a token may still be used.
        uses_left: Option<u32> = omitempty,
        /// ok, renewing, down, overdue, expired, used-up.
        state: String,
        /// How far the node's clock is ahead of its manager's, in nanoseconds; below zero when it
        /// is behind.
        clock_offset: Option<i64> = omitempty,
    }
}
