//! XML from outside, read with limits.
//!
//! No document type and so no entities of its own, one root, all elements closed,
//! and neither deeper nor longer than any message of Exchange or answer of Pega.

use quick_xml::{
    Reader,
    escape::resolve_xml_entity,
    events::Event,
    name::{Namespace, NamespaceResolver, ResolveResult},
};

/// Deepest element. Notifications have eight levels.
const DEEPEST: usize = 32;
/// Most elements. A notification of 25 events has about 200.
const MOST: usize = 100_000;

/// Why it cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadXml {
    /// It is not well-formed XML in UTF-8.
    NotXml,
    /// It has a document type or an entity.
    Entity,
    /// It is deeper or longer than any that is meant.
    TooLarge,
}

/// A step through a document.
#[derive(Clone, Copy, Debug)]
pub(super) enum Node<'a> {
    /// An element begins.
    Start {
        /// Its namespace, if it has one.
        namespace: Option<&'a str>,
        /// Its name without prefix.
        name: &'a str,
    },
    /// Text, perhaps not all of it.
    Text(&'a str),
    /// The last element that began and did not end ends.
    End,
}

/// Walks through a document. What the visitor says first is the end of it.
pub(super) fn walk<E: From<BadXml>>(
    body: &[u8],
    mut visit: impl FnMut(Node<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let text = str::from_utf8(body).map_err(|_| BadXml::NotXml)?;
    // XML has no other control characters; the reader does not mind them.
    if has_control(body) {
        return Err(BadXml::NotXml.into());
    }
    let mut reader = Reader::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    reader.config_mut().expand_empty_elements = true;
    let mut namespaces = NamespaceResolver::default();
    let (mut depth, mut count) = (0_usize, 0_usize);
    loop {
        // Events are matched where they are: to move them costs as much as to read them.
        match reader.read_event() {
            Ok(Event::Start(element)) => {
                // There is one root.
                if depth == 0 && count > 0 {
                    return Err(BadXml::NotXml.into());
                }
                (depth, count) = (depth.saturating_add(1), count.saturating_add(1));
                if depth > DEEPEST || count > MOST {
                    return Err(BadXml::TooLarge.into());
                }
                // Few elements declare a namespace, and to look through the attributes of
                // all costs more than the rest of this.
                if element.contains("xmlns") {
                    namespaces.push(&element).map_err(|_| BadXml::NotXml)?;
                } else {
                    namespaces.set_level(namespaces.level().saturating_add(1));
                }
                let (namespace, name) = namespaces.resolve_element(element.name());
                let namespace = match namespace {
                    ResolveResult::Bound(Namespace(namespace)) => Some(namespace),
                    ResolveResult::Unbound => None,
                    ResolveResult::Unknown(_) => return Err(BadXml::NotXml.into()),
                };
                visit(Node::Start { namespace, name: name.into_inner() })?;
            }
            Ok(Event::End(_)) => {
                depth = depth.checked_sub(1).ok_or(BadXml::NotXml)?;
                namespaces.pop();
                visit(Node::End)?;
            }
            Ok(Event::Text(text)) if depth > 0 => visit(Node::Text(&text.into_inner()))?,
            Ok(Event::CData(text)) if depth > 0 => visit(Node::Text(&text.into_inner()))?,
            Ok(Event::Text(text)) if text.trim_ascii().is_empty() => {}
            Ok(Event::GeneralRef(reference)) if depth > 0 => {
                match reference.resolve_char_ref().map_err(|_| BadXml::NotXml)? {
                    Some(character) => visit(Node::Text(character.encode_utf8(&mut [0; 4])))?,
                    None => {
                        visit(Node::Text(resolve_xml_entity(&reference).ok_or(BadXml::Entity)?))?;
                    }
                }
            }
            Ok(Event::Decl(_) | Event::PI(_) | Event::Comment(_)) => {}
            Ok(Event::DocType(_)) => return Err(BadXml::Entity.into()),
            Ok(Event::Eof) if depth == 0 && count > 0 => return Ok(()),
            Ok(
                Event::Eof
                | Event::Text(_)
                | Event::CData(_)
                | Event::GeneralRef(_)
                | Event::Empty(_),
            )
            | Err(_) => return Err(BadXml::NotXml.into()),
        }
    }
}

/// Whether there is a control character that XML does not have.
fn has_control(body: &[u8]) -> bool {
    // Without a branch for each byte, many are looked at together.
    let is_control = |byte: &u8| (*byte < b' ') & !matches!(*byte, b'\t' | b'\n' | b'\r');
    body.chunks(64).any(|bytes| bytes.iter().fold(false, |found, byte| found | is_control(byte)))
}
