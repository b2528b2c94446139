//! An image in registries: its mirrors and the registry itself, each of which may have all of it, a part, or break down.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use oci_spec::image::{Descriptor, Digest};
use registry::{Access, Body, Endpoint, Failure, Fetched, Patience, Registry};

use crate::reference::Reference;

/// The places that may have an image, from the first that gave its manifest on.
pub(crate) struct Remote<'a> {
    access: &'a Access,
    places: Vec<Place>,
    /// The first place that has not broken down.
    current: AtomicUsize,
    root: Fetched,
}

struct Place {
    endpoint: Endpoint,
    registry: OnceLock<Registry>,
}

impl Place {
    fn connect(&self, access: &Access) -> anyhow::Result<&Registry> {
        if let Some(registry) = self.registry.get() {
            return Ok(registry);
        }
        let registry = Registry::connect(&self.endpoint, access)?;
        Ok(self.registry.get_or_init(|| registry))
    }
}

/// Returns the places to ask for an image, mirrors first.
fn places(reference: &Reference, access: &Access) -> anyhow::Result<Vec<Place>> {
    let endpoints = access.registries()?.endpoints(reference)?.into_iter();
    Ok(endpoints.map(|endpoint| Place { endpoint, registry: OnceLock::new() }).collect())
}

impl<'a> Remote<'a> {
    /// Asks the mirrors, then the registry, until one gives the manifest or index that the reference names.
    pub(crate) fn open(reference: &Reference, access: &'a Access) -> anyhow::Result<Self> {
        let mut places = places(reference, access)?;
        let (found, root) = first(&places, access, |registry| registry.root().map(Some))?.context("no place to ask")?;
        places.drain(..found);
        Ok(Self { access, places, current: AtomicUsize::new(0), root })
    }

    /// Returns what the reference names.
    pub(crate) fn root(&self) -> &Fetched {
        &self.root
    }

    /// Fetches a manifest or index by its descriptor, checked.
    pub(crate) fn document(&self, descriptor: &Descriptor) -> anyhow::Result<Vec<u8>> {
        self.ask(|registry| registry.document(descriptor).map(Some))?.context("no place to ask")
    }

    /// Fetches the manifest with a tag in the same repository, if there is one.
    pub(crate) fn tagged(&self, tag: &str) -> anyhow::Result<Option<Fetched>> {
        self.ask(|registry| registry.tagged(tag))
    }

    /// Fetches the index of what refers to a manifest, if there is one.
    pub(crate) fn referrers(&self, digest: &Digest) -> anyhow::Result<Option<Vec<u8>>> {
        self.ask(|registry| registry.referrers(digest))
    }

    fn ask<T>(&self, ask: impl Fn(&Registry) -> anyhow::Result<Option<T>>) -> anyhow::Result<Option<T>> {
        let places = self.places.get(self.first_place()..).unwrap_or_default();
        Ok(first(places, self.access, ask)?.map(|(_, answer)| answer))
    }

    /// Begins the transfer of a blob from a place.
    pub(crate) fn blob(&self, place: usize, descriptor: &Descriptor, offset: u64) -> Result<Body, Failure> {
        let place = self.places.get(place).context("no place to ask").map_err(Failure::Final)?;
        place.connect(self.access).map_err(Failure::Final)?.open(descriptor, offset)
    }

    /// Returns the place where blobs are asked for first.
    pub(crate) fn first_place(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// Returns the place to ask after one that did not give a blob; who has `broken` down is not asked again.
    pub(crate) fn next_place(&self, place: usize, broken: bool, error: &anyhow::Error) -> Option<usize> {
        let next = place + 1;
        self.places.get(next)?;
        log::warn!("mirror {}: {error:#}", self.places[place].endpoint.reference.name());
        if broken {
            self.current.fetch_max(next, Ordering::Relaxed);
        }
        Some(next)
    }

    /// Returns how long to try.
    pub(crate) fn patience(&self) -> Patience {
        self.access.network.patience()
    }
}

/// Asks one place after the other until one has an answer. The failure of the last one is the user's, unless another has
/// said that there is nothing.
fn first<T>(
    places: &[Place],
    access: &Access,
    ask: impl Fn(&Registry) -> anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<(usize, T)>> {
    let mut nothing = false;
    for (index, place) in places.iter().enumerate() {
        match place.connect(access).and_then(&ask) {
            Ok(Some(answer)) => return Ok(Some((index, answer))),
            Ok(None) => nothing = true,
            Err(error) if index + 1 == places.len() && !nothing => return Err(error),
            Err(error) => log::warn!("mirror {}: {error:#}", place.endpoint.reference.name()),
        }
    }
    Ok(None)
}

/// Asks the mirrors of a repository, then the registry, for its tags.
pub(crate) fn tags(reference: &Reference, access: &Access) -> anyhow::Result<Vec<String>> {
    let found = first(&places(reference, access)?, access, |registry| registry.tags().map(Some))?;
    Ok(found.context("no place to ask")?.1)
}
