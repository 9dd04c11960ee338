//! Getting the answer of the web service.
//!
//! A client is made for every poll, so that a renewed certificate file or another
//! proxy is taken up without a restart.

use std::future::Future;

use crate::{
    config,
    source::microsoft365::{Client, Collected, Error, Instance, RequestId, Version},
};

/// Where answers come from.
pub trait Collect: Clone + Send + Sync + 'static {
    /// Asks for another version than the one that is applied.
    fn collect(
        &self,
        feed: config::Feed,
        instance: Instance,
        applied: Option<Version>,
    ) -> impl Future<Output = Result<Collected, Error>> + Send;
}

/// The web service itself.
#[derive(Clone, Debug)]
pub struct WebService {
    /// Identifies this installation to it.
    pub id: RequestId,
}

impl Collect for WebService {
    async fn collect(
        &self,
        feed: config::Feed,
        instance: Instance,
        applied: Option<Version>,
    ) -> Result<Collected, Error> {
        let client = Client::new(&feed.base_url, self.id, &feed.fetch_options())?;
        client.collect(instance, applied).await
    }
}
