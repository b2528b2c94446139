//! The grammars of `-v`, `--mount` and `--tmpfs`, by docker's documentation.

use std::str::FromStr;

use ::container::{NameError, VolumeName};
use cli::Bytes;

use super::{Mount, MountFlag, Source, TmpfsFlag, VolumeFlag};

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];
/// Accepted for docker's sake: without meaning on Linux.
const CONSISTENCIES: [&str; 4] = ["consistent", "cached", "delegated", "default"];

/// Returns an absolute path without `.`, `..` and doubled slashes; the root is refused.
pub(super) fn clean(path: &str) -> Result<String, String> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(format!("mount destination `{path}` is not absolute"));
    }
    match format!("/{}", root::clean(path).display()).as_str() {
        "/" => Err("mount destination is the root".to_owned()),
        path => Ok(path.to_owned()),
    }
}

fn volume(name: &str) -> Result<Option<VolumeName>, String> {
    if name.is_empty() {
        return Ok(None);
    }
    name.parse().map(Some).map_err(|error: NameError| format!("neither a path nor a volume: {error}"))
}

/// A path of the host, made absolute as docker's client does.
fn host_path(path: &str) -> Result<String, String> {
    let expanded = match path.strip_prefix("~/") {
        Some(rest) => cli::home().unwrap_or_default().join(rest),
        None => path.into(),
    };
    let absolute = std::path::absolute(&expanded).map_err(|error| format!("`{path}`: {error}"))?;
    absolute.to_str().map(str::to_owned).ok_or_else(|| format!("`{path}` is not UTF-8"))
}

fn is_path(text: &str) -> bool {
    text.starts_with(['/', '~']) || text == "." || text == ".." || text.starts_with("./") || text.starts_with("../")
}

impl FromStr for VolumeFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // docker's grammar has no way to write a colon in a path here; `--mount` has.
        let parts: Vec<&str> = text.split(':').collect();
        let (source, destination, options) = match parts.as_slice() {
            [destination] => ("", *destination, ""),
            [source, destination] if !source.is_empty() => (*source, *destination, ""),
            [source, destination, options] if !source.is_empty() => (*source, *destination, *options),
            _ => return Err(format!("`{text}` is not [SOURCE:]DESTINATION[:OPTIONS]")),
        };
        let source = if is_path(source) {
            // docker makes a directory where the source of `-v` is not there; of `--mount` it is an error.
            Source::Host { path: host_path(source)?, create: true }
        } else {
            Source::Volume { name: volume(source)?, copy: true }
        };
        let mut mount = Mount::new(source, clean(destination)?);
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "rw" => mount.read_only = false,
                "ro" => mount.read_only = true,
                "z" | "Z" => mount.relabel = true,
                "bind-nonrecursive" => mount.recursive = false,
                "nocopy" => no_copy(&mut mount)?,
                _ if PROPAGATIONS.contains(&option) => mount.propagation = Some(option.to_owned()),
                _ if CONSISTENCIES.contains(&option) => {}
                _ => return Err(format!("unknown option `{option}` of volume `{text}`")),
            }
        }
        check_propagation(&mount)?;
        Ok(Self(mount))
    }
}

impl FromStr for TmpfsFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (destination, options) = text.split_once(':').unwrap_or((text, ""));
        let options = options.split(',').filter(|option| !option.is_empty());
        Ok(Self(Mount::new(Source::Tmpfs { options: tmpfs_options(options) }, clean(destination)?)))
    }
}

impl FromStr for MountFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fields = fields(text)?;
        let pairs: Vec<(&str, Option<&str>)> = fields
            .iter()
            .map(|field| field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value))))
            .collect();
        let find = |keys: &[&str]| pairs.iter().rev().find(|(key, _)| keys.contains(key)).and_then(|(_, value)| *value);
        let kind = find(&["type"]).unwrap_or("volume");
        let destination = find(&["destination", "dst", "target"]).ok_or_else(|| format!("`{text}`: no destination"))?;
        let source = find(&["source", "src"]).unwrap_or_default();
        let source = match kind {
            "bind" if source.is_empty() => return Err(format!("`{text}`: a bind mount needs a source")),
            "bind" => Source::Host { path: host_path(source)?, create: false },
            "volume" => Source::Volume { name: volume(source)?, copy: true },
            "tmpfs" if !source.is_empty() => return Err(format!("`{text}`: a tmpfs has no source")),
            "tmpfs" => Source::Tmpfs { options: tmpfs_options(std::iter::empty()) },
            _ => return Err(format!("`{text}`: unknown type `{kind}`: bind, volume or tmpfs")),
        };
        let mut mount = Mount::new(source, clean(destination)?);
        for (key, value) in pairs {
            apply(&mut mount, key, value).map_err(|cause| format!("`{text}`: {cause}"))?;
        }
        if let (true, Source::Tmpfs { options }) = (mount.read_only, &mut mount.source) {
            options.push("ro".to_owned());
        }
        check_propagation(&mount)?;
        Ok(Self(mount))
    }
}

/// Applies one `key=value` of `--mount`.
fn apply(mount: &mut Mount, key: &str, value: Option<&str>) -> Result<(), String> {
    let needed = || value.filter(|value| !value.is_empty()).ok_or_else(|| format!("`{key}` needs a value"));
    match (key, &mut mount.source) {
        ("type" | "destination" | "dst" | "target" | "source" | "src", _) | ("volume-label", Source::Volume { .. }) => {
        }
        ("readonly" | "ro", _) => mount.read_only = flag(key, value)?,
        ("consistency", _) if CONSISTENCIES.contains(&needed()?) => {}
        ("bind-propagation", Source::Host { .. }) if PROPAGATIONS.contains(&needed()?) => {
            mount.propagation = value.map(str::to_owned);
        }
        ("bind-nonrecursive", Source::Host { .. }) => mount.recursive = !flag(key, value)?,
        ("bind-recursive", Source::Host { .. }) => match needed()? {
            "enabled" | "writable" => {}
            "disabled" => mount.recursive = false,
            other => return Err(format!("bind-recursive `{other}`: enabled, disabled or writable")),
        },
        ("bind-create-src", Source::Host { create, .. }) => *create = flag(key, value)?,
        ("volume-nocopy", Source::Volume { copy, .. }) => *copy = !flag(key, value)?,
        ("volume-driver", Source::Volume { .. }) if needed()? == "local" => {}
        ("tmpfs-size", Source::Tmpfs { options }) => {
            let Bytes(size) = needed()?.parse()?;
            options.push(format!("size={size}"));
        }
        ("tmpfs-mode", Source::Tmpfs { options }) => {
            let mode = u32::from_str_radix(needed()?, 8).ok().filter(|mode| *mode <= 0o7777);
            options.push(format!("mode={:o}", mode.ok_or("tmpfs-mode is not an octal number")?));
        }
        _ => return Err(format!("`{}` does not fit", value.map_or(key.to_owned(), |value| format!("{key}={value}")))),
    }
    Ok(())
}

fn flag(key: &str, value: Option<&str>) -> Result<bool, String> {
    let Some(word) = value.filter(|word| !word.is_empty()) else { return Ok(true) };
    cli::boolean(word).ok_or_else(|| format!("`{key}={word}`: true or false"))
}

fn no_copy(mount: &mut Mount) -> Result<(), String> {
    let Source::Volume { copy, .. } = &mut mount.source else { return Err("nocopy is for volumes".to_owned()) };
    *copy = false;
    Ok(())
}

fn check_propagation(mount: &Mount) -> Result<(), String> {
    let host = matches!(mount.source, Source::Host { .. });
    if mount.propagation.is_some() && !host { Err("propagation is for paths of the host".to_owned()) } else { Ok(()) }
}

/// Docker's three guards, each of which its opposite takes back.
fn tmpfs_options<'a>(user: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut options: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).into();
    for option in user {
        let opposite = option.strip_prefix("no").map_or_else(|| format!("no{option}"), str::to_owned);
        options.retain(|present| *present != opposite && present != option);
        options.push(option.to_owned());
    }
    options
}

/// Splits a line of comma-separated values, where a field in double quotes may hold commas.
fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let Some(field) = fields.last_mut() else { break };
        match c {
            // RFC 4180, 2.7: a quote in a quoted field is written twice. Docker's client reads the value as a line of
            // such a file.
            '"' if quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    if quoted { Err(format!("`{text}`: a quote is not closed")) } else { Ok(fields) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(path: &str, create: bool) -> Source {
        Source::Host { path: path.to_owned(), create }
    }

    fn named(name: &str) -> Source {
        Source::Volume { name: volume(name).unwrap(), copy: true }
    }

    #[test]
    fn volumes_are_read_as_docker_reads_them() {
        let base = |source, destination: &str| Mount::new(source, destination.to_owned());
        for (text, want) in [
            ("/data", base(named(""), "/data")),
            ("/a:/b", base(host("/a", true), "/b")),
            ("/a:/b/../c//d/", base(host("/a", true), "/c/d")),
            ("cache:/c", base(named("cache"), "/c")),
            ("/a:/b:ro", Mount { read_only: true, ..base(host("/a", true), "/b") }),
            ("/a:/b:rw,z", Mount { relabel: true, ..base(host("/a", true), "/b") }),
            ("/a:/b:rslave", Mount { propagation: Some("rslave".into()), ..base(host("/a", true), "/b") }),
            ("/a:/b:bind-nonrecursive", Mount { recursive: false, ..base(host("/a", true), "/b") }),
            ("v1:/b:nocopy", base(Source::Volume { name: volume("v1").unwrap(), copy: false }, "/b")),
            ("/a:/b:cached", base(host("/a", true), "/b")),
        ] {
            assert_eq!(text.parse::<VolumeFlag>().unwrap().0, want, "{text}");
        }
        let here = std::env::current_dir().unwrap();
        let VolumeFlag(relative) = "./x:/b".parse().unwrap();
        assert_eq!(relative.source, host(here.join("x").to_str().unwrap(), true));
    }

    #[test]
    fn wrong_volumes_are_refused() {
        for text in [
            "",
            ":/b",
            "/a:",
            "/a:b",
            "a",
            "/a:/",
            "/a:/b/..",
            "/a:/b:ro:x",
            "/a:/b:wat",
            "a/b:/c",
            "v:/c",
            "v1:/c:shared",
        ] {
            assert!(text.parse::<VolumeFlag>().is_err(), "{text}");
        }
        assert!("/a:/b:nocopy".parse::<VolumeFlag>().is_err());
    }

    #[test]
    fn the_long_form_is_read_as_docker_reads_it() {
        let base = |source, destination: &str| Mount::new(source, destination.to_owned());
        let tmpfs = |more: &[&str]| Source::Tmpfs {
            options: ["noexec", "nosuid", "nodev"].iter().chain(more).map(|&option| option.to_owned()).collect(),
        };
        for (text, want) in [
            ("type=bind,source=/a,target=/b", base(host("/a", false), "/b")),
            ("type=bind,src=/a,dst=/b,readonly", Mount { read_only: true, ..base(host("/a", false), "/b") }),
            ("type=bind,src=/a,dst=/b,ro=false", base(host("/a", false), "/b")),
            ("type=bind,\"src=/a,b\",dst=/b", base(host("/a,b", false), "/b")),
            ("type=bind,src=/a,dst=/b,bind-create-src", base(host("/a", true), "/b")),
            (
                "type=bind,src=/a,dst=/b,bind-recursive=disabled",
                Mount { recursive: false, ..base(host("/a", false), "/b") },
            ),
            ("source=vol,destination=/b", base(named("vol"), "/b")),
            ("type=volume,dst=/b", base(named(""), "/b")),
            ("type=tmpfs,dst=/t", base(tmpfs(&[]), "/t")),
            ("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770", base(tmpfs(&["size=1048576", "mode=1770"]), "/t")),
        ] {
            assert_eq!(text.parse::<MountFlag>().unwrap().0, want, "{text}");
        }
        for text in [
            "",
            "type=bind,dst=/b",
            "type=bind,src=/a",
            "type=wat,dst=/b",
            "type=tmpfs,src=/a,dst=/b",
            "type=tmpfs,dst=/b,tmpfs-mode=9",
            "type=volume,dst=/b,bind-propagation=shared",
            "type=bind,src=/a,dst=/b,ro=maybe",
            "type=bind,src=/a,dst=/b,wat=1",
            "type=bind,\"src=/a,dst=/b",
        ] {
            assert!(text.parse::<MountFlag>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_guards_of_a_tmpfs_can_be_taken_back() {
        for (text, want) in [
            ("/t", &["noexec", "nosuid", "nodev"][..]),
            ("/t:exec,size=64m", &["nosuid", "nodev", "exec", "size=64m"]),
            ("/t:rw,noexec", &["nosuid", "nodev", "rw", "noexec"]),
        ] {
            let TmpfsFlag(mount) = text.parse().unwrap();
            assert_eq!(mount.source, Source::Tmpfs { options: want.iter().map(|&s| s.to_owned()).collect() }, "{text}");
        }
    }

    #[test]
    fn image_volumes_do_not_hide_the_kernels_files() {
        for path in ["/proc", "/proc/sys", "/sys", "/dev/shm", "/x/../proc", "/", "proc", "sys/x", ""] {
            assert!(Mount::image_volume(path).is_err(), "{path}");
        }
        for (path, want) in
            [("/processed/", "/processed"), ("data", "/data"), ("./a/../b", "/b"), ("['/data']", "/['/data']")]
        {
            assert_eq!(Mount::image_volume(path).unwrap().destination, want);
        }
    }
}
