//! Microsoft Graph change notifications: what a request has to be, and its answer.
