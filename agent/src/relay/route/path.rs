//! The one form of a path.

use std::borrow::Cow;

use super::BadTarget;

/// Brings a path into the form that is checked, stored and forwarded: escapes of
/// characters that need none are decoded, all others are in upper case. A path
/// that anybody could take for another one is refused.
pub(super) fn normalise(path: &str) -> Result<Cow<'_, str>, BadTarget> {
    let path = if path.contains('%') { decode(path)?.into() } else { Cow::Borrowed(path) };
    check(&path)?;
    Ok(path)
}

fn decode(path: &str) -> Result<String, BadTarget> {
    let mut decoded = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = digit().zip(digit()).ok_or(BadTarget::Escape)?;
                u8::try_from(high << 4 | low).map_err(|_| BadTarget::Escape)?
            }
            _ if byte.is_ascii_graphic() => {
                decoded.push(char::from(byte));
                continue;
            }
            _ => return Err(BadTarget::Byte),
        };
        match byte {
            b'-' | b'.' | b'_' | b'~' => decoded.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => decoded.push(char::from(byte)),
            // Servers differ in whether these, once decoded, separate something,
            // and in how often they decode.
            b'/' | b'\\' | b';' | b'%' => return Err(BadTarget::Encoded),
            b' '..=b'~' => decoded.push_str(&format!("%{byte:02X}")),
            _ => return Err(BadTarget::Byte),
        }
    }
    Ok(decoded)
}

fn check(path: &str) -> Result<(), BadTarget> {
    for byte in path.bytes() {
        match byte {
            // Some take it for a slash.
            b'\\' => return Err(BadTarget::Backslash),
            // Servlet containers cut it off, with what follows.
            b';' => return Err(BadTarget::PathParameter),
            _ if byte.is_ascii_graphic() => {}
            _ => return Err(BadTarget::Byte),
        }
    }
    let mut segments = path.strip_prefix('/').ok_or(BadTarget::Form)?.split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." | ".." => return Err(BadTarget::DotSegment),
            "" if segments.peek().is_some() => return Err(BadTarget::EmptySegment),
            _ => {}
        }
    }
    Ok(())
}
