//! TLS for registries. ureq's own has no place for two things that people have: a server whose certificate is itself one
//! of the authorities (docker's recipe for a self-signed one), and authorities that hold for one host only.

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned,
};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

/// Whose certificates are taken, and what is shown of our own.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    /// Any certificate will do.
    pub(crate) anybody: bool,
    /// The authorities.
    pub(crate) roots: Vec<CertificateDer<'static>>,
    /// Ours.
    pub(crate) client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

/// Wraps a connection to an https server; others pass.
#[derive(Debug)]
pub(crate) struct Tls(Option<Arc<ClientConfig>>);

impl Tls {
    /// Makes the one for servers that are reached without TLS.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Makes the one for a host.
    pub(crate) fn new(certificates: Certificates) -> anyhow::Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let mut store = RootCertStore::empty();
        // The system's own directory may hold what this library does not read; who needs it is told so.
        let (_taken, _left) = store.add_parsable_certificates(certificates.roots.iter().cloned());
        if store.is_empty() {
            // A container or a bare machine has no authorities of its own: take Mozilla's.
            store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        let judge = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider)).build()?;
        let judge = (!certificates.anybody).then_some(judge);
        let verifier = Verifier { judge, roots: certificates.roots };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let config = match certificates.client {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        Ok(Self(Some(Arc::new(config))))
    }
}

impl<In: Transport> Connector<In> for Tls {
    type Out = Either<In, TlsTransport>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        let Some(config) = self.0.as_ref().filter(|_| details.needs_tls() && !transport.is_tls()) else {
            return Ok(Some(Either::A(transport)));
        };
        let host = details.uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|_| ureq::Error::Tls("no name that a certificate could have"))?;
        let mut connection = ClientConnection::new(Arc::clone(config), name).map_err(std::io::Error::other)?;
        let mut socket = TransportAdapter::new(transport.boxed(), details.current_time.clone());
        socket.set_timeout(details.timeout);
        connection.complete_io(&mut socket)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(TlsTransport { buffers, stream: StreamOwned::new(connection, socket) })))
    }
}

/// A connection with TLS.
pub(crate) struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTransport")
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        Ok(self.stream.write_all(&self.buffers.output()[..amount])?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Verifier {
    /// What judges chains of certificates; `None` where any certificate will do.
    judge: Option<Arc<WebPkiServerVerifier>>,
    roots: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(judge) = &self.judge else { return Ok(ServerCertVerified::assertion()) };
        match judge.verify_server_cert(leaf, intermediates, name, ocsp, now) {
            // An authority is no server to webpki. Its validity in time has been judged before that.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_))) if self.roots.contains(leaf) => {
                verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let asserted = || Ok(HandshakeSignatureValid::assertion());
        self.judge.as_ref().map_or_else(asserted, |judge| judge.verify_tls12_signature(message, leaf, signed))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let asserted = || Ok(HandshakeSignatureValid::assertion());
        self.judge.as_ref().map_or_else(asserted, |judge| judge.verify_tls13_signature(message, leaf, signed))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        use SignatureScheme::{ECDSA_NISTP521_SHA512, ED448, RSA_PKCS1_SHA1};
        let mut schemes = ring::default_provider().signature_verification_algorithms.supported_schemes();
        if self.judge.is_none() {
            schemes.extend([ECDSA_NISTP521_SHA512, ED448, RSA_PKCS1_SHA1]);
        }
        schemes
    }
}
