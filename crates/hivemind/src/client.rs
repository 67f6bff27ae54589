//! Client of a running node, through its API only.
//!
//! `api.json` outlives a killed node, and by then another program, even another user's, may listen on its port. So the
//! listener must prove that it is the node of this data folder before it receives the token. This is repeated before
//! every request, because a conversation can outlive the node that it began with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use futures_util::StreamExt;
use hive_api::{LOCATION_FILE, Location, Token};
use hive_types::{ErrorBody, ErrorDetails, ErrorReply, Hello};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::failure::{Broken, Failure};

/// A node answers a hello within milliseconds; after this long it is hung.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum size of a hello's reply, in bytes. A proof is shorter; another program may send anything.
const LONGEST_HELLO_BYTES: usize = 1024;
/// Maximum time for a reply after a hello; then the node is hung. Leaves time for pairing with another machine.
const REPLY_TIMEOUT: Duration = Duration::from_mins(1);
/// Interval of hello checks during a request, so that a hung node is not waited for.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// A stream sends something at least every 15 seconds, if only a keep-alive; after this long, the node is checked.
const STREAM_POLL_INTERVAL: Duration = Duration::from_secs(20);
/// A stream that is silent for this long is broken, even if the node answers.
const STREAM_TIMEOUT: Duration = Duration::from_secs(45);

/// A running node.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    folder: PathBuf,
    address: SocketAddr,
}

/// What listens at the node's address.
enum Listener {
    /// The node of this data folder, with its token.
    Node(Token),
    /// Nothing.
    Nobody,
    /// A listener that does not answer.
    Silent,
    /// Another program.
    Other,
}

impl Client {
    /// Finds the node that runs with this data folder; `None` if none does.
    pub(crate) async fn find(folder: &Path) -> Result<Option<Self>, Failure> {
        if hive_node::data::is_held(folder) == Some(false) {
            return Ok(None);
        }
        let Ok(location) = std::fs::read(folder.join(LOCATION_FILE)) else { return Ok(None) };
        let Ok(Location { address }) = serde_json::from_slice(&location) else { return Ok(None) };
        // reqwest needs a TLS provider even for plain HTTP; installing it twice is harmless.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // No proxy and no redirects: the token must not leave this machine.
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(2))
            .build();
        let client = Self { http: http.map_err(Failure::new)?, folder: folder.to_owned(), address };
        match client.hello().await? {
            Listener::Node(_) => Ok(Some(client)),
            Listener::Nobody => Ok(None),
            listener => Err(client.not_the_node(&listener)),
        }
    }

    /// Like [`Client::find`], but fails with a hint how to start a node if none runs.
    pub(crate) async fn need(folder: &Path) -> Result<Self, Failure> {
        Self::find(folder).await?.ok_or_else(|| {
            Failure::new(format_args!("HiveMind is not running (data folder: {})", folder.display()))
                .hint("start it with `hivemind node`, or choose another data folder with --data-dir")
        })
    }

    /// Identifies the listener without revealing the token.
    async fn hello(&self) -> Result<Listener, Failure> {
        // Read again each time, since the owner may have renewed the token.
        let Some(token) = Token::read(&self.folder).map_err(Failure::new)? else { return Ok(Listener::Nobody) };
        let nonce = hive_api::nonce().map_err(Failure::new)?;
        let asked = self.http.get(self.url("/hive/v1/hello")).query(&[("nonce", HEXLOWER.encode(&nonce))]);
        let said = async {
            let mut response = asked.send().await?;
            let mut said = Vec::new();
            while said.len() <= LONGEST_HELLO_BYTES {
                let Some(piece) = response.chunk().await? else { break };
                said.extend(piece);
            }
            Ok::<_, reqwest::Error>(said)
        };
        let proves = |said: &[u8]| {
            let hello = serde_json::from_slice::<Hello>(said);
            hello.is_ok_and(|Hello { proof }| token.is_proven(&nonce, self.address, &proof))
        };
        Ok(match tokio::time::timeout(HELLO_TIMEOUT, said).await {
            Ok(Ok(said)) if proves(&said) => Listener::Node(token),
            Ok(Err(error)) if error.is_connect() && !error.is_timeout() => Listener::Nobody,
            Ok(Err(error)) if error.is_timeout() => Listener::Silent,
            Err(_) => Listener::Silent,
            Ok(_) => Listener::Other,
        })
    }

    fn not_the_node(&self, listener: &Listener) -> Failure {
        let (address, folder) = (self.address, self.folder.display());
        match listener {
            Listener::Silent => Failure::new(format_args!(
                "the node at {address} did not answer within {} seconds",
                HELLO_TIMEOUT.as_secs()
            ))
            .hint("check its output; if it hangs, stop the process and start it again"),
            Listener::Node(_) | Listener::Nobody => Failure::new(format_args!("the node at {address} has stopped"))
                .hint("start it again with `hivemind node`"),
            Listener::Other => Failure::new(format_args!(
                "another program is listening at {address}, not the node for {folder}; it was not sent the API token"
            ))
            .hint("if HiveMind was updated while running, restart it; otherwise, check which program uses that port"),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Builds a request with the token, after the node has proven its identity.
    async fn request(&self, method: reqwest::Method, path: &str) -> Result<reqwest::RequestBuilder, Failure> {
        match self.hello().await? {
            Listener::Node(token) => Ok(self.http.request(method, self.url(path)).bearer_auth(token.as_str())),
            listener => Err(self.not_the_node(&listener)),
        }
    }

    /// Waits for a request, unless the node hangs in the meantime.
    async fn watched<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                () = tokio::time::sleep(POLL_INTERVAL) => self.look().await?,
            }
        }
    }

    /// Checks that the node is alive. Tries twice, because a busy node may miss one hello.
    async fn look(&self) -> Result<(), Failure> {
        let listener = match self.hello().await? {
            Listener::Silent => self.hello().await?,
            listener => listener,
        };
        match listener {
            Listener::Silent => Err(self.not_the_node(&listener)),
            // If the node has stopped or is stopping, the broken connection reports it better.
            Listener::Node(_) | Listener::Nobody | Listener::Other => Ok(()),
        }
    }

    async fn send<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, Failure> {
        self.watched(async { read(request.send().await).await }).await?
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<T, Failure> {
        self.send(self.request(reqwest::Method::GET, path).await?.query(query).timeout(REPLY_TIMEOUT)).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.send(self.request(reqwest::Method::POST, path).await?.json(body).timeout(REPLY_TIMEOUT)).await
    }

    /// Posts a request that may take long, such as loading a model.
    pub(crate) async fn post_patiently<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        self.send(self.request(reqwest::Method::POST, path).await?.json(body)).await
    }

    pub(crate) async fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.send(self.request(reqwest::Method::PUT, path).await?.json(body).timeout(REPLY_TIMEOUT)).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<T, Failure> {
        self.send(self.request(reqwest::Method::DELETE, path).await?.query(query).timeout(REPLY_TIMEOUT)).await
    }

    /// Opens a stream of JSON events; `[DONE]` ends it.
    pub(crate) async fn stream(&self, method: reqwest::Method, path: &str, body: &Value) -> Result<Events, Failure> {
        let mut request = self.request(method, path).await?;
        if !body.is_null() {
            request = request.json(body);
        }
        let response = self.watched(request.send()).await?.map_err(broke_off)?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        Ok(Events { client: self.clone(), bytes: Box::pin(response.bytes_stream()), text: Vec::new() })
    }
}

fn silent() -> Failure {
    Failure::new("the node stopped responding").hint("check its output, or restart it")
}

async fn read<T: DeserializeOwned>(response: reqwest::Result<reqwest::Response>) -> Result<T, Failure> {
    let response = response.map_err(broke_off)?;
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    response.json().await.map_err(nonsense)
}

fn nonsense(error: impl std::fmt::Display) -> Failure {
    Failure::new(format_args!("unexpected reply from the node: {error}"))
}

#[allow(clippy::needless_pass_by_value, reason = "map_err passes it by value")]
fn broke_off(error: reqwest::Error) -> Failure {
    if error.is_timeout() { silent() } else { Failure::new(format_args!("lost the connection to the node: {error}")) }
}

async fn refusal(response: reqwest::Response) -> Failure {
    let status = response.status();
    match response.json().await {
        Ok(ErrorReply { error }) => explain(error, &status.to_string()),
        Err(_) => Failure::new(status),
    }
}

/// Converts the API's error to a failure.
fn explain(error: ErrorBody, otherwise: &str) -> Failure {
    let message = if error.message.is_empty() { otherwise } else { &error.message };
    let mut failure = Failure::new(message).hinted(error.hint.as_deref());
    failure.broken = match error.hivemind {
        Some(ErrorDetails::BrokenAnswer { text, tokens, seed }) => Some(Box::new(Broken { text, tokens, seed })),
        _ => None,
    };
    failure
}

/// Server-sent events.
pub(crate) struct Events {
    client: Client,
    bytes: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    text: Vec<u8>,
}

impl Events {
    /// The next event's data; `None` at the end.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Failure> {
        loop {
            while let Some(end) = self.text.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = self.text.drain(..end + 2).collect();
                let event = String::from_utf8_lossy(&event);
                let data: String = event.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim).collect();
                if data == "[DONE]" {
                    return Ok(None);
                }
                if let Ok(ErrorReply { error }) = serde_json::from_str(&data) {
                    return Err(explain(error, "the request failed"));
                }
                match serde_json::from_str(&data) {
                    Ok(value) => return Ok(Some(value)),
                    Err(error) if error.is_data() => return Err(nonsense(error)),
                    // An event without data is a keep-alive.
                    Err(_) => {}
                }
            }
            match self.more().await? {
                Some(Ok(bytes)) => self.text.extend(&bytes),
                Some(Err(error)) => return Err(broke_off(error)),
                None => return Ok(None),
            }
        }
    }

    /// The next bytes, unless the node or the connection hangs.
    async fn more(&mut self) -> Result<Option<reqwest::Result<bytes::Bytes>>, Failure> {
        if let Ok(more) = tokio::time::timeout(STREAM_POLL_INTERVAL, self.bytes.next()).await {
            return Ok(more);
        }
        self.client.look().await?;
        let more = tokio::time::timeout(STREAM_TIMEOUT.saturating_sub(STREAM_POLL_INTERVAL), self.bytes.next()).await;
        more.map_err(|_| silent())
    }
}

/// The data folder in use.
pub(crate) fn folder(wanted: Option<&Path>) -> Result<PathBuf, Failure> {
    match wanted {
        Some(path) => Ok(path.to_owned()),
        None => hive_node::data::default_folder().map_err(Failure::new),
    }
}
