//! From a name to a commit and its files.

use std::time::Duration;

use bytes::Bytes;
use hive_store::{Checksum, FindError, Hub, HubError, RetryPolicy, Settings, Token};

use crate::stand_in::{Fault, Repo, StandIn, git, sha256};
use crate::{COMMIT, World, model, noise, retry_policy};

/// Names, sizes and checksums of a listing.
fn described(listing: &hive_store::Listing) -> Vec<(String, u64, Checksum)> {
    listing.files.iter().map(|file| (file.name.to_string(), file.bytes, file.checksum.clone())).collect()
}

fn hub_error(error: FindError) -> HubError {
    match error {
        FindError::Hub(error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_name_becomes_a_commit_and_the_files_that_the_model_needs() {
    let world = World::with_weights(5000);
    let listing = world.find("owner/name").await.unwrap();
    assert_eq!(listing.commit, COMMIT);
    let files = model(5000);
    let expected = vec![
        ("model.safetensors".to_owned(), 5000, Checksum::Sha256(sha256(&files[2].1))),
        ("tokenizer.json".to_owned(), 3000, Checksum::Sha256(sha256(&files[4].1))),
        ("config.json".to_owned(), 2, Checksum::Git(git(b"{}"))),
    ];
    assert_eq!(described(&listing), expected);
    assert_eq!(listing.bytes(), 8002);
    assert_eq!(world.hub.seen().len(), 1, "one request is enough");
    for name in [format!("owner/name@{COMMIT}"), format!("{}/owner/name", "https://hf.co")] {
        assert_eq!(world.find(&name).await.unwrap().commit, COMMIT);
    }
}

#[tokio::test]
async fn a_hub_whose_list_has_no_sizes_is_asked_for_each_file() {
    let world = World::with_weights(5000);
    let expected = described(&world.find("owner/name").await.unwrap());
    world.hub.change("owner/name", |repo| repo.has_bare_list = true);
    assert_eq!(described(&world.find("owner/name").await.unwrap()), expected);
    // A HEAD without a size: the first byte's header has it.
    world.hub.faults(|seen| (seen.method == "HEAD").then_some(Fault::NoSize));
    assert_eq!(described(&world.find("owner/name").await.unwrap()), expected);
    // Nothing has it.
    world.hub.faults(|_| Some(Fault::NoSize));
    world.hub.faults(|seen| (seen.range.is_some() || seen.method == "HEAD").then_some(Fault::Status(200, vec![])));
    let error = hub_error(world.find("owner/name").await.unwrap_err());
    assert!(matches!(error, HubError::NotAHub { .. }), "{error:?}");
}

#[tokio::test]
async fn a_gated_model_says_where_its_licence_is_accepted() {
    let world = World::with_weights(5000);
    world.hub.change("owner/name", |repo| repo.gated = Some("hf_accepted".to_owned()));
    let find = async |token: Option<&str>| {
        let settings = Settings { token: token.and_then(Token::new), ..world.settings() };
        let hub = Hub::new(world.cache.path().to_owned(), &settings).unwrap();
        hub.find(&"owner/name".parse().unwrap()).await
    };
    for (token, has_token, advice) in [(None, false, "hivemind models token"), (Some("hf_other"), true, "same account")]
    {
        let error = hub_error(find(token).await.unwrap_err());
        let accept_at = format!("{}/owner/name", world.hub.url());
        assert!(error.to_string().contains(advice), "{error}");
        assert_eq!(error, HubError::Gated { model: "owner/name".to_owned(), accept_at, has_token });
    }
    assert!(find(Some("hf_accepted")).await.is_ok());
}

#[tokio::test]
async fn a_renamed_model_is_found_by_its_old_name() {
    let world = World::new(&[]);
    world.hub.change("owner/name", |repo| repo.moved_to = Some("new/home".to_owned()));
    let error = hub_error(world.find("owner/name").await.unwrap_err());
    assert!(matches!(&error, HubError::NotFound { did_you_mean: Some(new), .. } if new == "new/home"), "{error:?}");
    assert!(error.to_string().ends_with("did you mean new/home?"), "{error}");

    world.hub.change("new/home", |repo| *repo = Repo::new(&model(5000)));
    let listing = world.find("owner/name").await.unwrap();
    assert_eq!(listing.moved_to.as_deref(), Some("new/home"));
    let path = world.fetch(&listing).await.unwrap();
    assert_eq!(path, world.folder().join("snapshots").join(COMMIT), "it lies under the name that was asked for");
    assert_eq!(std::fs::read(path.join("config.json")).unwrap(), b"{}");
}

#[tokio::test]
async fn what_the_hub_does_not_have_or_does_not_show_is_said() {
    let world = World::with_weights(5000);
    for name in ["owner/other", "owner/name@v2"] {
        let error = hub_error(world.find(name).await.unwrap_err());
        let HubError::NotFound { what, did_you_mean: None, .. } = &error else { panic!("{error:?}") };
        assert_eq!(what, name);
    }
    let wrong = [("x-error-message", "Invalid credentials in Authorization header")];
    world.hub.faults(move |_| Some(Fault::Status(401, wrong.to_vec())));
    let error = hub_error(world.find("owner/name").await.unwrap_err());
    assert!(matches!(error, HubError::Unauthorized { has_token: true, .. }), "{error:?}");
    world.hub.faults(|_| Some(Fault::Status(451, vec![])));
    let error = hub_error(world.find("owner/name").await.unwrap_err());
    assert!(matches!(error, HubError::Refused { status: 451, .. }), "{error:?}");
}

#[tokio::test]
async fn nothing_is_asked_where_the_environment_forbids_it() {
    let world = World::with_weights(5000);
    let hub = Hub::new(world.cache.path().to_owned(), &Settings { offline: true, ..world.settings() }).unwrap();
    let error = hub.find(&"owner/name".parse().unwrap()).await.unwrap_err();
    assert_eq!(hub_error(error), HubError::Offline);
    assert_eq!(world.hub.seen().len(), 0);
}

#[tokio::test]
async fn a_web_page_where_data_belongs_is_a_login_of_the_network() {
    let world = World::with_weights(5000);
    let portal = StandIn::start(Repo::default());
    portal.faults(|_| Some(Fault::Page("text/html; charset=utf-8")));
    let to = format!("{}/login", portal.url());
    let faults = [Fault::Page("text/html"), Fault::Page("text/plain"), Fault::Redirect(to)];
    for fault in faults {
        world.hub.faults(move |_| Some(fault.clone()));
        let error = hub_error(world.find("owner/name").await.unwrap_err());
        assert!(matches!(error, HubError::CaptivePortal { .. }), "{error:?}");
    }
    assert!(portal.seen().iter().all(|seen| seen.authorization.is_none()), "the token is for the hub only");
}

#[tokio::test]
async fn a_hub_that_cannot_be_reached_is_no_network() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = World::new(&[]);
    let settings = Settings { endpoint: format!("http://{free}"), ..world.settings() };
    let hub = Hub::new(world.cache.path().to_owned(), &settings).unwrap();
    let error = hub_error(hub.find(&"owner/name".parse().unwrap()).await.unwrap_err());
    assert!(matches!(&error, HubError::NoNetwork { host, .. } if *host == free.to_string()), "{error:?}");
    for endpoint in ["", "ftp://mirror", "file:///etc", "huggingface.co"] {
        let settings = Settings { endpoint: endpoint.to_owned(), ..world.settings() };
        let error = Hub::new(world.cache.path().to_owned(), &settings).unwrap_err();
        assert!(matches!(error, HubError::NotAHub { .. }), "{endpoint}: {error:?}");
    }
}

#[tokio::test]
async fn a_busy_hub_is_asked_again_a_few_times() {
    let world = World::with_weights(5000);
    world.hub.faults(|seen| (seen.before < 2).then_some(Fault::Status(503, vec![])));
    assert!(world.find("owner/name").await.is_ok());
    let hub = world.client();
    let find = async || hub.find(&"owner/name".parse().unwrap()).await;
    for (asked, shown) in [("3600", "in 3600 s"), ("11", "in 11 s")] {
        world.hub.faults(move |_| Some(Fault::Status(429, vec![("retry-after", asked)])));
        let before = world.hub.seen().len();
        let error = hub_error(find().await.unwrap_err());
        assert!(error.to_string().contains(shown), "{error}");
        assert_eq!(world.hub.seen().len(), before + 1, "nobody waits that long for a name");
    }
}

#[tokio::test]
async fn a_hub_that_wants_a_pause_is_not_asked_again_before_its_end() {
    let world = World::with_weights(5000);
    let retry_policy = RetryPolicy { longest_wait: Duration::from_mins(2), ..retry_policy() };
    let hub = Hub::new(world.cache.path().to_owned(), &Settings { retry_policy, ..world.settings() }).unwrap();
    world.hub.faults(|_| Some(Fault::Status(429, vec![("retry-after", "60")])));
    for _ in 0..2 {
        let error = hub_error(hub.find(&"owner/name".parse().unwrap()).await.unwrap_err());
        assert!(matches!(error, HubError::Busy { status: 429, again_in: Some(_), .. }), "{error:?}");
        assert_eq!(world.hub.seen().len(), 1);
    }
}

#[tokio::test]
async fn answers_that_no_hub_gives_are_refused() {
    let world = World::new(&[("config.json", Bytes::from("{}")), ("../model.safetensors", noise(5000, 1))]);
    let error = world.find("owner/name").await.unwrap_err();
    assert!(matches!(&error, FindError::UnsafeName { file, .. } if file == "../model.safetensors"), "{error:?}");
    // A commit is a folder's name.
    let commit = "../../../../../../../../../../../etc/abcd";
    world.hub.change("owner/name", |repo| repo.commit("main", commit, &model(5000)));
    let error = hub_error(world.find("owner/name").await.unwrap_err());
    assert!(matches!(error, HubError::NotAHub { .. }), "{error:?}");
    world.hub.faults(|_| Some(Fault::Redirect("/api/again".to_owned())));
    let error = hub_error(world.find("owner/name").await.unwrap_err());
    assert!(matches!(error, HubError::NotAHub { .. }), "{error:?}");
}

#[tokio::test]
async fn a_repository_with_nothing_but_pickles_is_refused() {
    let files = [("config.json", Bytes::from("{}")), ("pytorch_model.bin", noise(5000, 1))];
    let world = World::new(&files);
    let error = world.find("owner/name").await.unwrap_err();
    assert!(matches!(error, FindError::OnlyPickle { .. }), "{error:?}");
}

#[tokio::test]
async fn a_size_that_no_file_has_is_refused_before_anything_is_sized_by_it() {
    for claimed in [u64::MAX, 1 << 60] {
        let mut repo = Repo::new(&model(5000));
        repo.claims.insert("model.safetensors".to_owned(), claimed);
        let world = World { hub: StandIn::start(repo), cache: tempfile::tempdir().unwrap() };
        let why = world.find("owner/name").await.unwrap_err().to_string();
        assert!(why.contains(&format!("a file of {claimed} bytes")), "{why}");
    }
}

#[tokio::test]
async fn ggufs_that_would_not_be_found_again_are_no_choice() {
    let files = [("m-Q4_0.gguf", "1"), ("._m-Q4_0.gguf", "2"), ("a/b/c/deep-Q8_0.gguf", "3")];
    let world = World::new(&files.map(|(name, contents)| (name, Bytes::from(contents))));
    let listing = world.find("owner/name").await.unwrap();
    assert_eq!(listing.gguf.as_ref().map(hive_store::FileName::as_str), Some("m-Q4_0.gguf"));
}
