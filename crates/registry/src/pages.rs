//! Lists that come in pages (distribution-spec, "Listing Tags", "Listing Referrers").

use anyhow::{Context, ensure};
use layout::{Document, MANIFEST_LIMIT};
use oci_spec::image::{Digest, MediaType};
use serde_json::Value;
use ureq::http::header::LINK;

use crate::http::read_body;
use crate::{ACCEPT, Fetched, Registry, passing_if_cut};

/// Tags of one repository, all together. Bytes.
const TAGS_LIMIT: u64 = 16 << 20;

/// One page, and the path of the next one.
struct Page {
    body: Vec<u8>,
    next: Option<String>,
}

impl Registry {
    /// Returns all tags of the repository.
    pub fn tags(&self) -> anyhow::Result<Vec<String>> {
        let mut tags = Vec::new();
        let mut path = "tags/list".to_owned();
        let mut left = TAGS_LIMIT;
        loop {
            let page = self.page(&path, "the tags", left)?.context("not found")?;
            left -= page.body.len() as u64;
            let list: Value = serde_json::from_slice(&page.body).context("read the tags")?;
            let names = list.get("tags").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            tags.extend(names.iter().filter_map(Value::as_str).map(str::to_owned));
            match page.next {
                Some(next) if !names.is_empty() && next != path => path = next,
                _ => return Ok(tags),
            }
        }
    }

    /// Returns the index of what refers to a manifest, by the API or by its tag. Several pages become one index.
    pub fn referrers(&self, digest: &Digest) -> anyhow::Result<Option<Vec<u8>>> {
        for path in [format!("referrers/{digest}"), format!("manifests/{}", layout::referrers_tag(digest))] {
            let Some(page) = self.page(&path, "the referrers", MANIFEST_LIMIT)? else { continue };
            // Some registries answer any path with a page for people.
            if is_index(&page.body) {
                return self.whole_index(page, path).map(Some);
            }
        }
        Ok(None)
    }

    /// Puts an index of what refers to a manifest under its tag, together with what the registry has there.
    pub fn put_referrers(&self, tag: &str, index: &Fetched) -> anyhow::Result<()> {
        let there = self.tagged(tag)?.filter(|there| is_index(&there.bytes));
        let bytes = there.map_or_else(|| Ok(index.bytes.clone()), |there| join(&there.bytes, &index.bytes))?;
        self.put(tag, &Fetched::new(bytes, MediaType::ImageIndex.as_ref(), None)?)
    }

    fn whole_index(&self, first: Page, mut path: String) -> anyhow::Result<Vec<u8>> {
        let Page { mut body, mut next } = first;
        let mut left = MANIFEST_LIMIT.saturating_sub(body.len() as u64);
        while let Some(following) = next.filter(|next| *next != path) {
            let page = self.page(&following, "the referrers", left)?.context("a page of the referrers is not found")?;
            ensure!(is_index(&page.body), "a page of the referrers is no index");
            left -= page.body.len() as u64;
            body = join(&body, &page.body).context("read the referrers")?;
            (path, next) = (following, page.next);
        }
        Ok(body)
    }

    /// Fetches one page, if the registry knows of such lists. The next one is asked for below the same path, whatever
    /// host and path its link names.
    fn page(&self, path: &str, what: &str, limit: u64) -> anyhow::Result<Option<Page>> {
        let headers = vec![("accept", ACCEPT.to_owned())];
        self.patience().retry(|| {
            let Some(response) = self.find(path, &headers)? else { return Ok(None) };
            let link = response.headers().get(LINK).and_then(|link| link.to_str().ok());
            let bare = path.split('?').next().unwrap_or_default();
            let next = link.and_then(next_query).map(|query| format!("{bare}?{query}"));
            Ok(Some(Page { body: read_body(response, limit, what).map_err(passing_if_cut)?, next }))
        })
    }
}

fn is_index(body: &[u8]) -> bool {
    matches!(Document::media_type(body), MediaType::ImageIndex)
}

/// Adds the manifests of one index to another.
fn join(index: &[u8], more: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut index: Value = serde_json::from_slice(index)?;
    let more: Value = serde_json::from_slice(more)?;
    if let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) {
        let more = more.get("manifests").and_then(Value::as_array).into_iter().flatten();
        let new: Vec<Value> = more.filter(|entry| !manifests.contains(entry)).cloned().collect();
        manifests.extend(new);
    }
    Ok(serde_json::to_vec(&index)?)
}

/// Returns the query of the next page (RFC 8288).
fn next_query(link: &str) -> Option<&str> {
    let (url, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    parameters.contains("next").then(|| url.split_once('?'))?.map(|(_, query)| query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_stay_in_the_repository() {
        for (link, want) in [
            ("</v2/x/tags/list?last=b&n=2>; rel=\"next\"", Some("last=b&n=2")),
            ("<https://evil/steal?n=1>; rel=next", Some("n=1")),
            ("</v2/x/tags/list>; rel=\"next\"", None),
            ("</v2/x/tags/list?n=1>; rel=\"prev\"", None),
            ("garbage", None),
        ] {
            assert_eq!(next_query(link), want, "{link}");
        }
    }

    #[test]
    fn pages_become_one_index() {
        let page =
            |name: &str| format!(r#"{{"schemaVersion":2,"manifests":["{name}"],"annotations":{{"of":"{name}"}}}}"#);
        let joined = join(page("a").as_bytes(), page("b").as_bytes()).unwrap();
        let want = r#"{"schemaVersion":2,"manifests":["a","b"],"annotations":{"of":"a"}}"#;
        assert_eq!(String::from_utf8(joined).unwrap(), want);
        assert!(join(b"{", b"{}").is_err());
    }
}
