//! Browsers: the pages, the link that lets one in, and what it may ask at the address for other devices.

use hive_types::{BrowserAccess, BrowserLink, IssuedToken};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::*;

fn pages() -> Pages {
    std::sync::Arc::new(|path| {
        let bytes: &[u8] = match path {
            "index.html" => b"<title>HiveMind</title>",
            "assets/a.js" => b"1",
            _ => return None,
        };
        Some(Page { bytes: bytes.into() })
    })
}

impl Running {
    async fn open(&self, access: BrowserAccess) {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        self.api.open_to_browsers(access, Some(loopback), pages()).await.unwrap();
    }

    async fn link(&self) -> BrowserLink {
        let made = self.ask(Some(&self.owner()), "POST", "/hive/v1/browsers/links").send().await.unwrap();
        made.json().await.unwrap()
    }
}

/// A link's address and its code.
fn parts(link: &BrowserLink) -> (String, String) {
    let (base, code) = link.url.split_once("/#in=").unwrap();
    (base.to_owned(), code.to_owned())
}

async fn enter(http: &reqwest::Client, base: &str, code: &str) -> reqwest::Response {
    let wanted = json!({ "code": code, "name": "Safari on iPhone" });
    http.post(format!("{base}/hive/v1/browsers")).json(&wanted).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_gets_the_pages_and_by_a_link_a_token_of_its_own() {
    let running = Running::start().await;
    let page = async |path: &str| running.ask(None, "GET", path).send().await.unwrap();
    assert_eq!(page("/").await.status(), StatusCode::UNAUTHORIZED, "the pages are closed");
    let refused = running.ask(Some(&running.owner()), "POST", "/hive/v1/browsers/links").send().await.unwrap();
    assert_eq!(error_of(refused).await.1["code"], "browsers_off");

    running.open(BrowserAccess::Here).await;
    let index = page("/").await;
    let header = |name: &str| index.headers().get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!((index.status(), header("content-type").as_str()), (StatusCode::OK, "text/html; charset=utf-8"));
    assert!(header("content-security-policy").contains("script-src 'self'"));
    assert_eq!(index.text().await.unwrap(), "<title>HiveMind</title>");
    assert!(page("/assets/a.js").await.headers()["cache-control"].to_str().unwrap().contains("immutable"));
    for other in ["/assets/../api-token", "/api-token", "/hive/v1/status", "/nothing.html"] {
        assert_eq!(page(other).await.status(), StatusCode::UNAUTHORIZED, "{other}");
    }

    let (base, code) = parts(&running.link().await);
    assert_eq!(base, format!("http://{}", running.api.address()));
    let (status, error) = error_of(enter(&running.http, &base, "wrong").await).await;
    assert_eq!((status, &error["code"]), (StatusCode::FORBIDDEN, &"link_used".into()));
    let made: IssuedToken = enter(&running.http, &base, &code).await.json().await.unwrap();
    assert_eq!(made.name, "Safari on iPhone");
    assert_eq!(enter(&running.http, &base, &code).await.status(), StatusCode::FORBIDDEN, "a link works once");
    let again: IssuedToken = enter(&running.http, &base, &parts(&running.link().await).1).await.json().await.unwrap();
    assert_eq!(again.name, "Safari on iPhone 2");

    let ask = async |method: &str, path: &str| {
        running.ask(Some(&made.token), method, path).json(&json!({})).send().await.unwrap().status()
    };
    for path in ["/hive/v1/status", "/hive/v1/conversations", "/hive/v1/models", "/v1/models"] {
        assert_eq!(ask("GET", path).await, StatusCode::OK, "{path}");
    }
    for (method, path) in [("POST", "/hive/v1/quit"), ("GET", "/hive/v1/tokens"), ("POST", "/hive/v1/browsers/links")] {
        assert_eq!(ask(method, path).await, StatusCode::FORBIDDEN, "{path}");
    }
    let mut view = running.ask(Some(&made.token), "GET", "/hive/v1/view?language=de").send().await.unwrap();
    let first = String::from_utf8(view.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    let shown: Value = serde_json::from_str(first.strip_prefix("data: ").unwrap().trim_end()).unwrap();
    assert_eq!((&shown["name"], &shown["language"], &shown["notify"]), (&"test".into(), &"de".into(), &false.into()));

    running.open(BrowserAccess::Off).await;
    assert_eq!(page("/").await.status(), StatusCode::UNAUTHORIZED);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_devices_are_served_over_tls_with_the_key_that_was_shown_and_as_browsers_only() {
    let running = Running::start().await;
    running.open(BrowserAccess::Network).await;
    let link = running.link().await;
    let (base, code) = parts(&link);
    assert!(base.starts_with("https://127.0.0.1:"), "{base}");
    let builder = reqwest::Client::builder().no_proxy().timeout(TEST_TIMEOUT).tls_info(true);
    let http = builder.danger_accept_invalid_certs(true).build().unwrap();

    let page = http.get(format!("{base}/")).send().await.unwrap();
    let seen = page.extensions().get::<reqwest::tls::TlsInfo>().unwrap().peer_certificate().unwrap();
    let seen = Sha256::digest(seen).iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(" ");
    assert_eq!(Some(seen), link.certificate.map(|certificate| certificate.sha256));
    assert_eq!(page.text().await.unwrap(), "<title>HiveMind</title>");

    let program = running.add("notes", &[Right::Machines, Right::Admin]).await;
    let made: IssuedToken = enter(&http, &base, &code).await.json().await.unwrap();
    let ask = async |token: &str, name: &'static str, value: &str| {
        let asked = http.get(format!("{base}/hive/v1/status")).bearer_auth(token).header(name, value);
        error_of(asked.send().await.unwrap()).await
    };
    let own = base.clone();
    assert_eq!(ask(&made.token, "origin", &own).await.0, StatusCode::OK);
    for token in [running.owner(), program] {
        let (status, error) = ask(&token, "origin", &own).await;
        assert_eq!((status, &error["code"]), (StatusCode::FORBIDDEN, &"not_a_browser".into()));
    }
    assert_eq!(ask(&made.token, "origin", "https://evil.example").await.1["code"], "origin");
    assert_eq!(ask(&made.token, "origin", &own.replace("https", "http")).await.1["code"], "origin");
    assert_eq!(ask(&made.token, "host", "evil.example").await.1["code"], "host");

    let gone =
        running.ask(Some(&running.owner()), "DELETE", "/hive/v1/tokens/Safari%20on%20iPhone").send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::OK);
    assert_eq!(ask(&made.token, "origin", &own).await.0, StatusCode::UNAUTHORIZED);
    // What speaks no TLS, or nothing, disturbs nobody.
    let silent = tokio::net::TcpStream::connect(base.trim_start_matches("https://")).await.unwrap();
    assert!(running.http.get(base.replace("https", "http")).send().await.is_err());
    assert_eq!(http.get(format!("{base}/")).send().await.unwrap().status(), StatusCode::OK);
    drop(silent);

    running.open(BrowserAccess::Here).await;
    assert!(http.get(format!("{base}/")).send().await.is_err(), "the listener has closed");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_cannot_be_opened_to_other_devices_are_open_to_nobody() {
    let running = Running::start().await;
    running.open(BrowserAccess::Here).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _holder = std::net::TcpListener::bind(taken).unwrap();
    let refused = running.api.open_to_browsers(BrowserAccess::Network, Some(taken), pages()).await.unwrap_err();
    assert!(refused.to_string().starts_with(&format!("the pages for browsers cannot listen on {taken}")), "{refused}");
    // It is for the app's window as well, which has no flags.
    assert!(refused.hint().is_some_and(|hint| hint.contains("browser_bind") && !hint.contains("--")));
    assert_eq!(running.ask(None, "GET", "/").send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let link = running.ask(Some(&running.owner()), "POST", "/hive/v1/browsers/links").send().await.unwrap();
    assert_eq!(error_of(link).await.1["code"], "browsers_off");
    running.stop().await;
}
