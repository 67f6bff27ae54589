//! Requests to a node's API as bytes on a connection, for what no client library does.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;

use serde_json::Value;

/// A request that has been sent.
pub(crate) struct Asked {
    stream: TcpStream,
    /// What has come back so far.
    pub(crate) said: String,
}

/// Sends a request to the node of a data folder.
pub(crate) fn ask(folder: &Path, method: &str, path: &str, body: &Value) -> Asked {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let location: Value = serde_json::from_str(&read("api.json")).unwrap();
    let address = location["address"].as_str().unwrap();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(super::timeout::TEST_TIMEOUT)).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        read("api-token").trim(),
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    Asked { stream, said: String::new() }
}

/// The status of an answer, and its body.
pub(crate) fn answer(folder: &Path, method: &str, path: &str, body: &Value) -> (u16, Value) {
    ask(folder, method, path, body).whole()
}

impl Asked {
    /// Says that nothing more will be asked.
    pub(crate) fn close_own_direction(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Reads until so much has come that these words are in it.
    #[track_caller]
    pub(crate) fn read_until(&mut self, words: &str) {
        let mut piece = [0; 4096];
        while !self.said.contains(words) {
            let read = self.stream.read(&mut piece).unwrap();
            assert!(read > 0, "\"{words}\" is missing in: {}", self.said);
            self.said += &String::from_utf8_lossy(&piece[..read]);
        }
    }

    /// Reads to the end; an end that is none is part of it.
    pub(crate) fn read_to_end(&mut self) {
        let mut rest = Vec::new();
        let ended = self.stream.read_to_end(&mut rest);
        self.said += &String::from_utf8_lossy(&rest);
        if let Err(error) = ended {
            self.said += &error.to_string();
        }
    }

    /// The status and the body, which is JSON.
    #[track_caller]
    pub(crate) fn whole(mut self) -> (u16, Value) {
        self.read_to_end();
        let answer = self.said.rsplit_once("HTTP/1.1 ").expect("it is an answer").1;
        let (head, body) = answer.split_once("\r\n\r\n").expect("it has a body");
        let status = head.get(..3).and_then(|status| status.parse().ok()).expect("it has a status");
        (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {}", self.said)))
    }
}
