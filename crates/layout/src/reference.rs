//! Docker's references (distribution/reference): `nginx` is docker.io/library/nginx:latest.

use std::fmt;
use std::str::FromStr;

use oci_spec::image::Digest;

/// Docker's own registry, as references name it.
pub const DOCKER_HUB: &str = "docker.io";
/// Longest repository name with its registry. Characters.
const LONGEST_NAME: usize = 255;
const LONGEST_TAG: usize = 128;

/// A normalised reference: a registry, a repository, and a tag, a digest or both.
#[derive(Clone, Debug, Eq)]
pub struct Reference {
    /// Host and port.
    pub registry: String,
    /// The path below the registry.
    pub repository: String,
    /// The tag; `latest` where neither tag nor digest was given.
    pub tag: Option<String>,
    /// The digest that the manifest or index must have.
    pub digest: Option<Digest>,
    /// The repository as it was written, where no registry was: an alias may stand for it.
    pub short: Option<String>,
}

/// How it was written does not matter.
impl PartialEq for Reference {
    fn eq(&self, other: &Self) -> bool {
        let parts = |it: &Self| (it.registry.clone(), it.repository.clone(), it.tag.clone(), it.digest.clone());
        parts(self) == parts(other)
    }
}

impl Reference {
    /// Returns the same repository with another tag.
    #[must_use]
    pub fn with_tag(&self, tag: &str) -> Self {
        Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() }
    }

    /// Returns the same tag and digest of another repository, which is written with its registry in full.
    pub fn at(&self, location: &str) -> Result<Self, String> {
        let (registry, path) = location.split_once('/').ok_or_else(|| format!("{location:?} has no repository"))?;
        check_registry(registry)?;
        check_repository(path)?;
        let (registry, repository) = (registry.to_owned(), path.to_owned());
        Ok(Self { registry, repository, short: None, ..self.clone() })
    }

    /// Returns registry and repository.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, digest) = text.split_once('@').map_or((text, None), |(rest, digest)| (rest, Some(digest)));
        let digest = digest.map(parse_digest).transpose()?;
        if rest.len() == 64 && rest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err("64 hexadecimal digits are an id, not a name".to_owned());
        }
        let (registry, path) = split_registry(rest);
        let short = path.len() == rest.len();
        let (path, tag) = path.rsplit_once(':').map_or((path, None), |(path, tag)| (path, Some(tag)));
        let tag = tag.map(parse_tag).transpose()?;
        let short = short.then(|| path.to_owned());
        let registry = if registry == "index.docker.io" { DOCKER_HUB } else { registry };
        check_registry(registry)?;
        check_repository(path)?;
        let official = registry == DOCKER_HUB && !path.contains('/');
        let repository = if official { format!("library/{path}") } else { path.to_owned() };
        if registry.len() + 1 + repository.len() > LONGEST_NAME {
            return Err(format!("the name is longer than {LONGEST_NAME} characters"));
        }
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self { registry: registry.to_owned(), repository, tag, digest, short })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

/// The first component is a registry if it looks like a host: a dot, a port, an upper case letter, or `localhost`.
fn split_registry(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((host, path))
            if host == "localhost"
                || host.contains(['.', ':'])
                || host.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (host, path)
        }
        _ => (DOCKER_HUB, text),
    }
}

fn check_registry(registry: &str) -> Result<(), String> {
    let wrong = || format!("{registry:?} is not a registry's host");
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or_else(wrong)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
            (None, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(wrong)?) })
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(registry), None),
        },
    };
    let label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        !label.is_empty() && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    let port_fits =
        port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok());
    if host.is_none_or(|host| host.split('.').all(label)) && port_fits { Ok(()) } else { Err(wrong()) }
}

/// path-component := [a-z0-9]+ (('.' | '_' | '__' | '-'+) [a-z0-9]+)*
fn check_repository(path: &str) -> Result<(), String> {
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("repository names are lower case".to_owned());
    }
    let component = |component: &str| {
        let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let edges =
            component.bytes().next().is_some_and(alphanumeric) && component.bytes().last().is_some_and(alphanumeric);
        let mut separators = component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        edges
            && separators.all(|between| matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-'))
    };
    if path.split('/').all(component) { Ok(()) } else { Err(format!("{path:?} is not a repository's name")) }
}

fn parse_tag(tag: &str) -> Result<String, String> {
    let mut bytes = tag.bytes();
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let well_formed = bytes.next().is_some_and(word) && bytes.all(|byte| word(byte) || matches!(byte, b'.' | b'-'));
    if well_formed && tag.len() <= LONGEST_TAG { Ok(tag.to_owned()) } else { Err(format!("{tag:?} is not a tag")) }
}

fn parse_digest(text: &str) -> Result<Digest, String> {
    let digest = Digest::from_str(text).map_err(|_| format!("{text:?} is not a digest"))?;
    match digest.algorithm().as_ref() {
        "sha256" | "sha512" => Ok(digest),
        other => Err(format!("digest algorithm {other} is not supported")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b";

    #[test]
    fn references_are_normalised_as_docker_does() {
        for (text, want) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.25", "docker.io/library/nginx:1.25"),
            ("library/nginx", "docker.io/library/nginx:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("user/image", "docker.io/user/image:latest"),
            ("a/b/c", "docker.io/a/b/c:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x:y", "localhost:5000/x:y"),
            ("host:5000/x", "host:5000/x:latest"),
            ("quay.io/a/b:c.d-e_F", "quay.io/a/b:c.d-e_F"),
            ("UPPER/x", "UPPER/x:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            ("[2001:db8::1]/x", "[2001:db8::1]/x:latest"),
            ("127.0.0.1:5000/a__b/c.d/e---f/0", "127.0.0.1:5000/a__b/c.d/e---f/0:latest"),
            ("nginx:_x", "docker.io/library/nginx:_x"),
            ("xn--7o8h.com/x", "xn--7o8h.com/x:latest"),
        ] {
            assert_eq!(text.parse::<Reference>().map(|reference| reference.to_string()), Ok(want.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_digest_goes_with_a_tag_or_without() {
        for (text, tag) in [
            (format!("nginx@sha256:{HEX}"), None),
            (format!("nginx:1@sha256:{HEX}"), Some("1".to_owned())),
            (format!("host:1/nginx@sha512:{HEX}{HEX}"), None),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!((reference.tag.clone(), reference.digest.is_some()), (tag, true), "{text}");
            assert_eq!(reference.to_string().parse(), Ok(reference));
        }
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        let long = "a".repeat(129);
        for text in [
            "",
            ":",
            "@",
            "/",
            "nginx:",
            "nginx@",
            "Nginx",
            "a/B",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a-",
            "a.",
            "a..b",
            "a___b",
            "a._b",
            "a b",
            "a\n",
            "nginx:-x",
            "nginx:.x",
            "nginx:a b",
            "nginx:é",
            "é",
            "host:port/x",
            "host:99999/x",
            "host:/x:",
            "-host.x/a",
            "host-.x/a",
            "host..x/a",
            "[::1/x",
            "[zz]/x",
            "[::1]5000/x",
            "nginx@sha256:abc",
            "nginx@md5:00",
            "nginx@sha256:6C3C624B58DBBCD3C0DD82B4C53F04194D1247C6EEBDAAB7C610CF7D66709B3B",
            "a:b:c",
            "https://x/y",
            "x@y@z",
            HEX,
            &format!("nginx:{long}"),
            &format!("{}/x", "a".repeat(260)),
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }

    #[test]
    fn spoilt_references_are_the_same_when_they_are_written_out_or_an_error() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/reference");
        let mut seeds: Vec<_> = std::fs::read_dir(directory).unwrap().map(|seed| seed.unwrap().path()).collect();
        seeds.sort();
        assert!(seeds.len() > 10);
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(random >> 33).unwrap() % below
        };
        let (mut good, pieces) =
            (0, [":", "@", "/", "..", ".", "-", "_", "[", "]", "a", "Z", "0", "%", "\u{fc}", " ", "sha256:"]);
        for seed in seeds {
            let seed: Vec<char> = std::fs::read_to_string(seed).unwrap().chars().collect();
            for _ in 0..500 {
                let mut text = seed.clone();
                for _ in 0..=next(3) {
                    let place = next(text.len());
                    let removed = next(2).min(text.len() - place);
                    text.splice(place..place + removed, pieces[next(pieces.len())].chars());
                }
                let text: String = text.into_iter().collect();
                let Ok(reference) = text.parse::<Reference>() else { continue };
                assert_eq!(reference.to_string().parse(), Ok(reference), "{text}");
                good += 1;
            }
        }
        assert!(good > 300, "{good}");
    }
}
