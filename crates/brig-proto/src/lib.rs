//! brig-proto
