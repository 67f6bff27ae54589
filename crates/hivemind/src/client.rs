//! Asks a running node, through its API and nothing else.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use hive_api::{LOCATION_FILE, Location, Token};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Broken, Failure};

/// A node that does not answer on loopback for so long hangs. Pairing waits for another machine, and takes longer.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running node.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: Token,
}

impl Client {
    /// The node that runs with this data folder; `None` where none does.
    pub(crate) async fn find(folder: &Path) -> Result<Option<Self>, Failure> {
        let Ok(location) = std::fs::read(folder.join(LOCATION_FILE)) else { return Ok(None) };
        let Ok(Location { address }) = serde_json::from_slice(&location) else { return Ok(None) };
        let token = Token::read(folder).map_err(Failure::new)?;
        let Some(token) = token else { return Ok(None) };
        // The HTTP client wants a TLS library to be chosen even for plain HTTP; installing it twice does no harm.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Never through a proxy: the token is for this machine.
        let http = reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(2)).build();
        let client = Self { http: http.map_err(Failure::new)?, base: format!("http://{address}"), token };
        // The file outlives a node that was killed.
        match client.request(reqwest::Method::GET, "/hive/v1/status").timeout(PATIENCE).send().await {
            Ok(response) if response.status().is_success() => Ok(Some(client)),
            Ok(response) => Err(refusal(response).await),
            Err(error) if error.is_connect() => Ok(None),
            Err(error) => Err(Failure::new(format_args!("the node at {address} does not answer: {error}"))),
        }
    }

    /// The node, or a failure that says how to start one.
    pub(crate) async fn need(folder: &Path) -> Result<Self, Failure> {
        Self::find(folder).await?.ok_or_else(|| {
            Failure::new(format_args!("no node runs with {}", folder.display()))
                .hint("start one with `hivemind node`, or name its folder with --data-dir")
        })
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(self.token.as_str())
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<T, Failure> {
        read(self.request(reqwest::Method::GET, path).query(query).timeout(PATIENCE).send().await).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        read(self.request(reqwest::Method::POST, path).json(body).timeout(PATIENCE).send().await).await
    }

    /// Asks for what may take long, such as loading a model.
    pub(crate) async fn post_patiently<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        read(self.request(reqwest::Method::POST, path).json(body).send().await).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<T, Failure> {
        read(self.request(reqwest::Method::DELETE, path).query(query).timeout(PATIENCE).send().await).await
    }

    /// The events of a stream, as JSON; `[DONE]` ends it.
    pub(crate) async fn stream(&self, method: reqwest::Method, path: &str, body: &Value) -> Result<Events, Failure> {
        let mut request = self.request(method, path);
        if !body.is_null() {
            request = request.json(body);
        }
        let response = request.send().await.map_err(broke_off)?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        Ok(Events { bytes: Box::pin(response.bytes_stream()), text: Vec::new() })
    }
}

async fn read<T: DeserializeOwned>(response: reqwest::Result<reqwest::Response>) -> Result<T, Failure> {
    let response = response.map_err(broke_off)?;
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    response.json().await.map_err(|error| Failure::new(format_args!("the node's answer makes no sense: {error}")))
}

#[allow(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn broke_off(error: reqwest::Error) -> Failure {
    if error.is_timeout() {
        Failure::new("the node does not answer").hint("look at what it says where it runs, or restart it")
    } else {
        Failure::new(format_args!("the connection to the node broke: {error}"))
    }
}

async fn refusal(response: reqwest::Response) -> Failure {
    let status = response.status();
    let body: Value = response.json().await.unwrap_or_default();
    explain(&body, &status.to_string())
}

/// The API's error, in the words it came with.
fn explain(body: &Value, otherwise: &str) -> Failure {
    let mut failure = Failure::new(body["error"]["message"].as_str().unwrap_or(otherwise));
    failure.broken = broken(&body["error"]["hivemind"]).map(Box::new);
    match body["error"]["hint"].as_str() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// What there is of an answer that broke off.
fn broken(so_far: &Value) -> Option<Broken> {
    let tokens = so_far["tokens"].as_array()?.iter();
    Some(Broken {
        text: so_far["text"].as_str()?.to_owned(),
        tokens: tokens.map(|token| u32::try_from(token.as_u64()?).ok()).collect::<Option<_>>()?,
        seed: so_far["seed"].as_u64()?,
    })
}

/// Server-sent events.
pub(crate) struct Events {
    bytes: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    text: Vec<u8>,
}

impl Events {
    /// The next event's data; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>, Failure> {
        loop {
            while let Some(end) = self.text.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = self.text.drain(..end + 2).collect();
                let event = String::from_utf8_lossy(&event);
                let data: String = event.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim).collect();
                if data == "[DONE]" {
                    return Ok(None);
                }
                if let Ok(value) = serde_json::from_str::<Value>(&data) {
                    return if value["error"].is_object() {
                        Err(explain(&value, "it failed"))
                    } else {
                        Ok(Some(value))
                    };
                }
            }
            match self.bytes.next().await {
                Some(Ok(bytes)) => self.text.extend(&bytes),
                Some(Err(error)) => return Err(broke_off(error)),
                None => return Ok(None),
            }
        }
    }
}

/// The data folder in use.
pub(crate) fn folder(wish: Option<&Path>) -> Result<PathBuf, Failure> {
    match wish {
        Some(path) => Ok(path.to_owned()),
        None => hive_node::data::default_folder().map_err(Failure::new),
    }
}
