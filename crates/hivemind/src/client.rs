//! Asks a running node, through its API and nothing else.
//!
//! `api.json` outlives a node that was killed, and by then another program, of another user even, may listen on its port.
//! So whoever listens there has to prove that it is the node of this data folder before it is sent the token, and before
//! every single request: a conversation can outlive the node that it began with.

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

/// A node answers a hello within milliseconds; one that takes this long hangs.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// A proof is shorter; another program may send anything.
const LONGEST_HELLO_BYTES: usize = 1024;
/// A node that has just said hello and does not answer for so long hangs. Pairing waits for another machine, and takes
/// longer.
const REPLY_TIMEOUT: Duration = Duration::from_mins(1);
/// While an answer is waited for, so often it is seen whether the node still says hello: one that hangs is not waited for.
const LOOK: Duration = Duration::from_secs(5);
/// A stream brings something every 15 seconds, if only that it is still there.
const STREAM_LOOK: Duration = Duration::from_secs(20);
/// One that brings nothing for so long has broken, though the node is there.
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
    /// The node of this data folder, and the token that it takes.
    Node(Token),
    /// Nothing.
    Nobody,
    /// Something that does not answer.
    Silent,
    /// Another program.
    Other,
}

impl Client {
    /// The node that runs with this data folder; `None` where none does.
    pub(crate) async fn find(folder: &Path) -> Result<Option<Self>, Failure> {
        if hive_node::data::is_held(folder) == Some(false) {
            return Ok(None);
        }
        let Ok(location) = std::fs::read(folder.join(LOCATION_FILE)) else { return Ok(None) };
        let Ok(Location { address }) = serde_json::from_slice(&location) else { return Ok(None) };
        // The HTTP client wants a TLS library to be chosen even for plain HTTP; installing it twice does no harm.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Never through a proxy, and never on to somewhere else: the token is for this machine.
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

    /// The node, or a failure that says how to start one.
    pub(crate) async fn need(folder: &Path) -> Result<Self, Failure> {
        Self::find(folder).await?.ok_or_else(|| {
            Failure::new(format_args!("HiveMind is not running (data folder: {})", folder.display()))
                .hint("start it with `hivemind node`, or choose another data folder with --data-dir")
        })
    }

    /// Finds out who listens, without telling anything.
    async fn hello(&self) -> Result<Listener, Failure> {
        // The owner may have renewed it since the last request.
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

    /// A request with the token, now that the node has proven itself.
    async fn request(&self, method: reqwest::Method, path: &str) -> Result<reqwest::RequestBuilder, Failure> {
        match self.hello().await? {
            Listener::Node(token) => Ok(self.http.request(method, self.url(path)).bearer_auth(token.as_str())),
            listener => Err(self.not_the_node(&listener)),
        }
    }

    /// What comes of a request, unless the node hangs meanwhile.
    async fn watched<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                () = tokio::time::sleep(LOOK) => self.look().await?,
            }
        }
    }

    /// Whether the node still is there. It is asked twice: one that has much to do may miss a hello.
    async fn look(&self) -> Result<(), Failure> {
        let listener = match self.hello().await? {
            Listener::Silent => self.hello().await?,
            listener => listener,
        };
        match listener {
            Listener::Silent => Err(self.not_the_node(&listener)),
            // What has ended breaks the connection, which says more; so does a node that is about to end.
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

    /// Asks for what may take long, such as loading a model.
    pub(crate) async fn post_patiently<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        self.send(self.request(reqwest::Method::POST, path).await?.json(body)).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<T, Failure> {
        self.send(self.request(reqwest::Method::DELETE, path).await?.query(query).timeout(REPLY_TIMEOUT)).await
    }

    /// The events of a stream, as JSON; `[DONE]` ends it.
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

#[allow(clippy::needless_pass_by_value, reason = "it stands in map_err")]
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

/// The API's error, in the words it came with.
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
                    // Without data it only says that the stream is still there.
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

    /// The next bytes, unless the node hangs, or the connection to it.
    async fn more(&mut self) -> Result<Option<reqwest::Result<bytes::Bytes>>, Failure> {
        if let Ok(more) = tokio::time::timeout(STREAM_LOOK, self.bytes.next()).await {
            return Ok(more);
        }
        self.client.look().await?;
        let more = tokio::time::timeout(STREAM_TIMEOUT.saturating_sub(STREAM_LOOK), self.bytes.next()).await;
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
