//! `hivemind conversations`: the app's conversations on the command line.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use hive_mind::Entry;
use hive_types::{ConversationMarkdown, ConversationTitle, Done};
use serde_json::json;

use crate::client::Client;
use crate::{Failure, output};

#[derive(Debug, Subcommand)]
pub(crate) enum Conversations {
    /// List conversations, newest first
    List {
        /// Only list conversations that contain these words
        words: Option<String>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print a conversation as Markdown
    Show {
        /// Conversation ID or prefix
        id: String,
    },
    /// Export a conversation to a Markdown file
    Export {
        /// Conversation ID or prefix
        id: String,
        /// Output file; by default, named after the conversation in the current directory
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Rename a conversation
    Rename {
        /// Conversation ID or prefix
        id: String,
        /// New title
        title: String,
    },
    /// Delete a conversation
    Delete {
        /// Conversation ID or prefix
        id: String,
    },
}

pub(crate) async fn run(client: &Client, wanted: Conversations) -> Result<(), Failure> {
    match wanted {
        Conversations::List { words, json } => list(client, words, json).await,
        Conversations::Show { id } => {
            let document = document(client, &id).await?;
            output::piece(&document.markdown);
            Ok(())
        }
        Conversations::Export { id, to } => export(client, &id, to).await,
        Conversations::Rename { id, title } => {
            let id = find(client, &id).await?;
            let title = ConversationTitle { title };
            let _: Done = client.post(&format!("/hive/v1/conversations/{id}/rename"), &title).await?;
            output::line(format_args!("Renamed to \"{}\".", title.title));
            Ok(())
        }
        Conversations::Delete { id } => {
            let id = find(client, &id).await?;
            let _: Done = client.delete(&format!("/hive/v1/conversations/{id}"), &[]).await?;
            output::line("Deleted.");
            Ok(())
        }
    }
}

/// Characters of an ID that are shown: enough to tell thousands apart.
const SHOWN: usize = 8;

async fn entries(client: &Client, words: String) -> Result<Vec<Entry>, Failure> {
    client.get("/hive/v1/conversations", &[("words", words)]).await
}

async fn list(client: &Client, words: Option<String>, as_json: bool) -> Result<(), Failure> {
    let entries = entries(client, words.unwrap_or_default()).await?;
    if as_json {
        output::line(json!({ "conversations": entries }));
        return Ok(());
    }
    if entries.is_empty() {
        output::line("No conversations.");
    }
    for entry in entries {
        output::line(format_args!("{}  {}", entry.id.chars().take(SHOWN).collect::<String>(), entry.title));
    }
    Ok(())
}

/// The ID of the one conversation whose ID begins with this text.
async fn find(client: &Client, beginning: &str) -> Result<String, Failure> {
    let entries = entries(client, String::new()).await?;
    let ids: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
    let meant: Vec<&&str> = ids.iter().filter(|id| id.starts_with(beginning)).collect();
    match meant[..] {
        [id] => Ok((*id).to_owned()),
        [] => Err(Failure::new(format_args!("no conversation matches \"{beginning}\""))
            .hint("run `hivemind conversations list` to see them")),
        _ => Err(Failure::new(format_args!("\"{beginning}\" matches {} conversations", meant.len()))
            .hint("type more of the ID")),
    }
}

async fn document(client: &Client, id: &str) -> Result<ConversationMarkdown, Failure> {
    let id = find(client, id).await?;
    client.get(&format!("/hive/v1/conversations/{id}/markdown"), &[]).await
}

async fn export(client: &Client, id: &str, to: Option<PathBuf>) -> Result<(), Failure> {
    let ConversationMarkdown { file_name, markdown } = document(client, id).await?;
    let file = to.unwrap_or_else(|| PathBuf::from(file_name));
    write_new(&file, &markdown).map_err(|error| {
        Failure::new(format_args!("cannot write {}: {error}", file.display())).hint("choose another file with --to")
    })?;
    output::line(file.display());
    Ok(())
}

/// Never overwrites a file.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}
