//! Reading the feeds of single sources: files, URLs, names and service tags.

use std::{
    io::{self, Read as _},
    path::Path,
    time::Duration,
};

use aws_lc_rs::digest;

use super::{
    Definition, Entry, List, Location, Origin, dns,
    feed::{Collected, Content, Error, Revision},
    fetch::{self, Fetched},
    list,
    microsoft365::{MAX_BYTES, Malformed},
    service_tags,
};

/// How long a file has to rest before it is believed: an editor may be at it.
const REST: Duration = Duration::from_millis(300);
/// How often it may turn out to be changing.
const RESTS: usize = 10;

/// Polls the feed of a source.
///
/// `held` is its content in force with its revision, and `timeout` the limit for
/// one request.
///
/// # Errors
///
/// See [`Error`].
pub async fn read(
    definition: &Definition,
    held: (Option<&Revision>, &[Entry]),
    proxy: Option<fetch::Proxy>,
    timeout: Duration,
) -> Result<Collected, Error> {
    let (applied, before) = held;
    let List { location, ca_file, parse } = match definition.list() {
        Some(list) => list,
        None => {
            let Definition::Dns { names, servers } = definition else {
                // Without a feed there is nothing to read.
                let revision = applied.cloned().unwrap_or(Revision::Tag(String::new()));
                return Ok(Collected::Unchanged { revision, valid_for: None });
            };
            let resolved = dns::resolve(names, servers, timeout, before).await?;
            for problem in &resolved.failed {
                tracing::warn!(problem, "the last addresses of a name stay");
            }
            let Content::Entries(entries) = Content::of_entries(resolved.entries) else {
                return Err(dns::Error::Unresolved("no entries".to_owned()).into());
            };
            let texts: String = entries.iter().map(|entry| format!("{}\n", entry.prefix)).collect();
            let revision = Revision::Tag(fingerprint(texts.as_bytes()));
            let valid_for = Some(resolved.valid_for);
            return Ok(if applied == Some(&revision) {
                Collected::Unchanged { revision, valid_for }
            } else {
                Collected::New { revision, content: Content::Entries(entries), valid_for }
            });
        }
    };
    let (body, revision) = match &location {
        Location::File(path) => {
            let body = read_settled(path, parse.limit()).await?;
            let revision = Revision::Tag(fingerprint(&body));
            (body, revision)
        }
        Location::Url(url) => {
            let options = fetch::Options { ca_file: ca_file.cloned(), proxy, timeout };
            let client = fetch::Client::new(&options)?;
            let tag = match applied {
                Some(Revision::Tag(tag)) => tag.strip_prefix("etag ").map(str::to_owned),
                _ => None,
            };
            match client.get_unless(url.uri(), tag.as_deref(), parse.limit()).await? {
                Fetched::Unchanged => {
                    let revision = Revision::Tag(format!("etag {}", tag.unwrap_or_default()));
                    return Ok(Collected::Unchanged { revision, valid_for: None });
                }
                Fetched::Body { body, tag: Some(tag) } => {
                    (body.to_vec(), Revision::Tag(format!("etag {tag}")))
                }
                Fetched::Body { body, tag: None } => {
                    let revision = Revision::Tag(fingerprint(&body));
                    (body.to_vec(), revision)
                }
            }
        }
    };
    if applied == Some(&revision) {
        return Ok(Collected::Unchanged { revision, valid_for: None });
    }
    let of = location.to_string();
    let content =
        parse.parse(&body, &location).map_err(|problem| Error::Malformed { of, problem })?;
    Ok(Collected::New { revision, content, valid_for: None })
}

/// How a body becomes entries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Parse<'a> {
    /// A plain list, or these sources of an export.
    List(&'a [String]),
    /// These service tags.
    ServiceTags(&'a [String]),
}

impl Parse<'_> {
    const fn limit(self) -> usize {
        match self {
            Self::List(_) => MAX_BYTES,
            Self::ServiceTags(_) => service_tags::MAX_BYTES,
        }
    }

    fn parse(self, body: &[u8], location: &Location) -> Result<Content, Malformed> {
        let entries = match self {
            Self::List(sources) => {
                let origin = match location {
                    Location::File(path) => Origin::File { path: path.to_string_lossy().into() },
                    Location::Url(url) => Origin::Url { url: url.to_string().into() },
                };
                list::parse(body, sources)?
                    .into_iter()
                    .map(|prefix| Entry { prefix, origin: origin.clone() })
                    .collect()
            }
            Self::ServiceTags(tags) => service_tags::parse(body, tags)?.1,
        };
        Ok(Content::of_entries(entries))
    }
}

/// Reads what was given by hand as the content of a source.
///
/// # Errors
///
/// See [`Malformed`]; also if the source has no list.
pub fn import(definition: &Definition, body: &[u8]) -> Result<(Revision, Content), Malformed> {
    let list = definition.list().ok_or_else(|| {
        Malformed::Shape("the source has no list that could be imported".to_owned())
    })?;
    let content = list.parse.parse(body, &list.location)?;
    Ok((Revision::Tag(fingerprint(body)), content))
}

/// Reads a file of at most `limit` bytes once it has stopped changing.
async fn read_settled(path: &Path, limit: usize) -> Result<Vec<u8>, Error> {
    let failed = |problem: io::Error| Error::File {
        path: path.display().to_string(),
        problem: problem.to_string(),
    };
    let mut body = read_file(path, limit).map_err(failed)?;
    for _ in 0..RESTS {
        let age = std::fs::metadata(path).and_then(|data| data.modified()).ok();
        let age = age.and_then(|modified| modified.elapsed().ok());
        if age.is_some_and(|age| age > REST) {
            break;
        }
        tokio::time::sleep(REST).await;
        let again = read_file(path, limit).map_err(failed)?;
        if std::mem::replace(&mut body, again) == body {
            break;
        }
    }
    if body.len() > limit {
        let problem = Malformed::TooLarge(format!("more than {limit} bytes"));
        return Err(Error::Malformed { of: path.display().to_string(), problem });
    }
    Ok(body)
}

/// One byte more than the limit, if there is as much.
fn read_file(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut body = Vec::new();
    std::fs::File::open(path)?.take(most).read_to_end(&mut body)?;
    Ok(body)
}

/// The beginning of a digest, in hexadecimal.
pub(crate) fn fingerprint(bytes: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::fetch::stand_in::{Server, answer};

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn file(path: &Path) -> Definition {
        Definition::File { path: path.to_owned(), allow_private: false }
    }

    async fn poll(definition: &Definition, applied: Option<&Revision>) -> Result<Collected, Error> {
        read(definition, (applied, &[]), None, TIMEOUT).await
    }

    fn new(collected: Collected) -> (Revision, usize) {
        match collected {
            Collected::New { revision, content, .. } => (revision, content.entries().len()),
            Collected::Unchanged { revision, .. } => panic!("{revision} is still the latest"),
        }
    }

    #[tokio::test]
    async fn a_file_is_new_whenever_its_content_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("probes.txt");
        assert_eq!(poll(&file(&path), None).await.unwrap_err().name(), "file");
        std::fs::write(&path, "40.1.0.0/16\n").unwrap();
        let (first, count) = new(poll(&file(&path), None).await.unwrap());
        assert_eq!(count, 1);
        let again = poll(&file(&path), Some(&first)).await.unwrap();
        assert!(matches!(again, Collected::Unchanged { .. }));
        // Replaced in one step, as editors and configuration management do.
        let other = directory.path().join("new");
        std::fs::write(&other, "40.1.0.0/16\n40.2.0.0/16 # another\n").unwrap();
        std::fs::rename(&other, &path).unwrap();
        let (second, count) = new(poll(&file(&path), Some(&first)).await.unwrap());
        assert_eq!(count, 2);
        assert_ne!(first, second);
    }

    #[tokio::test]
    async fn a_file_that_is_being_written_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("probes.txt");
        std::fs::write(&path, "40.1.0.0/16\n").unwrap();
        let writer = {
            let path = path.clone();
            tokio::spawn(async move {
                tokio::time::sleep(REST / 3).await;
                std::fs::write(&path, "40.1.0.0/16\n40.2.0.0/16\n").unwrap();
            })
        };
        let (_, count) = new(poll(&file(&path), None).await.unwrap());
        writer.await.unwrap();
        assert_eq!(count, 2);
    }

    #[tokio::test]
    async fn a_file_beyond_the_limit_is_refused() {
        let file_ = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file_.path(), vec![b'\n'; MAX_BYTES + 1]).unwrap();
        let error = poll(&file(file_.path()), None).await.unwrap_err();
        assert_eq!(error.name(), "too_large");
        assert!(error.is_refusal());
    }

    fn url(server: &Server) -> Definition {
        Definition::Url {
            url: format!("{}/list.txt", server.base_url()).as_str().try_into().unwrap(),
            ca_file: server.options().ca_file,
            sources: vec![],
            interval: None,
        }
    }

    #[tokio::test]
    async fn a_list_that_its_server_calls_unchanged_is_not_read_again() {
        let list = answer("200 OK", "ETag: \"one\"\r\n", "40.1.0.0/16\n");
        let unchanged = "HTTP/1.1 304 Not Modified\r\nETag: \"one\"\r\n\r\n".to_owned();
        let server = Server::start(&[list, unchanged], false).await;
        let (revision, count) = new(poll(&url(&server), None).await.unwrap());
        assert_eq!((revision.to_string().as_str(), count), ("etag \"one\"", 1));
        let again = poll(&url(&server), Some(&revision)).await.unwrap();
        assert_eq!(again, Collected::Unchanged { revision, valid_for: None });
        assert!(server.heads()[1].to_lowercase().contains("if-none-match: \"one\""));
    }

    #[tokio::test]
    async fn without_an_entity_tag_the_content_tells() {
        let list = |body: &str| answer("200 OK", "", body);
        let script = [list("40.1.0.0/16\n"), list("40.1.0.0/16\n"), list("40.2.0.0/16\n")];
        let server = Server::start(&script, false).await;
        let (revision, _) = new(poll(&url(&server), None).await.unwrap());
        let again = poll(&url(&server), Some(&revision)).await.unwrap();
        assert!(matches!(again, Collected::Unchanged { .. }));
        new(poll(&url(&server), Some(&revision)).await.unwrap());
    }

    #[tokio::test]
    async fn a_page_instead_of_a_list_is_refused() {
        let server = Server::start(&[answer("200 OK", "", "<html>")], false).await;
        let error = poll(&url(&server), None).await.unwrap_err();
        assert_eq!(error.name(), "malformed");
        assert!(error.is_refusal() && error.to_string().contains("line 1"), "{error}");
    }
}
