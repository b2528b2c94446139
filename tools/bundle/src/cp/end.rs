//! What `bundle cp` copies from and to, as it is written.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use ::container::{ContainerId, NameError};

/// What is written for a source or a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CopyEnd {
    /// `CONTAINER:PATH`.
    Inside { id: ContainerId, path: PathBuf },
    /// A path of the host's.
    Local(PathBuf),
    /// `-`: a tar archive.
    Stream,
}

impl FromStr for CopyEnd {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::Stream);
        }
        // As with docker: who means a file with a colon in its name writes ./ before it.
        match text.split_once(':').filter(|_| !text.starts_with(['/', '.'])) {
            Some((_, "") | ("", _)) => Err("not CONTAINER:PATH".to_owned()),
            Some((id, path)) => {
                let id = id.parse().map_err(|error: NameError| error.to_string())?;
                Ok(Self::Inside { id, path: Path::new("/").join(path) })
            }
            None if text.is_empty() => Err("an empty path".to_owned()),
            None => Ok(Self::Local(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_docker_s() {
        let inside = |id: &str, path: &str| Ok(CopyEnd::Inside { id: id.parse().unwrap(), path: path.into() });
        for (text, want) in [
            ("web:/etc/hosts", inside("web", "/etc/hosts")),
            ("web:etc/hosts", inside("web", "/etc/hosts")),
            ("web:/a:b/.", inside("web", "/a:b/.")),
            ("./web:x", Ok(CopyEnd::Local("./web:x".into()))),
            ("/a:b", Ok(CopyEnd::Local("/a:b".into()))),
            ("plain", Ok(CopyEnd::Local("plain".into()))),
            ("-", Ok(CopyEnd::Stream)),
            ("web:", Err(())),
            (":/x", Err(())),
            ("", Err(())),
        ] {
            assert_eq!(text.parse::<CopyEnd>().map_err(|_| ()), want, "{text}");
        }
    }
}
