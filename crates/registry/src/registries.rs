//! containers' registries.conf, version 2 (containers-registries.conf(5)): where a registry really is, its mirrors, what
//! is blocked, and short names.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use serde::Deserialize;

use layout::Reference;

use crate::credentials::variable;

/// What all files say together.
#[derive(Debug, Default)]
pub struct Registries {
    by_prefix: BTreeMap<String, Entry>,
    aliases: BTreeMap<String, String>,
}

/// A place to ask for an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The image, as that place calls it.
    pub reference: Reference,
    /// Any certificate will do, and plain http.
    pub insecure: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    registry: Vec<Entry>,
    aliases: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Entry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Mirror {
    location: String,
    insecure: bool,
    #[serde(rename = "pull-from-mirror")]
    used_for: Use,
}

/// For which references a mirror is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Use {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

impl Registries {
    /// Reads `file`, or `$CONTAINERS_REGISTRIES_CONF`, or else the user's or the system's file and the directories beside both.
    pub fn read(file: Option<&Path>) -> anyhow::Result<Self> {
        let chosen = file.map(Path::to_owned).or_else(|| variable("CONTAINERS_REGISTRIES_CONF"));
        let mut all = Self::default();
        for path in chosen.map_or_else(usual_files, |file| Ok(vec![file]))? {
            let text = fs::read_to_string(&path).map_err(anyhow::Error::from);
            text.and_then(|text| all.add(&text)).with_context(|| format!("read {}", path.display()))?;
        }
        Ok(all)
    }

    /// Adds a file: its entries take the place of earlier ones with the same prefix or name.
    fn add(&mut self, text: &str) -> anyhow::Result<()> {
        let file: File = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
            anyhow!("line {line}: {}", error.message())
        })?;
        for mut entry in file.registry {
            entry.location.truncate(entry.location.trim_end_matches('/').len());
            let prefix = if entry.prefix.is_empty() { &entry.location } else { &entry.prefix };
            let prefix = prefix.trim_end_matches('/').to_owned();
            ensure!(!prefix.is_empty(), "a registry with neither location nor prefix");
            // It could mean to block: better no pull at all than one that was forbidden.
            let is_name = !prefix.contains('@') && prefix.split_once('/').is_none_or(|(_, path)| !path.contains(':'));
            ensure!(is_name, "prefix {prefix}: a tag or digest in a prefix is not supported");
            if entry.location.is_empty() && !prefix.starts_with("*.") {
                entry.location.clone_from(&prefix);
            }
            for mirror in &mut entry.mirror {
                mirror.location.truncate(mirror.location.trim_end_matches('/').len());
                ensure!(!mirror.location.is_empty(), "a mirror of {prefix} without location");
                let is_consistent = !entry.mirror_by_digest_only || mirror.used_for == Use::All;
                ensure!(is_consistent, "{prefix}: mirror-by-digest-only and pull-from-mirror exclude each other");
            }
            self.by_prefix.insert(prefix, entry);
        }
        self.aliases.extend(file.aliases);
        Ok(())
    }

    /// Returns what a short name stands for. Without an alias that is docker's own registry, as docker has it: searching
    /// several registries would let whoever takes the name in one of them answer for another.
    pub fn expand(&self, reference: &Reference) -> anyhow::Result<Reference> {
        let alias =
            reference.short.as_ref().and_then(|short| self.aliases.get(short)).filter(|alias| !alias.is_empty());
        let Some(alias) = alias else { return Ok(reference.clone()) };
        let target: Reference =
            alias.parse().map_err(|cause| anyhow!("the alias {alias:?} is no reference: {cause}"))?;
        log::debug!("{} is short for {}", reference.short.as_deref().unwrap_or_default(), target.name());
        reference.at(&target.name()).map_err(|cause| anyhow!("the alias {alias:?} is no reference: {cause}"))
    }

    /// Returns where to ask, in order: the mirrors, then the registry itself.
    pub fn endpoints(&self, reference: &Reference) -> anyhow::Result<Vec<Endpoint>> {
        let prefixes = self.by_prefix.iter();
        let matching = prefixes.filter_map(|(prefix, entry)| Some((match_prefix(prefix, reference)?, prefix, entry)));
        let Some((length, prefix, entry)) = matching.max_by_key(|(_, prefix, _)| prefix.len()) else {
            return Ok(vec![Endpoint { reference: reference.clone(), insecure: false }]);
        };
        ensure!(!entry.blocked, "{prefix} is blocked in registries.conf");
        let rest = &reference.name()[length..];
        let place = |location: &str, insecure: bool| -> anyhow::Result<Endpoint> {
            let reference = if location.is_empty() {
                reference.clone()
            } else {
                reference
                    .at(&format!("{location}{rest}"))
                    .map_err(|cause| anyhow!("location {location:?} in registries.conf: {cause}"))?
            };
            Ok(Endpoint { reference, insecure })
        };
        let digest = reference.digest.is_some();
        let fits = |mirror: &&Mirror| match mirror.used_for {
            Use::All => digest || !entry.mirror_by_digest_only,
            Use::DigestOnly => digest,
            Use::TagOnly => !digest,
        };
        let mirrors = entry.mirror.iter().filter(fits).map(|mirror| (&mirror.location, mirror.insecure));
        let places = mirrors.chain([(&entry.location, entry.insecure)]);
        places.map(|(location, insecure)| place(location, insecure)).collect()
    }
}

/// Returns how much of registry and repository a prefix takes, if it is one: whole components, or any host below `*.`.
fn match_prefix(prefix: &str, reference: &Reference) -> Option<usize> {
    if let Some(domain) = prefix.strip_prefix('*') {
        return (reference.registry.len() > domain.len() && reference.registry.ends_with(domain))
            .then_some(reference.registry.len());
    }
    let name = reference.name();
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())
}

/// The user's file or else the system's, then the system's directory, then the user's; in each by name.
fn usual_files() -> anyhow::Result<Vec<PathBuf>> {
    let (user, system) = (cli::config_home().join("containers"), PathBuf::from("/etc/containers"));
    let main = [&user, &system].map(|directory| directory.join("registries.conf"));
    let mut files: Vec<PathBuf> = main.into_iter().find(|file| file.exists()).into_iter().collect();
    for directory in [system, user] {
        let directory = directory.join("registries.conf.d");
        let entries = match fs::read_dir(&directory) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            entries => entries.with_context(|| format!("read {}", directory.display()))?,
        };
        let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        found.retain(|path| path.extension().is_some_and(|extension| extension == "conf") && path.is_file());
        found.sort();
        files.extend(found);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = r#"
        unqualified-search-registries = ["quay.io"]
        [[registry]]
        location = "docker.io"
        [[registry.mirror]]
        location = "mirror.io/hub"
        [[registry.mirror]]
        location = "127.0.0.1:1"
        insecure = true
        pull-from-mirror = "digest-only"
        [[registry]]
        prefix = "docker.io/library/secret"
        blocked = true
        [[registry]]
        prefix = "old.io/a"
        location = "new.io/b/c"
        insecure = true
        [[registry]]
        prefix = "*.corp"
        location = "proxy.io/corp"
        [[registry]]
        location = "pinned.io"
        mirror-by-digest-only = true
        mirror = [{location = "m.io"}]
        [aliases]
        "tool" = "quay.io/team/tool"
        "gone" = ""
    "#;
    const DIGEST: &str = "sha256:6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b";

    fn registries() -> Registries {
        let mut registries = Registries::default();
        registries.add(CONF).unwrap();
        registries
    }

    #[test]
    fn references_are_asked_for_at_mirrors_and_locations() {
        let digest = |name: &str| format!("{name}@{DIGEST}");
        for (reference, want) in [
            ("nginx".to_owned(), vec!["mirror.io/hub/library/nginx:latest", "docker.io/library/nginx:latest"]),
            ("secretly".to_owned(), vec!["mirror.io/hub/library/secretly:latest", "docker.io/library/secretly:latest"]),
            ("old.io/a/x:1".to_owned(), vec!["new.io/b/c/x:1 insecure"]),
            ("old.io/ab/x:1".to_owned(), vec!["old.io/ab/x:1"]),
            ("a.b.corp/x:1".to_owned(), vec!["proxy.io/corp/x:1"]),
            ("corp.io/x:1".to_owned(), vec!["corp.io/x:1"]),
            ("pinned.io/x:1".to_owned(), vec!["pinned.io/x:1"]),
            (digest("pinned.io/x"), vec![&digest("m.io/x"), &digest("pinned.io/x")]),
            (
                digest("nginx"),
                vec![
                    &digest("mirror.io/hub/library/nginx"),
                    &format!("{} insecure", digest("127.0.0.1:1/library/nginx")),
                    &digest("docker.io/library/nginx"),
                ],
            ),
        ] {
            let endpoints = registries().endpoints(&reference.parse().unwrap()).unwrap();
            let shown = |endpoint: &Endpoint| {
                format!("{}{}", endpoint.reference, if endpoint.insecure { " insecure" } else { "" })
            };
            assert_eq!(endpoints.iter().map(shown).collect::<Vec<_>>(), want, "{reference}");
        }
        let blocked = registries().endpoints(&"secret:1".parse().unwrap()).unwrap_err();
        assert_eq!(blocked.to_string(), "docker.io/library/secret is blocked in registries.conf");
    }

    #[test]
    fn an_alias_stands_for_a_short_name_only() {
        for (reference, want) in [
            ("tool:2", "quay.io/team/tool:2"),
            ("docker.io/library/tool", "docker.io/library/tool:latest"),
            ("gone", "docker.io/library/gone:latest"),
            ("other/tool", "docker.io/other/tool:latest"),
        ] {
            assert_eq!(registries().expand(&reference.parse().unwrap()).unwrap().to_string(), want);
        }
    }

    #[test]
    fn a_later_file_replaces_and_a_wrong_one_names_its_line() {
        let mut registries = registries();
        registries.add("[[registry]]\nlocation = 'docker.io'\nblocked = true\n[aliases]\ntool = 'a.io/b'").unwrap();
        assert!(registries.endpoints(&"nginx".parse().unwrap()).is_err());
        assert_eq!(registries.expand(&"tool".parse().unwrap()).unwrap().to_string(), "a.io/b:latest");
        let wrong = registries.add("a = 1\n[[registry]]\nlocation = 5\n").unwrap_err().to_string();
        assert!(wrong.starts_with("line 3: "), "{wrong}");
        assert!(registries.add("[[registry]]\nblocked = true\n").is_err());
    }
}
