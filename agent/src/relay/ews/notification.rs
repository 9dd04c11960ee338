//! The message `SendNotification`: whom it is about, and whether it says anything.
//!
//! Only that is read, at the one place where it may stand; events pass unread. The
//! id of a subscription anywhere else refuses the message, because somebody behind
//! the relay might find that one first.

use super::xml::{BadXml, Node, walk};

const SOAP: &str = "http://schemas.xmlsoap.org/soap/envelope/";
const MESSAGES: &str = "http://schemas.microsoft.com/exchange/services/2006/messages";
const TYPES: &str = "http://schemas.microsoft.com/exchange/services/2006/types";

/// Most notifications in one message. Exchange sends one.
const MOST: usize = 1000;
/// Longest id of a subscription, or watermark. Exchange's have about 200 bytes.
const LONGEST: usize = 1024;

/// What is read of a notification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notification {
    /// The subscription.
    pub subscription: String,
    /// Where the subscriber stood before, if it is said.
    pub previous_watermark: Option<String>,
    /// Whether another notification follows at once.
    pub more_events: bool,
    /// Whether nothing happened: all events are of the kind that is sent when
    /// there is nothing else to say.
    pub only_status: bool,
}

/// Why a message is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// It is not well-formed XML in UTF-8.
    #[error("the message is not XML")]
    NotXml,
    /// It has a document type or an entity.
    #[error("the message has a document type or an entity")]
    Entity,
    /// It is deeper or longer than any of Exchange's.
    #[error("the message is deeper or longer than any of Exchange's")]
    TooLarge,
    /// It is XML of another shape, or holds no notification.
    #[error("the message is not SendNotification")]
    Shape,
}

impl Malformed {
    /// The name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotXml => "not_xml",
            Self::Entity => "entity",
            Self::TooLarge => "too_large",
            Self::Shape => "shape",
        }
    }
}

impl From<BadXml> for Malformed {
    fn from(problem: BadXml) -> Self {
        match problem {
            BadXml::NotXml => Self::NotXml,
            BadXml::Entity => Self::Entity,
            BadXml::TooLarge => Self::TooLarge,
        }
    }
}

/// Where in the message an element stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Envelope,
    Body,
    SendNotification,
    ResponseMessages,
    Message,
    Notification,
    SubscriptionId,
    PreviousWatermark,
    MoreEvents,
    StatusEvent,
    /// Another event.
    Event,
    Elsewhere,
}

impl Place {
    /// The place of an element in this one; `None` is the document itself.
    fn of(parent: Option<Self>, namespace: Option<&str>, name: &str) -> Self {
        match (parent, namespace, name) {
            (None, Some(SOAP), "Envelope") => Self::Envelope,
            (Some(Self::Envelope), Some(SOAP), "Body") => Self::Body,
            (Some(parent), Some(MESSAGES), _) => match (parent, name) {
                (Self::Body, "SendNotification") => Self::SendNotification,
                (Self::SendNotification, "ResponseMessages") => Self::ResponseMessages,
                (Self::ResponseMessages, "SendNotificationResponseMessage") => Self::Message,
                (Self::Message, "Notification") => Self::Notification,
                _ => Self::Elsewhere,
            },
            (Some(Self::Notification), Some(TYPES), _) => match name {
                "SubscriptionId" => Self::SubscriptionId,
                "PreviousWatermark" => Self::PreviousWatermark,
                "MoreEvents" => Self::MoreEvents,
                "StatusEvent" => Self::StatusEvent,
                _ => Self::Event,
            },
            _ => Self::Elsewhere,
        }
    }
}

/// Reads a message: its notifications, one at least.
///
/// # Errors
///
/// [`Malformed`].
pub fn parse(body: &[u8]) -> Result<Vec<Notification>, Malformed> {
    let mut message = Message::default();
    walk(body, |node| message.visit(node))?;
    if message.notifications.is_empty() {
        return Err(Malformed::Shape);
    }
    Ok(message.notifications)
}

#[derive(Default)]
struct Message {
    notifications: Vec<Notification>,
    /// From the root to where the reader is.
    path: Vec<Place>,
    /// The text of the element that is read.
    text: String,
    /// The notification that is read.
    open: Open,
}

/// A notification of which the end is not yet read.
#[derive(Default)]
struct Open {
    subscription: Option<String>,
    previous_watermark: Option<String>,
    more_events: Option<String>,
    has_events: bool,
}

impl Message {
    fn visit(&mut self, node: Node<'_>) -> Result<(), Malformed> {
        match node {
            Node::Start { namespace, name } => self.start(namespace, name),
            Node::Text(text) => {
                if self.reads_text() {
                    self.text.push_str(text);
                    if self.text.len() > LONGEST {
                        return Err(Malformed::TooLarge);
                    }
                }
                Ok(())
            }
            Node::End => self.end(),
        }
    }

    fn reads_text(&self) -> bool {
        let place = self.path.last();
        place.is_some_and(|place| {
            matches!(place, Place::SubscriptionId | Place::PreviousWatermark | Place::MoreEvents)
        })
    }

    fn start(&mut self, namespace: Option<&str>, name: &str) -> Result<(), Malformed> {
        let place = Place::of(self.path.last().copied(), namespace, name);
        // Nothing else is an envelope, and no other place is one for an id.
        let stray = place == Place::Elsewhere && (self.path.is_empty() || name == "SubscriptionId");
        // The texts that are read have no elements in them.
        if stray || self.reads_text() {
            return Err(Malformed::Shape);
        }
        match place {
            Place::Notification => self.open = Open::default(),
            Place::Event => self.open.has_events = true,
            _ => {}
        }
        self.text.clear();
        self.path.push(place);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Malformed> {
        let text = || Some(self.text.trim_ascii().to_owned());
        let before = match self.path.pop() {
            Some(Place::SubscriptionId) => std::mem::replace(&mut self.open.subscription, text()),
            Some(Place::PreviousWatermark) => {
                std::mem::replace(&mut self.open.previous_watermark, text())
            }
            Some(Place::MoreEvents) => std::mem::replace(&mut self.open.more_events, text()),
            Some(Place::Notification) => {
                let open = std::mem::take(&mut self.open);
                self.notifications.push(open.close().ok_or(Malformed::Shape)?);
                if self.notifications.len() > MOST {
                    return Err(Malformed::TooLarge);
                }
                None
            }
            _ => None,
        };
        // Twice is once too often.
        if before.is_some() { Err(Malformed::Shape) } else { Ok(()) }
    }
}

impl Open {
    fn close(self) -> Option<Notification> {
        let subscription = self.subscription?;
        let is_id =
            !subscription.is_empty() && subscription.bytes().all(|byte| byte.is_ascii_graphic());
        let more_events = match self.more_events.as_deref() {
            None | Some("false" | "0") => false,
            Some("true" | "1") => true,
            Some(_) => return None,
        };
        is_id.then_some(Notification {
            subscription,
            previous_watermark: self.previous_watermark,
            more_events,
            only_status: !self.has_events,
        })
    }
}

#[cfg(test)]
pub(super) mod tests;
