//! brig-network
