//! brig-pki
