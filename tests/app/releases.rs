//! A place with a newer version, on loopback, signed with a key of the test's own.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use data_encoding::BASE64;
use ring::signature::{Ed25519KeyPair, KeyPair};

/// What is served, by path.
type Files = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

pub(crate) struct Releases {
    address: String,
    files: Files,
    keys: Ed25519KeyPair,
}

/// Names the key in minisign's files.
const KEY_ID: [u8; 8] = *b"hivemind";

impl Releases {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let files = Files::default();
        let served = files.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let (Ok(mut connection), files) = (connection, served.clone()) else { return };
                let mut request = [0; 4096];
                let read = connection.read(&mut request).unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                let body = files.lock().unwrap().iter().find(|(name, _)| *name == path).map(|(_, body)| body.clone());
                let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
                let body = body.unwrap_or_default();
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                let _ = connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(&body));
            }
        });
        let keys = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        Self { address, files, keys }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/latest.json", self.address)
    }

    /// The public key, as minisign writes it.
    pub(crate) fn key(&self) -> String {
        let bytes = [b"Ed", &KEY_ID[..], self.keys.public_key().as_ref()].concat();
        BASE64.encode(format!("untrusted comment: a key for tests\n{}\n", BASE64.encode(&bytes)).as_bytes())
    }

    /// Offers a version whose file is `contents`; the publisher has signed the file `signed` as the version `as_version`.
    pub(crate) fn offer(&self, version: &str, contents: &[u8], (as_version, signed): (&str, &[u8])) {
        let signature = self.keys.sign(signed);
        let named = if as_version.is_empty() { String::new() } else { format!("\tversion:{as_version}") };
        let comment = format!("timestamp:1\tfile:app{named}");
        let both = self.keys.sign(&[signature.as_ref(), comment.as_bytes()].concat());
        let line = BASE64.encode(&[b"Ed", &KEY_ID[..], signature.as_ref()].concat());
        let text = format!(
            "untrusted comment: for tests\n{line}\ntrusted comment: {comment}\n{}\n",
            BASE64.encode(both.as_ref())
        );
        let path = format!("/app-{version}");
        let target = format!("linux-{}", std::env::consts::ARCH);
        let manifest = serde_json::json!({
            "version": version,
            "notes": "Faster.",
            "pub_date": "2026-01-01T00:00:00Z",
            "platforms": { target: {
                "signature": BASE64.encode(text.as_bytes()),
                "url": format!("http://{}{path}", self.address),
            } },
        });
        let index = ("/latest.json".to_owned(), manifest.to_string().into_bytes());
        let mut files = self.files.lock().unwrap();
        files.retain(|(name, _)| *name != index.0 && *name != path);
        files.extend([index, (path, contents.to_vec())]);
    }
}
