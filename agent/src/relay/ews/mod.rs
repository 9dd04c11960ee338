//! EWS push notifications: what a request has to be, and its answer.
