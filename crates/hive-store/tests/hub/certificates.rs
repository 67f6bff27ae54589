//! Certificates of another time, and of nobody.

use std::sync::Arc;

use hive_store::{FindError, Hub, HubError, Settings};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::retry_policy;

/// What a client says of a server whose certificate is valid in these years.
async fn error_of(years: (i32, i32)) -> HubError {
    let key = KeyPair::generate().unwrap();
    let mut certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (certificate.not_before, certificate.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
    let certificate = certificate.self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let mut server = JoinSet::new();
    server.spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((stream, _)) = listener.accept().await {
            // The client ends it.
            let _ = acceptor.accept(stream).await;
        }
    });
    let settings = Settings { endpoint, retry_policy: retry_policy(), ..Settings::default() };
    let hub = Hub::new("/nowhere".into(), &settings).unwrap();
    match hub.find(&"owner/name".parse().unwrap()).await {
        Err(FindError::Hub(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_certificate_of_another_time_speaks_against_this_machines_clock() {
    for (years, expected) in [((1990, 2000), "has expired"), ((3000, 3001), "is not valid yet")] {
        let error = error_of(years).await;
        assert!(matches!(&error, HubError::Clock { why, .. } if *why == expected), "{error:?}");
        assert!(error.to_string().contains("check the date and time"), "{error}");
    }
}

#[tokio::test]
async fn a_certificate_of_nobody_this_machine_trusts_is_refused() {
    let error = error_of((1990, 3000)).await;
    assert!(matches!(error, HubError::Certificate { .. }), "{error:?}");
}
