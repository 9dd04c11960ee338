//! Pools of servers: health, fail-over, credentials.
