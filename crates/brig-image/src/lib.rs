//! brig-image
