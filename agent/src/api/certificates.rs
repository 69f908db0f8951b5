//! The certificates of the API over TLS: an authority of this node's own, and below it one certificate for the server
//! and one for root. They are made where they are missing or cannot be used, and anew when less than a third of their
//! life is left.
//!
//! ```text
//! state_dir/pki/ca.crt, ca.key          10 years
//! state_dir/pki/server.crt, server.key  1 year, for the names by which this node is reached
//! state_dir/pki/client.crt, client.key  1 year, for root
//! ```
//!
//! Everything here blocks. No key is in a log or in the `Debug` form of anything.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::identity::{Identity, ROOT_GROUP, ROOT_USER, common_name};
use crate::durable_file;

/// The authority's name.
const AUTHORITY: &str = "debuglet-ca";
/// The server's name; clients look at the alternative names only.
const SERVER: &str = "debuglet";
/// How long the authority lives.
const AUTHORITY_LIFE: time::Duration = time::Duration::days(3650);
/// How long the certificates of server and client live.
const LEAF_LIFE: time::Duration = time::Duration::days(365);
/// When every certificate begins: where a clock without a battery does. What begins with the day on which it is made is of
/// no use to whoever's clock has not come there yet, this node's own after a power cut among them.
const BEGIN: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
/// A life is counted from 2024-01-01 at the earliest, in seconds since the epoch: an earlier clock is wrong, and what ends by it
/// has ended when it is set.
const EARLIEST: i64 = 1_704_067_200;
/// Of a life, the last part in which a certificate is made anew: a third.
const LAST_PART: i64 = 3;

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// A file operation failed.
    #[error("cannot {step} {}: {source}", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A certificate cannot be made.
    #[error("cannot make the {what} certificate: {source}")]
    Make {
        /// Which one.
        what: &'static str,
        /// The reason.
        source: rcgen::Error,
    },
    /// A certificate was made that cannot be used.
    #[error("the {what} certificate that was just made cannot be used: {reason}")]
    Unusable {
        /// Which one.
        what: &'static str,
        /// The reason.
        reason: Unfit,
    },
    /// What TLS needs cannot be put together from the certificates.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

/// Why what lies in the folder is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    /// There is none.
    #[error("there was none")]
    Missing,
    /// It ends too soon.
    #[error("less than a third of its life was left")]
    Ending,
    /// It is damaged, or not what it should be.
    #[error("{0}")]
    Damaged(String),
}

/// A certificate with its key.
struct Pair {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    key_pem: String,
    /// Both, as TLS takes them: which shows that they belong together.
    certified: Arc<CertifiedKey>,
}

/// What is needed to serve with TLS, and to tell root how to connect.
pub(crate) struct Certificates {
    /// Whom clients are verified by.
    pub(crate) roots: Arc<RootCertStore>,
    /// The server's certificate with its key.
    pub(crate) server: Arc<CertifiedKey>,
    /// The authority's certificate, as PEM.
    pub(crate) authority_pem: String,
    /// root's certificate, as PEM.
    pub(crate) client_pem: String,
    /// root's key, as PEM.
    pub(crate) client_key_pem: String,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Certificates").finish_non_exhaustive()
    }
}

/// The cryptography that TLS uses here.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificates in `folder`, as far as they can be used at `now`; the others are made, kept, and named in the
/// log. `names` are the host names and addresses by which the server is reached.
pub(crate) fn ensure(
    folder: &Path,
    names: &[String],
    now: OffsetDateTime,
) -> Result<Certificates, CertificateError> {
    make_folder(folder)?;
    let authority = match read(folder, "ca", now).and_then(check_authority) {
        Ok(authority) => authority,
        Err(unfit) => {
            report("ca", &unfit);
            let made = make_authority(now).map_err(|source| CertificateError::Make { what: "ca", source })?;
            keep(folder, "ca", &made, now)?
        }
    };
    let names: Vec<(String, ServerName<'static>)> = names
        .iter()
        // A node may have a name that is none in DNS, such as 1.2.3.
        .filter_map(|name| Some((name.clone(), ServerName::try_from(name.clone()).ok()?)))
        .collect();
    let mut roots = RootCertStore::empty();
    roots
        .add(authority.certificate.clone())
        .map_err(|error| CertificateError::Tls(error.to_string()))?;
    let roots = Arc::new(roots);
    let leaf =
        |what, params: &dyn Fn() -> Result<CertificateParams, rcgen::Error>, check: &Check<'_>| match read(
            folder, what, now,
        )
        .and_then(check)
        {
            Ok(pair) => Ok(pair),
            Err(unfit) => {
                report(what, &unfit);
                let made = params().and_then(|params| make_leaf(params, &authority, now));
                let made = made.map_err(|source| CertificateError::Make { what, source })?;
                let kept = keep(folder, what, &made, now)?;
                check(kept).map_err(|reason| CertificateError::Unusable { what, reason })
            }
        };
    let server = leaf(
        "server",
        &|| server_params(names.iter().map(|(name, _)| name.clone()).collect()),
        &|pair| check_server(pair, &roots, &names, now),
    )?;
    let client = leaf("client", &|| Ok(client_params()), &|pair| {
        check_client(pair, &roots, now)
    })?;
    Ok(Certificates {
        roots,
        server: server.certified,
        authority_pem: authority.certificate_pem,
        client_pem: client.certificate_pem,
        client_key_pem: client.key_pem,
    })
}

/// Gives a pair back if it can be used.
type Check<'a> = dyn Fn(Pair) -> Result<Pair, Unfit> + 'a;

fn report(what: &'static str, unfit: &Unfit) {
    match unfit {
        Unfit::Damaged(_) => tracing::warn!("the API's {what} certificate is made anew: {unfit}"),
        _ => tracing::info!("the API's {what} certificate is made: {unfit}"),
    }
}

fn io_error(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CertificateError {
    let path = path.to_path_buf();
    move |source| CertificateError::Io { step, path, source }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the state folder is root's alone; callers are on threads that may block"
)]
fn make_folder(folder: &Path) -> Result<(), CertificateError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(io_error("make the folder", folder))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(io_error("protect", folder))
}

/// How long the certificate of this name lives.
fn life(what: &str) -> time::Duration {
    if what == "ca" { AUTHORITY_LIFE } else { LEAF_LIFE }
}

/// Reads a pair of which enough is left.
#[expect(
    clippy::disallowed_methods,
    reason = "the state folder is root's alone; callers are on threads that may block"
)]
fn read(folder: &Path, what: &str, now: OffsetDateTime) -> Result<Pair, Unfit> {
    let text = |name: String| {
        fs::read_to_string(folder.join(&name)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Unfit::Missing,
            _ => Unfit::Damaged(format!("{name} cannot be read: {error}")),
        })
    };
    let pair = pair(what, text(format!("{what}.crt"))?, text(format!("{what}.key"))?)?;
    if is_ending(&pair.certificate, life(what), now)? {
        return Err(Unfit::Ending);
    }
    Ok(pair)
}

fn pair(what: &str, certificate_pem: String, key_pem: String) -> Result<Pair, Unfit> {
    let damaged = |file: &str, error: &dyn std::fmt::Display| Unfit::Damaged(format!("{file}: {error}"));
    let (certificate_file, key_file) = (format!("{what}.crt"), format!("{what}.key"));
    let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
        .map_err(|error| damaged(&certificate_file, &error))?;
    let key =
        PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| damaged(&key_file, &error))?;
    let certified = CertifiedKey::from_der(vec![certificate.clone()], key, &provider())
        .map_err(|error| damaged(&key_file, &error))?;
    Ok(Pair {
        certificate,
        certificate_pem,
        key_pem,
        certified: Arc::new(certified),
    })
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Unfit> {
    X509Certificate::from_der(certificate)
        .map(|(_, certificate)| certificate)
        .map_err(|error| Unfit::Damaged(error.to_string()))
}

/// Whether so little of its `life` is left that it is time for a new one. Its beginning does not count: a clock that is
/// behind must not cost an authority that all clients know.
fn is_ending(
    certificate: &CertificateDer<'_>,
    life: time::Duration,
    now: OffsetDateTime,
) -> Result<bool, Unfit> {
    let end = parse(certificate)?.validity().not_after.timestamp();
    let left = end.saturating_sub(now.unix_timestamp());
    Ok(left.saturating_mul(LAST_PART) < life.whole_seconds())
}

/// Keeps a pair that was made; answers it as a next start would read it.
fn keep(
    folder: &Path,
    what: &'static str,
    (certificate, key): &(Certificate, KeyPair),
    now: OffsetDateTime,
) -> Result<Pair, CertificateError> {
    // The two files do not change at once. Where only the first did, they do not belong together, and are made anew.
    for (name, content) in [
        (format!("{what}.key"), key.serialize_pem()),
        (format!("{what}.crt"), certificate.pem()),
    ] {
        durable_file::write(folder, &name, content.as_bytes())
            .map_err(|error| io_error("write", &folder.join(name))(error.into()))?;
    }
    read(folder, what, now).map_err(|reason| CertificateError::Unusable { what, reason })
}

fn check_authority(pair: Pair) -> Result<Pair, Unfit> {
    let certificate = parse(&pair.certificate)?;
    if certificate.is_ca() && common_name(certificate.subject()) == Some(AUTHORITY) {
        return Ok(pair);
    }
    Err(Unfit::Damaged(
        "ca.crt is not the one that was made here".to_owned(),
    ))
}

/// As a client would: by every name.
fn check_server(
    pair: Pair,
    roots: &Arc<RootCertStore>,
    names: &[(String, ServerName<'static>)],
    now: OffsetDateTime,
) -> Result<Pair, Unfit> {
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), provider())
        .build()
        .map_err(|error| Unfit::Damaged(error.to_string()))?;
    for (name, server) in names {
        verifier
            .verify_server_cert(&pair.certificate, &[], server, &[], unix_time(now))
            .map_err(|error| Unfit::Damaged(format!("server.crt is not good for {name}: {error}")))?;
    }
    Ok(pair)
}

/// As the server would.
fn check_client(pair: Pair, roots: &Arc<RootCertStore>, now: OffsetDateTime) -> Result<Pair, Unfit> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider())
        .build()
        .map_err(|error| Unfit::Damaged(error.to_string()))?;
    verifier
        .verify_client_cert(&pair.certificate, &[], unix_time(now))
        .map_err(|error| Unfit::Damaged(format!("client.crt: {error}")))?;
    let root = Identity::root();
    let is_root = |identity: Identity| (identity.user, identity.groups) == (root.user, root.groups);
    if !Identity::of_certificate(&pair.certificate).is_some_and(is_root) {
        return Err(Unfit::Damaged("client.crt is not root's".to_owned()));
    }
    Ok(pair)
}

fn unix_time(now: OffsetDateTime) -> UnixTime {
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or_default();
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn make_authority(now: OffsetDateTime) -> Result<(Certificate, KeyPair), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = authority_params();
    live(&mut params, now, life("ca"));
    Ok((params.self_signed(&key)?, key))
}

fn authority_params() -> CertificateParams {
    let mut params = params(AUTHORITY, None);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn server_params(names: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = params(SERVER, None);
    params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn client_params() -> CertificateParams {
    let mut params = params(ROOT_USER, Some(ROOT_GROUP));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn params(name: &str, organization: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(organization) = organization {
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization);
    }
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params
}

fn live(params: &mut CertificateParams, now: OffsetDateTime, life: time::Duration) {
    params.not_before = BEGIN;
    let earliest = OffsetDateTime::from_unix_timestamp(EARLIEST).unwrap_or(now);
    params.not_after = now.max(earliest) + life;
}

fn make_leaf(
    mut params: CertificateParams,
    authority: &Pair,
    now: OffsetDateTime,
) -> Result<(Certificate, KeyPair), rcgen::Error> {
    live(&mut params, now, LEAF_LIFE);
    let issuer = Issuer::new(authority_params(), KeyPair::from_pem(&authority.key_pem)?);
    let key = KeyPair::generate()?;
    Ok((params.signed_by(&key, &issuer)?, key))
}

#[cfg(test)]
mod tests;
