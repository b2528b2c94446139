//! Whom to trust: the system's certificate authorities, and docker's and containers' certs.d directories.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::tls::Certificates;

/// What is known of a registry's certificates.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    /// Whose word it is: host and port.
    pub(crate) registry: String,
    /// Any certificate will do, wherever a request leads, and plain http, too: `--tls-verify=false`.
    pub(crate) anybody: bool,
    /// `--cert-dir`.
    pub(crate) directory: Option<PathBuf>,
}

/// Finds the certificates for a host. What certs.d says of a registry holds for that registry alone.
pub(crate) fn find(trust: &Trust, host: &str) -> anyhow::Result<Certificates> {
    let mut found = Certificates { anybody: trust.anybody, ..Certificates::default() };
    for directory in directories(trust, host) {
        read_directory(&directory, &mut found).with_context(|| format!("read certificates {}", directory.display()))?;
    }
    if !trust.anybody {
        found.roots.extend(rustls_native_certs::load_native_certs().certs);
    }
    Ok(found)
}

fn directories(trust: &Trust, host: &str) -> Vec<PathBuf> {
    if let (Some(directory), true) = (&trust.directory, host == trust.registry) {
        return vec![directory.clone()];
    }
    let config = cli::config_home();
    let places = [config.join("containers/certs.d"), "/etc/containers/certs.d".into(), "/etc/docker/certs.d".into()];
    places.iter().map(|place| place.join(host)).filter(|directory| directory.is_dir()).collect()
}

/// `*.crt` are authorities; `X.cert` with `X.key` is ours (containers-certs.d(5), docker's the same).
fn read_directory(directory: &Path, found: &mut Certificates) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => {
                let roots = read(&path)?;
                if roots.is_empty() {
                    log::warn!("{}: no certificate in it", path.display());
                }
                found.roots.extend(roots);
            }
            Some("cert") => {
                let chain = read(&path)?;
                ensure!(!chain.is_empty(), "{}: no certificate in it", path.display());
                found.client = Some((chain, key(&path.with_extension("key"))?));
            }
            _ => {}
        }
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    Ok(certificates(&fs::read(path).with_context(|| path.display().to_string())?))
}

/// Finds the certificates in a PEM file: whatever is around them, and whatever else it holds, as Go does.
fn certificates(file: &[u8]) -> Vec<CertificateDer<'static>> {
    let text = String::from_utf8_lossy(file);
    let block = |block: &str| {
        let (body, _) = block.split_once("-----END CERTIFICATE-----")?;
        let body: String = body.split_ascii_whitespace().collect();
        STANDARD.decode(body).ok().map(CertificateDer::from)
    };
    text.split("-----BEGIN CERTIFICATE-----").skip(1).filter_map(block).collect()
}

fn key(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_found_among_anything() {
        let good = "-----BEGIN CERTIFICATE-----\r\nAQID\r\nBA==\r\n-----END CERTIFICATE-----\r\n";
        for (file, want) in [
            (good.as_bytes().to_vec(), 1),
            ([b"Issuer: J\xf6rg\n", good.as_bytes(), b"\0tail", good.as_bytes()].concat(), 2),
            (format!("-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----\n{good}").into_bytes(), 1),
            (format!("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n{good}").into_bytes(), 1),
            (format!("-----BEGIN CERTIFICATE-----\nAQID\n{good}").into_bytes(), 1),
            (b"nothing".to_vec(), 0),
        ] {
            let found = certificates(&file);
            assert_eq!(found.len(), want, "{}", String::from_utf8_lossy(&file));
            assert!(found.iter().all(|one| one.as_ref() == [1, 2, 3, 4]));
        }
    }
}
