//! A stand-in for the hub, on loopback: its API, its files, a storage at a second address that it redirects large files
//! to, and every fault that a real one has. It keeps a record of all requests and counts the bytes it sends.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, Response, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use serde_json::json;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

/// What a body is sent in.
const CHUNK: usize = 16 << 10;

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) range: Option<Range<u64>>,
    pub(crate) authorization: Option<String>,
    /// Whether it came to the storage.
    pub(crate) at_storage: bool,
    /// How many came to the same path before it.
    pub(crate) before: usize,
}

impl Seen {
    /// Whether it asks for this file's contents.
    pub(crate) fn is_get_of(&self, file: &str) -> bool {
        self.method == Method::GET && self.path.ends_with(&format!("/{file}"))
    }
}

/// What is done to an answer.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Another status, with headers.
    Status(u16, Vec<(&'static str, &'static str)>),
    /// A redirect.
    Redirect(String),
    /// The connection breaks after this many bytes of the body.
    Cut(usize),
    /// The body ends after this many bytes, as if it were whole.
    End(usize),
    /// After this many bytes, nothing more is sent.
    Stall(usize),
    /// A pause after each chunk.
    Slow(Duration),
    /// One byte of the body is another.
    Corrupt,
    /// The whole file, whatever range was asked for.
    NoRange,
    /// A web page with status 200, of this content type.
    Page(&'static str),
    /// No header says how large the file is.
    NoSize,
}

type Faults = dyn Fn(&Seen) -> Option<Fault> + Send + Sync;

/// Files of this many bytes and more are large ones: they have a SHA-256 and are in the storage.
const LARGE: usize = 1 << 10;

/// A file, and its id: SHA-256 for a large one, else git's.
#[derive(Debug, Clone)]
pub(crate) struct File {
    contents: Bytes,
    id: String,
}

/// A repository.
#[derive(Debug, Clone, Default)]
pub(crate) struct Repo {
    /// Files by commit.
    pub(crate) commits: BTreeMap<String, BTreeMap<String, File>>,
    /// Commits by branch.
    pub(crate) branches: BTreeMap<String, String>,
    /// The token that has access, if not everybody has.
    pub(crate) gated: Option<String>,
    /// The new name.
    pub(crate) moved_to: Option<String>,
    /// Whether the list has no sizes and checksums.
    pub(crate) has_bare_list: bool,
    /// Sizes that the list claims.
    pub(crate) claims: BTreeMap<String, u64>,
}

impl Repo {
    /// A repository with one commit, which is `main`.
    pub(crate) fn new(files: &[(&str, Bytes)]) -> Self {
        let mut repo = Self::default();
        repo.commit("main", &"c0ffee00".repeat(5), files);
        repo
    }

    /// Moves a branch on.
    pub(crate) fn commit(&mut self, branch: &str, commit: &str, files: &[(&str, Bytes)]) {
        let file = |contents: &Bytes| {
            let id = if contents.len() < LARGE { git(contents) } else { sha256(contents) };
            File { contents: contents.clone(), id }
        };
        let files = files.iter().map(|(name, contents)| ((*name).to_owned(), file(contents))).collect();
        self.commits.insert(commit.to_owned(), files);
        self.branches.insert(branch.to_owned(), commit.to_owned());
    }
}

struct State {
    hub: String,
    storage: String,
    repos: Mutex<BTreeMap<String, Repo>>,
    faults: Mutex<Box<Faults>>,
    seen: Mutex<Vec<Seen>>,
    /// Bytes of files that were sent.
    sent: AtomicU64,
}

/// A running hub; it ends when it is dropped.
pub(crate) struct StandIn {
    state: Arc<State>,
    _servers: JoinSet<()>,
}

impl StandIn {
    /// Starts a hub with this repository as `owner/name`.
    pub(crate) fn start(repo: Repo) -> Self {
        let [hub, storage] = [listen(), listen()];
        let url = |listener: &tokio::net::TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            hub: url(&hub),
            storage: url(&storage),
            repos: Mutex::new(BTreeMap::from([("owner/name".to_owned(), repo)])),
            faults: Mutex::new(Box::new(|_| None)),
            seen: Mutex::default(),
            sent: AtomicU64::new(0),
        });
        let mut servers = JoinSet::new();
        for (listener, at_storage) in [(hub, false), (storage, true)] {
            let of_server = Arc::clone(&state);
            let answer = move |request: Request| std::future::ready(answer(&of_server, &request, at_storage));
            servers.spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await.unwrap() });
        }
        Self { state, _servers: servers }
    }

    pub(crate) fn url(&self) -> String {
        self.state.hub.clone()
    }

    /// From now on, answers have these faults.
    pub(crate) fn faults(&self, faults: impl Fn(&Seen) -> Option<Fault> + Send + Sync + 'static) {
        *self.state.faults.lock().unwrap() = Box::new(faults);
    }

    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Repo)) {
        change(self.state.repos.lock().unwrap().entry(name.to_owned()).or_default());
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// Bytes of files that were sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::SeqCst)
    }
}

fn listen() -> tokio::net::TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    // What lies in the system's buffers counts as sent. Less than a segment of loopback (64 KiB) would stall the sender.
    // What lies in the system's buffers counts as sent. Less than this makes a sender on loopback wait for receipts.
    socket.set_send_buffer_size(256 << 10).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket.listen(64).unwrap()
}

fn answer(state: &Arc<State>, request: &Request, at_storage: bool) -> Response<Body> {
    let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let path = request.uri().path().to_owned();
    let mut seen = Seen {
        method: request.method().clone(),
        range: header(header::RANGE).and_then(|range| range_of(&range)),
        authorization: header(header::AUTHORIZATION),
        at_storage,
        before: 0,
        path,
    };
    {
        let mut all = state.seen.lock().unwrap();
        seen.before = all.iter().filter(|other| (&other.path, other.at_storage) == (&seen.path, at_storage)).count();
        all.push(seen.clone());
    }
    let fault = (state.faults.lock().unwrap())(&seen);
    match fault {
        Some(Fault::Status(status, headers)) => return respond(status, &headers),
        Some(Fault::Redirect(to)) => return respond(302, &[("location", &to)]),
        Some(Fault::Page(kind)) => {
            return respond_with(200, &[("content-type", kind)], Body::from("<html>Log in</html>"));
        }
        _ => {}
    }
    if at_storage {
        let commit_and_file = seen.path.trim_start_matches("/storage/").split_once('/');
        let repos = state.repos.lock().unwrap();
        let mut all = repos.values().flat_map(|repo| &repo.commits);
        let found = commit_and_file.and_then(|(commit, file)| all.find(|(id, _)| *id == commit)?.1.get(file));
        return found.map_or_else(|| respond(404, &[]), |file| contents(state, &seen, &file.contents, fault, &[]));
    }
    let path = seen.path.replace("%2F", "\0");
    let parts: Vec<String> = path.trim_start_matches('/').split('/').map(|part| part.replace('\0', "/")).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["api", "models", owner, name, "revision", revision] => api(state, &format!("{owner}/{name}"), revision),
        ["api", "models", owner, name, "tree", commit] => tree(state, &format!("{owner}/{name}"), commit),
        [owner, name, "resolve", revision, file @ ..] => {
            resolve(state, &seen, &format!("{owner}/{name}"), revision, &file.join("/"), fault)
        }
        _ => respond(404, &[]),
    }
}

/// The repository at a revision.
fn api(state: &State, name: &str, revision: &str) -> Response<Body> {
    let repos = state.repos.lock().unwrap();
    let Some(repo) = repos.get(name) else { return respond(401, &[("x-error-code", "RepoNotFound")]) };
    if let Some(new) = &repo.moved_to {
        return respond(307, &[("location", &format!("/api/models/{new}/revision/{revision}?blobs=true"))]);
    }
    let commit = repo.branches.get(revision).map_or(revision, String::as_str);
    let Some(files) = repo.commits.get(commit) else { return respond(404, &[("x-error-code", "RevisionNotFound")]) };
    let sibling = |(name, File { contents, id }): (&String, &File)| {
        let size = repo.claims.get(name).copied().unwrap_or(contents.len() as u64);
        match contents.len() {
            _ if repo.has_bare_list => json!({ "rfilename": name }),
            LARGE.. => {
                let lfs = json!({ "sha256": id, "size": size, "pointerSize": 134 });
                json!({ "rfilename": name, "size": size, "blobId": git(b"a pointer"), "lfs": lfs })
            }
            _ => json!({ "rfilename": name, "size": size, "blobId": id }),
        }
    };
    let siblings: Vec<_> = files.iter().map(sibling).collect();
    let gated = if repo.gated.is_some() { json!("manual") } else { json!(false) };
    let body = json!({ "id": name, "sha": commit, "private": false, "gated": gated, "siblings": siblings });
    axum::Json(body).into_response()
}

/// The files of a commit, which `huggingface_hub` asks for.
fn tree(state: &State, name: &str, commit: &str) -> Response<Body> {
    let repos = state.repos.lock().unwrap();
    let files = repos.get(name).and_then(|repo| repo.commits.get(commit));
    let Some(files) = files else { return respond(404, &[("x-error-code", "RevisionNotFound")]) };
    let entry = |(path, File { contents, id }): (&String, &File)| match contents.len() {
        size @ LARGE.. => {
            let lfs = json!({ "oid": id, "size": size, "pointerSize": 134 });
            json!({ "type": "file", "path": path, "size": size, "oid": git(b"a pointer"), "lfs": lfs })
        }
        size => json!({ "type": "file", "path": path, "size": size, "oid": id }),
    };
    axum::Json(files.iter().map(entry).collect::<Vec<_>>()).into_response()
}

/// A file, or where it is.
fn resolve(
    state: &Arc<State>,
    seen: &Seen,
    name: &str,
    revision: &str,
    file: &str,
    fault: Option<Fault>,
) -> Response<Body> {
    let repos = state.repos.lock().unwrap();
    let Some(repo) = repos.get(name) else { return respond(401, &[("x-error-code", "RepoNotFound")]) };
    if let Some(new) = &repo.moved_to {
        return respond(307, &[("location", &format!("/{new}/resolve/{revision}/{file}"))]);
    }
    let commit = repo.branches.get(revision).map_or(revision, String::as_str);
    let Some(File { contents: bytes, id }) = repo.commits.get(commit).and_then(|files| files.get(file)) else {
        return respond(404, &[("x-error-code", "EntryNotFound")]);
    };
    if let Some(token) = &repo.gated
        && seen.authorization != Some(format!("Bearer {token}"))
    {
        let status = if seen.authorization.is_some() { 403 } else { 401 };
        return respond(status, &[("x-error-code", "GatedRepo"), ("x-error-message", "Access is restricted.")]);
    }
    let tag = format!("\"{id}\"");
    if bytes.len() < LARGE {
        return contents(state, seen, bytes, fault, &[("x-repo-commit", commit), ("etag", &tag)]);
    }
    let size = bytes.len().to_string();
    let to = format!("{}/storage/{commit}/{file}", state.storage);
    let mut headers = vec![("x-repo-commit", commit), ("x-linked-etag", &tag), ("location", &to)];
    if !matches!(fault, Some(Fault::NoSize)) {
        headers.push(("x-linked-size", &size));
    }
    respond(302, &headers)
}

/// A file's bytes, or a range of them, with a fault.
fn contents(
    state: &Arc<State>,
    seen: &Seen,
    all: &Bytes,
    fault: Option<Fault>,
    headers: &[(&str, &str)],
) -> Response<Body> {
    let range = seen.range.clone().filter(|_| !matches!(fault, Some(Fault::NoRange)));
    let whole = 0..all.len() as u64;
    let asked = range.clone().unwrap_or_else(|| whole.clone());
    let (start, end) = (asked.start as usize, (asked.end as usize).min(all.len()));
    if start >= end && !all.is_empty() {
        return respond(416, &[]);
    }
    let mut bytes = all.slice(start..end);
    if matches!(fault, Some(Fault::Corrupt)) {
        let mut wrong = bytes.to_vec();
        wrong[0] ^= 1;
        bytes = wrong.into();
    }
    let length = bytes.len().to_string();
    let place = format!("bytes {start}-{}/{}", end.saturating_sub(1), all.len());
    let mut headers = headers.to_vec();
    if range.is_some() {
        headers.push(("content-range", &place));
    }
    if !matches!(fault, Some(Fault::End(_) | Fault::NoSize)) {
        headers.push(("content-length", &length));
    }
    let bytes = if seen.method == Method::HEAD { Bytes::new() } else { bytes };
    let body = body(state, bytes, fault);
    respond_with(if range.is_some() { 206 } else { 200 }, &headers, body)
}

/// Sends bytes in chunks, and counts them.
fn body(state: &Arc<State>, bytes: Bytes, fault: Option<Fault>) -> Body {
    let counted = Arc::clone(state);
    let chunks = futures_util::stream::unfold((bytes, 0), move |(mut rest, sent)| {
        let (counted, fault) = (Arc::clone(&counted), fault.clone());
        async move {
            match fault {
                Some(Fault::Cut(after)) if sent >= after => {
                    // What was sent before reaches the network first.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    return Some((Err(std::io::Error::other("cut")), (Bytes::new(), sent)));
                }
                Some(Fault::End(after)) if sent >= after => return None,
                Some(Fault::Stall(after)) if sent >= after => std::future::pending().await,
                Some(Fault::Slow(pause)) => tokio::time::sleep(pause).await,
                _ => {}
            }
            let chunk = rest.split_to(CHUNK.min(rest.len()));
            counted.sent.fetch_add(chunk.len() as u64, Ordering::SeqCst);
            let sent = sent + chunk.len();
            (!chunk.is_empty()).then_some((Ok(chunk), (rest, sent)))
        }
    });
    Body::from_stream(chunks)
}

fn respond(status: u16, headers: &[(&str, &str)]) -> Response<Body> {
    respond_with(status, headers, Body::empty())
}

fn respond_with(status: u16, headers: &[(&str, &str)], body: Body) -> Response<Body> {
    let named = |(name, value): &(&str, &str)| {
        (name.parse::<header::HeaderName>().unwrap(), value.parse::<header::HeaderValue>().unwrap())
    };
    let headers: HeaderMap = headers.iter().map(named).collect();
    (StatusCode::from_u16(status).unwrap(), headers, body).into_response()
}

fn range_of(text: &str) -> Option<Range<u64>> {
    let (start, end) = text.strip_prefix("bytes=")?.split_once('-')?;
    Some(start.parse().ok()?..end.parse::<u64>().ok()? + 1)
}

pub(crate) fn sha256(contents: &[u8]) -> String {
    HEXLOWER.encode(digest(&SHA256, contents).as_ref())
}

pub(crate) fn git(contents: &[u8]) -> String {
    let whole = [format!("blob {}\0", contents.len()).as_bytes(), contents].concat();
    HEXLOWER.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &whole).as_ref())
}
