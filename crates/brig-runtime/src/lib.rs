//! brig-runtime
