//! Uploads (distribution-spec, "Push"): blobs in one piece or several, manifests.

use std::io::{self, Read};

use anyhow::anyhow;
use oci_spec::image::Digest;
use ureq::http::header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use ureq::http::{Method, Response, StatusCode, Uri};

use super::http::{Ask, Content, redirect, same_server};
use super::{Failure, Fetched, Registry, unexpected};

/// An upload that has begun.
#[derive(Debug)]
pub struct Upload {
    /// Where it goes on: a URL of the registry's choice.
    location: Uri,
    /// So much has arrived.
    pub offset: u64,
}

impl Registry {
    /// Asks for tokens that allow to push.
    #[must_use]
    pub fn to_push(mut self) -> Self {
        self.scope += ",push";
        self
    }

    /// Tells whether something is there. What keeps the registry from saying so is told when it is pushed.
    pub fn has(&self, path: &str) -> Result<bool, Failure> {
        match self.request(&mut Ask { method: Method::HEAD, ..Ask::get(self.url(path)) }) {
            Err(Failure::Final(error)) => {
                log::debug!("look for {path}: {error:#}");
                Ok(false)
            }
            response => Ok(response?.status() == StatusCode::OK),
        }
    }

    /// Begins the upload of a blob. Where the registry takes it from another of its repositories, there is none.
    pub fn begin(&self, digest: &Digest, from: Option<&str>) -> Result<Option<Upload>, Failure> {
        let query = from.map_or_else(String::new, |from| format!("?mount={digest}&from={from}"));
        let home = self.url(&format!("blobs/uploads/{query}"));
        let content = Some(Content::new(io::empty(), 0));
        let response = self.request(&mut Ask { method: Method::POST, content, ..Ask::get(home.clone()) })?;
        match response.status() {
            StatusCode::CREATED if from.is_some() => check(&response, digest).map(|()| None),
            StatusCode::ACCEPTED => {
                let home = home.parse().map_err(|error| Failure::Final(anyhow!("{home}: {error}")))?;
                Ok(Some(Upload { location: self.location(&home, &response)?, offset: 0 }))
            }
            _ => Err(unexpected(response)),
        }
    }

    /// Sends `length` bytes from the upload's offset on, as one of several pieces or as all that is left. What has arrived
    /// is what the registry says, if it does.
    pub fn send(&self, upload: &mut Upload, piece: impl Read, length: u64, several: bool) -> Result<(), Failure> {
        let end = upload.offset + length;
        let mut headers = vec![(CONTENT_TYPE.as_str(), "application/octet-stream".to_owned())];
        if several || upload.offset > 0 {
            headers.push((CONTENT_RANGE.as_str(), format!("{}-{}", upload.offset, end.saturating_sub(1))));
        }
        let content = Some(Content::new(piece, length));
        let url = upload.location.to_string();
        let response = self.request_upload(Ask { method: Method::PATCH, headers, content, ..Ask::get(url) })?;
        match response.status() {
            StatusCode::ACCEPTED | StatusCode::CREATED | StatusCode::NO_CONTENT => self.go_on(upload, &response, end),
            _ => Err(unexpected(response)),
        }
    }

    /// Asks how much has arrived.
    pub fn resume(&self, upload: &mut Upload) -> Result<(), Failure> {
        let response = self.request_upload(Ask::get(upload.location.to_string()))?;
        if !response.status().is_success() {
            return Err(unexpected(response));
        }
        if !response.headers().contains_key(RANGE) {
            return Err(Failure::Final(anyhow!("the registry does not say how much has arrived")));
        }
        self.go_on(upload, &response, u64::MAX)
    }

    /// Ends an upload; `rest` is what has not been sent yet.
    pub fn finish(&self, upload: &Upload, digest: &Digest, rest: (impl Read, u64)) -> Result<(), Failure> {
        let (url, separator) = (upload.location.to_string(), if upload.location.query().is_some() { '&' } else { '?' });
        let headers = vec![(CONTENT_TYPE.as_str(), "application/octet-stream".to_owned())];
        let content = Some(Content::new(rest.0, rest.1));
        let url = format!("{url}{separator}digest={digest}");
        let response = self.request_upload(Ask { method: Method::PUT, headers, content, ..Ask::get(url) })?;
        self.stored(response, &format!("blobs/{digest}"), digest)
    }

    /// Puts a manifest or an index under a tag or its digest.
    pub fn put(&self, name: &str, document: &Fetched) -> anyhow::Result<()> {
        self.patience().retry(|| {
            let headers = vec![(CONTENT_TYPE.as_str(), document.descriptor.media_type().to_string())];
            let path = format!("manifests/{name}");
            let content = Some(Content::new(document.bytes.as_slice(), document.bytes.len() as u64));
            let ask = &mut Ask { method: Method::PUT, headers, content, ..Ask::get(self.url(&path)) };
            self.stored(self.request(ask)?, &path, document.descriptor.digest())
        })
    }

    /// Sends a part of an upload. Its place may be on another server, which gets no credentials.
    fn request_upload(&self, mut ask: Ask<'_>) -> Result<Response<ureq::Body>, Failure> {
        match ask.url.parse::<Uri>() {
            Ok(url) if same_server(&url, &self.base) => self.request(&mut ask),
            _ => self.client.send_once(&mut ask),
        }
    }

    fn location(&self, from: &Uri, response: &Response<ureq::Body>) -> Result<Uri, Failure> {
        let next = redirect(from, response.headers());
        let next = next.and_then(|next| self.client.check_clear(&self.base, &next).map(|()| next));
        next.map_err(|error| Failure::Final(error.context("where to upload")))
    }

    fn go_on(&self, upload: &mut Upload, response: &Response<ureq::Body>, sent: u64) -> Result<(), Failure> {
        if response.headers().contains_key(LOCATION) {
            upload.location = self.location(&upload.location, response)?;
        }
        let range = response.headers().get(RANGE).and_then(|range| range.to_str().ok());
        let end = range.and_then(|range| range.rsplit('-').next()?.trim().parse::<u64>().ok());
        // Nothing is 0-0, too, as one byte is.
        let arrived = end.map(|end| if end == 0 && sent != 1 { 0 } else { end.saturating_add(1) });
        upload.offset = arrived.map_or(sent, |arrived| arrived.min(sent));
        Ok(())
    }

    /// Checks that the registry has what it was given, and calls it the same. Other words than "created" are believed when
    /// it can be found.
    fn stored(&self, response: Response<ureq::Body>, path: &str, digest: &Digest) -> Result<(), Failure> {
        let status = response.status();
        if !status.is_success() {
            return Err(unexpected(response));
        }
        if status != StatusCode::CREATED && !self.has(path)? {
            return Err(Failure::Passing(anyhow!("the registry answers {status}, and has it not"), None));
        }
        check(&response, digest)
    }
}

fn check(response: &Response<ureq::Body>, digest: &Digest) -> Result<(), Failure> {
    let said = response.headers().get("docker-content-digest").and_then(|said| said.to_str().ok()?.parse().ok());
    match said.filter(|said: &Digest| said.algorithm() == digest.algorithm() && said != digest) {
        Some(said) => Err(Failure::Final(anyhow!("the registry calls it {said}"))),
        None => Ok(()),
    }
}
