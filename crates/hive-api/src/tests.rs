//! The API as a client sees it: a real server on its own port, over HTTP.

mod browsers;
mod presets;
mod wire;

use std::time::Duration;

use hive_mind::Store;
use hive_types::{Hello, Right};
use reqwest::{Method, StatusCode};

use super::*;
use crate::rights::Needs;

/// Upper bound that ends a hanging test; nothing here takes this long.
const TEST_TIMEOUT: Duration = Duration::from_mins(1);

struct Running {
    folder: tempfile::TempDir,
    node: Node,
    api: Api,
    http: reqwest::Client,
}

impl Running {
    async fn start() -> Self {
        Self::start_for(Allowed::default()).await
    }

    async fn start_for(allowed: Allowed) -> Self {
        // reqwest needs a TLS provider even for plain HTTP; installing it twice is harmless.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let options = hive_node::NodeOptions::new("test".to_owned(), loopback);
        let data = Some(hive_node::data::DataFolder::open(folder.path()).unwrap());
        // Without sharing, the node skips its measurements at startup.
        let node = Node::start(hive_node::NodeOptions { data, share: false, ..options }).await.unwrap();
        let chats = chats(Store::open(folder.path()).unwrap(), node.clone());
        let api = Api::start(node.clone(), chats, loopback, allowed, folder.path()).await.unwrap();
        let http = reqwest::Client::builder().no_proxy().timeout(TEST_TIMEOUT).build().unwrap();
        Self { folder, node, api, http }
    }

    fn owner(&self) -> String {
        Token::read(self.folder.path()).unwrap().unwrap().as_str().to_owned()
    }

    fn ask(&self, token: Option<&str>, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method: Method = method.parse().unwrap();
        let request = self.http.request(method, format!("http://{}{path}", self.api.address()));
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn add(&self, name: &str, may: &[Right]) -> String {
        let wanted = serde_json::json!({ "name": name, "may": may });
        let made = self.ask(Some(&self.owner()), "POST", "/hive/v1/tokens").json(&wanted).send().await.unwrap();
        assert_eq!(made.status(), StatusCode::OK);
        let made: serde_json::Value = made.json().await.unwrap();
        made["token"].as_str().unwrap().to_owned()
    }

    async fn stop(self) {
        drop(self.api);
        self.node.stop().await;
    }
}

async fn error_of(response: reqwest::Response) -> (StatusCode, serde_json::Value) {
    let status = response.status();
    let body: serde_json::Value = response.json().await.unwrap_or_default();
    (status, body["error"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_changes_stands_in_the_audit_log_under_its_name() {
    let running = Running::start().await;
    let token = running.add("notes", &[Right::Chat, Right::Machines]).await;
    let ask = async |token: &str, method: &str, path: &str| {
        let request = running.ask(Some(token), method, path).json(&serde_json::json!({}));
        request.send().await.unwrap().status()
    };
    assert_eq!(ask(&token, "GET", "/hive/v1/status").await, StatusCode::OK);
    assert_eq!(ask(&token, "POST", "/hive/v1/quit").await, StatusCode::FORBIDDEN);
    assert_eq!(ask(&token, "POST", "/hive/v1/invites").await, StatusCode::OK);
    assert_eq!(ask(&running.owner(), "POST", "/hive/v1/invites").await, StatusCode::OK);
    let log = running.ask(Some(&running.owner()), "GET", "/hive/v1/log").send().await.unwrap();
    let log: serde_json::Value = log.json().await.unwrap();
    let entries = log["entries"].as_array().unwrap().iter();
    let actions: Vec<_> = entries.filter(|entry| entry["event"] == "admin_action").collect();
    assert_eq!(actions.len(), 1, "{log}");
    assert_eq!(actions[0]["text"], "the program \"notes\" did this: POST /hive/v1/invites");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_wants_a_token_with_its_right() {
    let running = Running::start().await;
    let mut tokens = Vec::new();
    for right in Right::ALL {
        tokens.push((right, running.add(right.as_str(), &[right]).await));
    }
    let mut routes = local_routes().into_parts().1;
    routes.extend(server_routes().into_parts().1);
    assert!(routes.len() > 40, "{routes:?}");
    for ((pattern, method), needs) in routes {
        let method = method.as_str();
        let path = pattern
            .replace("{who}", "nobody")
            .replace("{id}", "none")
            .replace("{name}", "none")
            .replace("{*id}", "a/b");
        let (status, error) = error_of(running.ask(None, method, &path).send().await.unwrap()).await;
        let Needs::OneOf(rights) = needs else {
            assert_ne!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
            continue;
        };
        assert_eq!((status, &error["code"]), (StatusCode::UNAUTHORIZED, &"unauthorized".into()), "{method} {path}");
        for (right, token) in &tokens {
            let response = running.ask(Some(token), method, &path).send().await.unwrap();
            if rights.contains(right) {
                assert_ne!(response.status(), StatusCode::FORBIDDEN, "{method} {path} with {right}");
                assert_ne!(response.status(), StatusCode::UNAUTHORIZED, "{method} {path} with {right}");
                continue;
            }
            let (status, error) = error_of(response).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path} with {right}");
            assert_eq!((&error["code"], &error["type"]), (&"missing_right".into(), &"invalid_request_error".into()));
            assert_eq!(error["hivemind"]["missing"], serde_json::json!(rights));
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(&format!("lacks the right \"{}\"", rights[0])), "{message}");
        }
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_opens_nothing_and_its_stream_ends_at_once() {
    let running = Running::start().await;
    for renew in [false, true] {
        let token = running.add("monitor", &[Right::Machines]).await;
        let mut stream = running.ask(Some(&token), "GET", "/hive/v1/events").send().await.unwrap();
        assert!(stream.chunk().await.unwrap().is_some(), "it runs");
        let (method, path) =
            if renew { ("POST", "/hive/v1/tokens/monitor/renew") } else { ("DELETE", "/hive/v1/tokens/monitor") };
        let done = running.ask(Some(&running.owner()), method, path).send().await.unwrap();
        assert_eq!(done.status(), StatusCode::OK);
        let mut rest = Vec::new();
        while let Some(piece) = tokio::time::timeout(TEST_TIMEOUT, stream.chunk()).await.expect("it continues").unwrap()
        {
            rest.extend(piece);
        }
        let rest = String::from_utf8(rest).unwrap();
        assert!(rest.contains("\"code\":\"revoked\"") && rest.ends_with("data: [DONE]\n\n"), "{rest}");
        let (status, _) = error_of(running.ask(Some(&token), "GET", "/hive/v1/status").send().await.unwrap()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owners_token_is_renewed_for_whoever_asks_with_it() {
    let running = Running::start().await;
    let before = running.owner();
    let mut stream = running.ask(Some(&before), "GET", "/hive/v1/events").send().await.unwrap();
    let renewed = running.ask(Some(&before), "POST", "/hive/v1/owner-token/renew").send().await.unwrap();
    assert_eq!(renewed.status(), StatusCode::OK, "the request that renews it is answered");
    assert!(!renewed.text().await.unwrap().contains("hive-"), "the new one is in the file, not in the answer");
    while tokio::time::timeout(TEST_TIMEOUT, stream.chunk()).await.expect("it continues").unwrap().is_some() {}
    let status = async |token: &str| running.ask(Some(token), "GET", "/hive/v1/status").send().await.unwrap().status();
    assert_eq!(status(&before).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&running.owner()).await, StatusCode::OK);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_proves_itself_to_whoever_asks() {
    let running = Running::start().await;
    let token = Token::read(running.folder.path()).unwrap().unwrap();
    let number = nonce().unwrap();
    let hello =
        async |nonce: &str| running.ask(None, "GET", &format!("/hive/v1/hello?nonce={nonce}")).send().await.unwrap();
    let said: Hello = hello(&data_encoding::HEXLOWER.encode(&number)).await.json().await.unwrap();
    assert!(token.is_proven(&number, running.api.address(), &said.proof));
    assert!(!token.is_proven(&nonce().unwrap(), running.api.address(), &said.proof));
    assert_eq!(hello("00").await.status(), StatusCode::BAD_REQUEST);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_quotes_a_stranger_is_one_visible_line() {
    let running = Running::start().await;
    let path = "/hive/v1/peers/a%1B%5D0%3Bb%07%E2%80%AEc%0Ad/remove";
    let (status, error) = error_of(running.ask(Some(&running.owner()), "POST", path).send().await.unwrap()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("a]0;bc d") && !message.chars().any(char::is_control), "{message:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_refused_is_refused_in_json_with_what_is_wrong() {
    let running = Running::start().await;
    let owner = running.owner();
    let chat = "/v1/chat/completions";
    let message = |content: serde_json::Value| serde_json::json!([{ "role": "user", "content": content }]);
    let long = "a".repeat(3 << 20);
    let too_long = " ".repeat(crate::openai::LONGEST_BODY_BYTES + 1);
    let cases = [
        ("GET", chat, String::new(), 405, "method_not_allowed", None),
        ("POST", "/hive/v1/sharing", "{\"on\": 5}".to_owned(), 415, "invalid_request", None),
        ("POST", chat, String::new(), 400, "invalid_json", None),
        ("POST", chat, "{".to_owned(), 400, "invalid_json", None),
        (
            "POST",
            chat,
            serde_json::json!({ "messages": message(5.into()) }).to_string(),
            400,
            "invalid_value",
            Some("messages[0].content"),
        ),
        // Three megabytes arrive and are parsed.
        (
            "POST",
            chat,
            serde_json::json!({ "messages": message(long.into()), "n": 2 }).to_string(),
            400,
            "unsupported",
            Some("n"),
        ),
        ("POST", chat, too_long, 413, "too_long", None),
        ("GET", "/v1/models/nobody/nothing", String::new(), 404, "model_not_found", None),
        ("GET", "/chat/completions", String::new(), 404, "not_found", None),
        ("POST", "/v1/completions", "{}".to_owned(), 404, "not_served", None),
        ("POST", "/v1/responses/", "{}".to_owned(), 404, "not_served", None),
        ("POST", "/v1/embeddings", "{}".to_owned(), 404, "not_served", None),
        ("POST", "/v1/audio/speech", "{}".to_owned(), 404, "not_served", None),
    ];
    for (method, path, body, status, code, field) in cases {
        let shown: String = body.chars().take(80).collect();
        let response = running.ask(Some(&owner), method, path).body(body).send().await.unwrap();
        let (found, error) = error_of(response).await;
        assert_eq!((found.as_u16(), &error["code"]), (status, &code.into()), "{method} {path} {shown}: {error}");
        assert_eq!(error["param"], serde_json::json!(field), "{method} {path} {shown}: {error}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
        // Expected advice: the beginning of a base URL, or of the hint.
        let advice = match code {
            "not_found" => "/v1 as their base URL",
            "not_served" => "POST /v1/chat/completions",
            _ => continue,
        };
        assert!(error["hint"].as_str().is_some_and(|hint| hint.contains(advice)), "{error}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slashes_too_many_in_an_address_change_nothing() {
    let running = Running::start().await;
    for path in ["/v1/models", "/v1/models/", "//v1//models", "/v1//models//"] {
        let listed = running.ask(Some(&running.owner()), "GET", path).send().await.unwrap();
        assert_eq!(listed.status(), StatusCode::OK, "{path}");
        // A token is required all the same.
        let refused = running.ask(None, "GET", path).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_the_owner_has_named_is_asked_and_served_as_browsers_want_it() {
    const PAGE: &str = "app://obsidian.md";
    let running = Running::start_for(Allowed::new(&[PAGE.to_owned()], &["hive.test".to_owned()]).unwrap()).await;
    let owner = running.owner();
    let url = format!("http://{}/v1/chat/completions", running.api.address());
    let preflight = |origin: &str| {
        let asked = running.http.request(Method::OPTIONS, &url).header("origin", origin);
        let asked = asked.header("access-control-request-method", "POST");
        asked.header("access-control-request-headers", "authorization,content-type,x-stainless-os").send()
    };
    // A browser sends a preflight before the token.
    let may = preflight(PAGE).await.unwrap();
    assert_eq!(may.status(), StatusCode::NO_CONTENT);
    let said = |response: &reqwest::Response, name: &str| {
        response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(said(&may, "access-control-allow-origin").as_deref(), Some(PAGE));
    assert_eq!(
        said(&may, "access-control-allow-headers").as_deref(),
        Some("authorization,content-type,x-stainless-os")
    );
    assert!(said(&may, "access-control-allow-methods").unwrap().contains("POST"));
    assert_eq!(said(&may, "vary").as_deref(), Some("origin"));
    let refused = preflight("https://evil.example").await.unwrap();
    assert_eq!((refused.status(), said(&refused, "access-control-allow-origin")), (StatusCode::FORBIDDEN, None));

    let ask =
        |origin: &str, token: Option<&str>| running.ask(token, "GET", "/v1/models").header("origin", origin).send();
    // The page may read responses, errors included.
    for (token, status) in [(Some(owner.as_str()), StatusCode::OK), (None, StatusCode::UNAUTHORIZED)] {
        let answer = ask(PAGE, token).await.unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(said(&answer, "access-control-allow-origin").as_deref(), Some(PAGE));
    }
    for foreign in ["https://evil.example", "null", "app://obsidian.md.evil.example"] {
        let answer = ask(foreign, Some(&owner)).await.unwrap();
        assert_eq!(said(&answer, "access-control-allow-origin"), None);
        let (status, error) = error_of(answer).await;
        assert_eq!((status, &error["code"]), (StatusCode::FORBIDDEN, &"origin".into()));
        assert!(error["message"].as_str().unwrap().contains(foreign), "{error}");
        assert!(error["hint"].as_str().unwrap().contains("--allow-origin"), "{error}");
    }
    let by = |host: &str| running.ask(Some(&owner), "GET", "/v1/models").header("host", host).send();
    assert_eq!(by("hive.test").await.unwrap().status(), StatusCode::OK);
    let (status, error) = error_of(by("evil.test").await.unwrap()).await;
    assert_eq!((status, &error["code"]), (StatusCode::FORBIDDEN, &"host".into()));
    assert!(error["hint"].as_str().unwrap().contains("--allow-host"), "{error}");
    running.stop().await;
}
