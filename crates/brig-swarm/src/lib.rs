//! brig-swarm
