//! The certificate of the pages for other devices: self-signed, with a key that stays the same.
//!
//! No authority vouches for a machine at home, so a browser warns once, and the owner compares the fingerprint that it
//! shows with the one beside the link. Programs pin the key (`public_key_sha256`). The certificate is kept until an
//! address is missing from it or it is about to expire, so that a browser need not be told again.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use data_encoding::{BASE64, HEXUPPER};
use hive_host::secret::{FileSecrets, SecretStore};
use hive_types::BrowserCertificate;
use jiff::ToSpan;
use jiff::civil::{Date, date};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::tokens::today;

/// Name of the key among the data folder's secrets.
const KEY: &str = "browser-key";

/// File name of the certificate in the data folder.
const FILE: &str = "browser-certificate.json";

/// Validity of a new certificate, in days; Apple's systems take no longer ones than 398.
const VALID_DAYS: i32 = 390;

/// Days before its expiry at which it is renewed.
const SPARE_DAYS: i32 = 30;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A certificate ready to serve with.
pub(super) struct Known {
    pub(super) config: Arc<ServerConfig>,
    pub(super) view: BrowserCertificate,
}

/// The certificate as kept in the file.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// DER in base64.
    certificate: String,
    /// The names and addresses that it is for.
    names: BTreeSet<String>,
    /// Its last day.
    until: Date,
}

/// Reads the data folder's certificate, or makes one for these addresses.
pub(super) fn open(folder: &Path, addresses: &[IpAddr]) -> Result<Known, Error> {
    let secrets = FileSecrets::new(folder);
    let key = if let Some(text) = secrets.read(KEY)? {
        KeyPair::try_from(&PrivatePkcs8KeyDer::from(BASE64.decode(text.trim().as_bytes())?))?
    } else {
        let key = KeyPair::generate()?;
        secrets.write(KEY, &BASE64.encode(&key.serialize_der()))?;
        key
    };
    let mut wanted: BTreeSet<String> =
        addresses.iter().filter(|ip| !ip.is_unspecified()).map(IpAddr::to_string).collect();
    wanted.extend(["localhost".to_owned(), "127.0.0.1".to_owned()]);
    let today = date(1970, 1, 1).checked_add(i64::try_from(today())?.days())?;
    let path = folder.join(FILE);
    let kept = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
    let still = |kept: &Kept| kept.names.is_superset(&wanted) && kept.until > today.saturating_add(SPARE_DAYS.days());
    let kept = if let Some(kept) = kept.filter(still) {
        kept
    } else {
        let made = make(&key, wanted, today)?;
        hive_host::folders::write_private(&path, &serde_json::to_vec(&made)?)?;
        made
    };
    let certificate = BASE64.decode(kept.certificate.as_bytes())?;
    let view = BrowserCertificate {
        sha256: spaced(&Sha256::digest(&certificate)),
        public_key_sha256: BASE64.encode(&Sha256::digest(key.subject_public_key_info())),
    };
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(certificate)], private)?;
    Ok(Known { config: Arc::new(config), view })
}

fn make(key: &KeyPair, names: BTreeSet<String>, today: Date) -> Result<Kept, Error> {
    let (from, until) = (today.saturating_sub(1.day()), today.saturating_add(VALID_DAYS.days()));
    let mut asked = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
    let ymd =
        |date: Date| rcgen::date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs());
    (asked.not_before, asked.not_after) = (ymd(from), ymd(until));
    asked.distinguished_name = DistinguishedName::new();
    asked.distinguished_name.push(DnType::CommonName, "HiveMind");
    let made = asked.self_signed(key)?;
    Ok(Kept { certificate: BASE64.encode(made.der()), names, until })
}

/// Bytes as browsers show a fingerprint: "0A 1B …".
fn spaced(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| HEXUPPER.encode(&[*byte])).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_stays_and_the_certificate_does_until_an_address_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let view = |addresses: &[IpAddr]| open(folder.path(), addresses).unwrap().view;
        let first = view(&[ip("192.168.1.5")]);
        assert_eq!(first, view(&[ip("192.168.1.5")]));
        assert_eq!(first, view(&[]), "it has more names than are needed");
        let moved = view(&[ip("10.0.0.7")]);
        assert_eq!(first.public_key_sha256, moved.public_key_sha256);
        assert_ne!(first.sha256, moved.sha256);
        assert_eq!(first.sha256.len(), 32 * 3 - 1);
        #[cfg(unix)]
        for file in [KEY, FILE] {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(folder.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{file} is the owner's alone");
        }
    }

    #[test]
    fn a_damaged_certificate_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path(), &[]).unwrap().view;
        std::fs::write(folder.path().join(FILE), b"{").unwrap();
        let again = open(folder.path(), &[]).unwrap().view;
        assert_eq!(first.public_key_sha256, again.public_key_sha256);
    }
}
