//! brig-engine
