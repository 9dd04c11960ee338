//! Getting what a feed says.
//!
//! A client is made for every poll, so that a renewed certificate file or another
//! proxy is taken up without a restart.

use std::{future::Future, sync::Arc};

use crate::{
    config,
    source::{
        Definition,
        feed::{Collected, Content, Error, FeedId, Revision},
        microsoft365::{Client, RequestId},
        read,
    },
};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// How feeds are followed.
    pub config: config::Feed,
    /// The feed.
    pub id: FeedId,
    /// The definition of the source, if the feed belongs to one.
    pub definition: Option<Definition>,
    /// The revision that is applied.
    pub applied: Option<Revision>,
    /// And its content.
    pub content: Arc<Content>,
}

/// Where answers come from.
pub trait Collect: Clone + Send + Sync + 'static {
    /// Asks for another revision than the one that is applied.
    fn collect(&self, ask: Ask) -> impl Future<Output = Result<Collected, Error>> + Send;
}

/// The feeds themselves.
#[derive(Clone, Debug)]
pub struct Feeds {
    /// Identifies this installation to the Microsoft web service.
    pub id: RequestId,
}

impl Collect for Feeds {
    async fn collect(&self, ask: Ask) -> Result<Collected, Error> {
        let Ask { config, id, definition, applied, content } = ask;
        match (id, definition) {
            (FeedId::Instance(instance), _) => {
                let client = Client::new(&config.base_url, self.id, &config.fetch_options())?;
                let applied = applied.as_ref().and_then(Revision::version);
                Ok(client.collect(instance, applied).await?.into())
            }
            (FeedId::Source(_), Some(definition)) => {
                let held = (applied.as_ref(), content.entries());
                read::read(&definition, held, config.proxy, config.timeout).await
            }
            (FeedId::Source(name), None) => Err(Error::File {
                path: name,
                problem: "the source is no longer configured".to_owned(),
            }),
        }
    }
}
