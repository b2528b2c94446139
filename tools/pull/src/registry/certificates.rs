//! Whom to trust: the system's certificate authorities, and docker's and containers' certs.d directories.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// What is known of a registry's certificates.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    /// Whose word it is: host and port.
    pub(crate) registry: String,
    /// Any certificate will do.
    pub(crate) anybody: bool,
    /// `--cert-dir`.
    pub(crate) directory: Option<PathBuf>,
}

/// Makes the TLS configuration for a host. What certs.d says of a registry holds for that registry alone.
pub(crate) fn configure(trust: &Trust, host: &str) -> anyhow::Result<TlsConfig> {
    let own = host == trust.registry;
    let mut roots: Vec<Certificate<'static>> = rustls_native_certs::load_native_certs()
        .certs
        .iter()
        .map(|der| Certificate::from_der(der).to_owned())
        .collect();
    let system = !roots.is_empty();
    let mut client = None;
    for directory in directories(trust, host) {
        read_directory(&directory, &mut roots, &mut client)
            .with_context(|| format!("read certificates {}", directory.display()))?;
    }
    // A container or a bare machine has no authorities of its own: take Mozilla's.
    let roots = if roots.is_empty() || (!system && client.is_some() && roots.is_empty()) {
        RootCerts::WebPki
    } else {
        RootCerts::from(roots)
    };
    Ok(TlsConfig::builder().root_certs(roots).client_cert(client).disable_verification(own && trust.anybody).build())
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
fn read_directory(
    directory: &Path,
    roots: &mut Vec<Certificate<'static>>,
    client: &mut Option<ClientCert>,
) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => roots.extend(certificates(&path)?),
            Some("cert") => {
                *client = Some(ClientCert::new_with_certs(&certificates(&path)?, key(&path.with_extension("key"))?));
            }
            _ => {}
        }
    }
    Ok(())
}

fn certificates(path: &Path) -> anyhow::Result<Vec<Certificate<'static>>> {
    let mut found = Vec::new();
    for item in parse_pem(&fs::read(path).with_context(|| path.display().to_string())?) {
        if let PemItem::Certificate(certificate) = item.with_context(|| path.display().to_string())? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        bail!("{}: no certificate in it", path.display());
    }
    Ok(found)
}

fn key(path: &Path) -> anyhow::Result<PrivateKey<'static>> {
    let text = fs::read(path).with_context(|| path.display().to_string())?;
    PrivateKey::from_pem(&text).with_context(|| path.display().to_string())
}
