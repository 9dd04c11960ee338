//! From the spool to the upstream: in order, again and again, or to the dead letters.
