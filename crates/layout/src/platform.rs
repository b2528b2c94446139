//! Platforms (image-spec, image-index.md, "Platform Variants"): which of an index's images runs here.

use std::fmt;
use std::str::FromStr;

use oci_spec::image;

/// An operating system, an architecture and the architecture's variant, in Go's words, normalised as containerd does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `v7`, …; `None` where the architecture's default is meant.
    pub variant: Option<String>,
}

impl Platform {
    /// Returns the platform this program was built for.
    pub fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, None)
    }

    /// Returns a platform, with the names of other worlds (`x86_64`, `aarch64`) made Go's.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let architecture = architecture.to_ascii_lowercase();
        let (architecture, implied) = match architecture.as_str() {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            "i386" | "i486" | "i586" | "i686" | "x86" => ("386", None),
            "powerpc64le" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        let variant = variant.filter(|variant| !variant.is_empty()).or(implied);
        let variant = variant.map(|variant| match variant.as_bytes() {
            [b'0'..=b'9', ..] => format!("v{variant}"),
            _ => variant.to_ascii_lowercase(),
        });
        let variant = variant.filter(|variant| Some(variant.as_str()) != default_variant(architecture));
        Self { os: os.to_ascii_lowercase(), architecture: architecture.to_owned(), variant }
    }

    /// Returns the variants that run on this one, the best first; `None` is the architecture's default.
    fn variants(&self) -> Vec<Option<String>> {
        let default = default_variant(&self.architecture);
        let own = self.variant.as_deref().or(default);
        let Some(number) = own.and_then(|variant| variant.strip_prefix('v')?.parse::<u8>().ok()) else {
            return vec![self.variant.clone()];
        };
        let lowest = match self.architecture.as_str() {
            "arm" => 5,
            "arm64" => 8,
            _ => 1,
        };
        let named = (lowest..=number).rev().map(|number| format!("v{number}"));
        named.map(|variant| Some(variant).filter(|variant| Some(variant.as_str()) != default)).collect()
    }

    /// Returns the first of the candidates that fits best; `platform` tells a candidate's.
    pub fn choose<T>(
        &self,
        candidates: &(impl Iterator<Item = T> + Clone),
        platform: impl Fn(&T) -> Option<Self>,
    ) -> Option<T> {
        self.variants().into_iter().find_map(|variant| {
            let wanted = Self { variant, ..self.clone() };
            candidates.clone().find(|candidate| platform(candidate).as_ref() == Some(&wanted))
        })
    }

    /// Tells whether an image of platform `other` runs on this one.
    pub fn runs(&self, other: &Self) -> bool {
        self.choose(&std::iter::once(()), |()| Some(other.clone())).is_some()
    }
}

/// Architectures that may stand alone, as for docker: those that it has images for.
const KNOWN: [&str; 9] = ["386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x"];

fn default_variant(architecture: &str) -> Option<&'static str> {
    match architecture {
        "amd64" => Some("v1"),
        "arm64" => Some("v8"),
        "arm" => Some("v7"),
        _ => None,
    }
}

impl From<&image::Platform> for Platform {
    fn from(platform: &image::Platform) -> Self {
        let (os, architecture) = (platform.os().to_string(), platform.architecture().to_string());
        Self::new(&os, &architecture, platform.variant().as_deref())
    }
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let wrong = || format!("{text:?} is not a platform: say OS/ARCH or OS/ARCH/VARIANT, such as linux/arm64");
        let well_formed = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        };
        if !parts.iter().all(well_formed) {
            return Err(wrong());
        }
        match parts[..] {
            [one] if KNOWN.contains(&Self::new("linux", one, None).architecture.as_str()) => {
                Ok(Self::new("linux", one, None))
            }
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_normalised() {
        for (text, want) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/8", "linux/arm64"),
            ("linux/arm/v7", "linux/arm"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/arm/6", "linux/arm/v6"),
            ("windows/amd64", "windows/amd64"),
            ("arm64", "linux/arm64"),
            ("x86_64", "linux/amd64"),
        ] {
            assert_eq!(platform(text).to_string(), want);
        }
        for text in ["", "linux", "linux/", "linux//v7", "a/b/c/d", "linux/am d64"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_best_variant_wins_and_among_equals_the_first() {
        for (wanted, there, want) in [
            ("linux/amd64", &["linux/arm64", "linux/amd64", "linux/amd64/v2"][..], Some(1)),
            ("linux/amd64/v3", &["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], Some(1)),
            ("linux/arm", &["linux/arm/v5", "linux/arm/v6", "linux/arm64"], Some(1)),
            ("linux/arm/v6", &["linux/arm/v7", "linux/arm/v5"], Some(1)),
            ("linux/arm64", &["linux/arm64/v9", "linux/arm"], None),
            ("linux/amd64", &["linux/amd64", "linux/amd64"], Some(0)),
            ("linux/s390x", &["linux/s390x"], Some(0)),
            ("linux/riscv64", &["unknown/unknown", "windows/riscv64"], None),
        ] {
            let chosen = platform(wanted).choose(&there.iter().enumerate(), |(_, text)| Some(platform(text)));
            assert_eq!(chosen.map(|(index, _)| index), want, "{wanted} of {there:?}");
        }
    }
}
