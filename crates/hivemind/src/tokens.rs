//! `hivemind tokens`: manages the programs that may use this node's API, and their rights.

use clap::Subcommand;
use hive_node::border;
use hive_types::{Done, IssuedToken, NewToken, OwnerTokenRenewal, Right, TokenList};
use serde_json::{Value, json};

use crate::client::Client;
use crate::peers::percent;
use crate::{Failure, output};

#[derive(Debug, Subcommand)]
pub(crate) enum Tokens {
    /// List tokens, their rights, and when each was last used
    List,
    /// Create a token for a program; it is shown only once
    Add {
        /// Token name, usually the program's
        name: String,
        /// The program's rights: chat, models, machines, conversations, admin (comma-separated)
        #[arg(long, value_name = "RIGHTS", value_delimiter = ',', required = true, num_args = 1..)]
        may: Vec<Right>,
    },
    /// Revoke a token, and stop whatever its program is running
    Remove {
        /// Token name
        name: String,
    },
    /// Replace a token with a new one that has the same rights; by default, your own in the data folder
    Renew {
        /// Token name
        name: Option<String>,
    },
}

pub(crate) async fn run(client: &Client, wanted: Option<Tokens>, as_json: bool) -> Result<(), Failure> {
    match wanted.unwrap_or(Tokens::List) {
        Tokens::List => list(client, as_json).await,
        Tokens::Add { name, may } => {
            show(&client.post("/hive/v1/tokens", &NewToken { name, may }).await?, as_json);
            Ok(())
        }
        Tokens::Remove { name } => {
            let _: Done = client.delete(&format!("/hive/v1/tokens/{}", percent(&name)), &[]).await?;
            done(as_json, &format!("Revoked {name}."));
            Ok(())
        }
        Tokens::Renew { name: Some(name) } => {
            let path = format!("/hive/v1/tokens/{}/renew", percent(&name));
            show(&client.post(&path, &()).await?, as_json);
            Ok(())
        }
        Tokens::Renew { name: None } => {
            let OwnerTokenRenewal { file, .. } = client.post("/hive/v1/owner-token/renew", &()).await?;
            done(as_json, &format!("Renewed your own token; the new one is in {file} in the data folder."));
            Ok(())
        }
    }
}

async fn list(client: &Client, as_json: bool) -> Result<(), Failure> {
    if as_json {
        output::line(client.get::<Value>("/hive/v1/tokens", &[]).await?);
        return Ok(());
    }
    let TokenList { tokens } = client.get("/hive/v1/tokens", &[]).await?;
    if tokens.is_empty() {
        output::line("No tokens for programs yet. Create one with `hivemind tokens add NAME --may chat,models`.");
    }
    let today = hive_api::today();
    for token in tokens {
        let name = border::cell(&token.name, border::NAME_COLUMNS);
        let used = match token.last_used_day {
            Some(day) => format!("last used {}", days_ago(today.saturating_sub(day))),
            None => "never used".to_owned(),
        };
        output::line(format_args!("{name} {:<30} {used}", Right::list(&token.may)));
    }
    Ok(())
}

/// Prints a new token, the only time that it is shown.
fn show(made: &IssuedToken, as_json: bool) {
    if as_json {
        output::line(json!(made));
    } else {
        output::line(&made.token);
        output::note("Use this as the program's API key. It is not shown again; HiveMind keeps only a digest of it.");
    }
}

fn done(as_json: bool, words: &str) {
    if as_json {
        output::line(json!(Done::DONE));
    } else {
        output::line(words);
    }
}

/// Formats an age in days; days are in UTC, as the node counts them.
fn days_ago(days: u64) -> String {
    match days {
        0 => "today".to_owned(),
        1 => "yesterday".to_owned(),
        days => format!("{days} days ago"),
    }
}
