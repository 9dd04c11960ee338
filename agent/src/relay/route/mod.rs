//! Host and path to a route; what is checked is what is forwarded.
