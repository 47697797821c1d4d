//! The cluster's keys and backups, which docker does not have.

use std::collections::BTreeMap;

use crate::data::SecretText;

/// Largest [`BackupOpening`], as JSON, in bytes.
pub const MAX_OPENING: usize = 64 << 10;

model! {
    /// `GET /brig/cluster/keys`.
    pub struct ClusterKeys {
        /// Id of the key that seals.
        current: String,
        /// How often the key was changed.
        generation: u64,
        /// The generation that is to be; more than `generation` while that is waited for.
        wanted: u64,
        /// Whether older keys are still needed.
        rotating: bool,
        /// What the key was changed for last.
        reason: String,
        /// When that was asked for.
        requested_at: String,
        /// Whether the keys are wrapped with the unlock key.
        autolock: bool,
        /// Records by key.
        records: Vec<KeyUsage>,
    }

    /// How much one key sealed.
    pub struct KeyUsage {
        key: String,
        records: u64,
    }

    /// `POST /brig/cluster/backup`: who may read it, recipients of age or whoever knows the
    /// passphrase. The answer is the backup.
    pub struct BackupRequest {
        recipients: Vec<String>,
        passphrase: SecretText,
    }

    /// What opens a backup. It comes before the backup in the bodies of
    /// `POST /brig/cluster/backup/verify` and `POST /brig/cluster/restore`: four bytes with its
    /// length, big endian, then this as JSON, then the backup.
    pub struct BackupOpening {
        passphrase: SecretText,
        /// An identity file of age.
        identities: SecretText,
    }

    /// What is in a backup.
    pub struct BackupSummary {
        format: u32,
        /// The version of brig that wrote it.
        brig: String,
        created: String,
        cluster: String,
        /// The manager that wrote it.
        node: String,
        revision: u64,
        autolock: bool,
        /// Objects by kind.
        objects: BTreeMap<String, u64>,
    }

    /// What `POST /brig/cluster/restore` answers.
    pub struct RestoreAnswer {
        /// This node's id in the cluster.
        node_id: String,
        backup: BackupSummary,
    }
}
