//! `hivemind tokens`: which programs may ask this node, and for what.

use hive_api::Right;
use hive_node::border;
use serde_json::{Value, json};

use crate::arguments::Tokens;
use crate::client::Client;
use crate::peers::percent;
use crate::{Failure, output};

pub(crate) async fn run(client: &Client, wish: Option<Tokens>, as_json: bool) -> Result<(), Failure> {
    match wish.unwrap_or(Tokens::List) {
        Tokens::List => list(client, as_json).await,
        Tokens::Add { name, may } => add(client, &name, &may, as_json).await,
        Tokens::Remove { name } => {
            client.delete::<Value>(&format!("/hive/v1/tokens/{}", percent(&name)), &[]).await?;
            done(as_json, &format!("{name} is revoked."));
            Ok(())
        }
        Tokens::Renew { name: Some(name) } => {
            let path = format!("/hive/v1/tokens/{}/renew", percent(&name));
            show(&client.post(&path, &Value::Null).await?, as_json);
            Ok(())
        }
        Tokens::Renew { name: None } => {
            let renewed: Value = client.post("/hive/v1/owner-token/renew", &Value::Null).await?;
            let file = renewed["file"].as_str().unwrap_or_default();
            done(as_json, &format!("Your own token is renewed; the new one is in the file {file} of the data folder."));
            Ok(())
        }
    }
}

async fn list(client: &Client, as_json: bool) -> Result<(), Failure> {
    let found: Value = client.get("/hive/v1/tokens", &[]).await?;
    if as_json {
        output::line(found);
        return Ok(());
    }
    let tokens = found["tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
    if tokens.is_empty() {
        output::line("No program has a token of its own. `hivemind tokens add NAME --may chat,models` makes one.");
    }
    let today = hive_api::today();
    for token in tokens {
        let name = border::cell(token["name"].as_str().unwrap_or_default(), border::NAME_COLUMNS);
        let may: Vec<_> = token["may"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let used = match token["last_used_day"].as_u64() {
            Some(day) => format!("last used {}", days_ago(today.saturating_sub(day))),
            None => "never used".to_owned(),
        };
        output::line(format_args!("{name} {:<30} {used}", may.join(", ")));
    }
    Ok(())
}

async fn add(client: &Client, name: &str, may: &[Right], as_json: bool) -> Result<(), Failure> {
    show(&client.post("/hive/v1/tokens", &json!({ "name": name, "may": may })).await?, as_json);
    Ok(())
}

/// The only time that a token is shown.
fn show(made: &Value, as_json: bool) {
    if as_json {
        output::line(made);
    } else {
        output::line(made["token"].as_str().unwrap_or_default());
        output::note(
            "Give this to the program as its API key. It is not shown again, and HiveMind keeps only a digest of it.",
        );
    }
}

fn done(as_json: bool, words: &str) {
    if as_json {
        output::line(json!({ "done": true }));
    } else {
        output::line(words);
    }
}

/// Days in UTC, as the node counts them.
fn days_ago(days: u64) -> String {
    match days {
        0 => "today".to_owned(),
        1 => "yesterday".to_owned(),
        days => format!("{days} days ago"),
    }
}
