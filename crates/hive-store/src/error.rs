//! The errors of a download, from hub to disk. Each states the failure, its cause and its remedy, and has the fields
//! that a caller needs to act on it. None contains a token or a signed link.

use std::path::PathBuf;
use std::time::Duration;

use crate::file_name::FileName;
use crate::size::size;

/// Why the hub did not answer, or gave the wrong answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HubError {
    /// The hub has no such repository, revision or file, or does not show it to us.
    #[error("there is no {what} on {host}{}", hint(did_you_mean.as_deref()))]
    NotFound {
        /// The hub.
        host: String,
        /// Repository, revision or file.
        what: String,
        /// Where the repository has moved to, as the hub says.
        did_you_mean: Option<String>,
    },
    /// Its owner wants a licence accepted first.
    #[error("{model} is only for those who have accepted its licence: accept it at {accept_at}, then {}", with_token(*has_token))]
    Gated {
        /// The repository.
        model: String,
        /// The page where a person accepts.
        accept_at: String,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// The hub refuses the token, or wants one.
    #[error("{host} denied access to {what}: {}", unauthorized(*has_token))]
    Unauthorized {
        /// The hub.
        host: String,
        /// Repository, revision or file.
        what: String,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// The environment forbids it.
    #[error("nothing is fetched, because HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set; unset it to fetch models")]
    Offline,
    /// No connection.
    #[error("{host} cannot be reached ({why}); check the network, and HTTPS_PROXY if there is a proxy")]
    NoNetwork {
        /// The machine that was called.
        host: String,
        /// The system's error.
        why: String,
    },
    /// A web page came where data belongs: a network that wants a login first, or a company's filter.
    #[error(
        "a web page came instead of an answer from {host}: this network may want you to log in; open a browser, then try again"
    )]
    CaptivePortal {
        /// The machine that was called.
        host: String,
    },
    /// The certificate is of another time.
    #[error("the certificate of {host} {why}: check the date and time of this machine")]
    Clock {
        /// The machine that was called.
        host: String,
        /// Not valid yet, or no longer.
        why: &'static str,
    },
    /// The certificate is not one that this machine trusts.
    #[error(
        "the certificate of {host} is not trusted ({why}); if a proxy inspects your traffic, install its certificate in this system, or name it in SSL_CERT_FILE"
    )]
    Certificate {
        /// The machine that was called.
        host: String,
        /// The certificate's error.
        why: String,
    },
    /// The hub has too much to do, or we ask too often.
    #[error("{host} is busy (status {status}); try again {}", later(*again_in))]
    Busy {
        /// The machine that was called.
        host: String,
        /// The HTTP status.
        status: u16,
        /// When the hub wants to be asked again.
        again_in: Option<Duration>,
    },
    /// Connections keep ending or stalling.
    #[error("the connection to {host} keeps breaking ({why}); the downloaded data is kept, so try again later")]
    Interrupted {
        /// The machine that was called.
        host: String,
        /// How it broke last.
        why: String,
    },
    /// Any other refusal.
    #[error("{host} refuses to give {what} (status {status}); look at the model's page there, or choose another model")]
    Refused {
        /// The machine that was called.
        host: String,
        /// Repository, revision or file.
        what: String,
        /// The HTTP status.
        status: u16,
    },
    /// The response is not a hub's.
    #[error("{host} does not answer as a hub of models does ({why}); check HF_ENDPOINT")]
    NotAHub {
        /// The machine that was called.
        host: String,
        /// The difference.
        why: String,
    },
}

/// Why a name did not lead to files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// The hub.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Its weights are Python pickles, which are programs.
    #[error(
        "{model} has its weights only as Python pickles ({example}), which can run any program when they are opened; look for the same model as safetensors or GGUF, for example under mlx-community"
    )]
    OnlyPickle {
        /// The repository.
        model: String,
        /// One of the files.
        example: String,
    },
    /// It has no weights at all.
    #[error(
        "{model} has no weights that can be used, neither safetensors with a config.json nor GGUF; an adapter or a pipeline is not a model of its own, so look at the model's page for the one it belongs to"
    )]
    NoWeights {
        /// The repository.
        model: String,
    },
    /// A file whose name could lead out of the cache.
    #[error(
        "{model} has a file with the unsafe name {file:?}; nothing of it is fetched; please report it to its owner"
    )]
    UnsafeName {
        /// The repository.
        model: String,
        /// The name.
        file: String,
    },
    /// It has several GGUF models, and the name does not say which; or it does not have the named one.
    #[error("{}", which(model, asked.as_deref(), there))]
    Which {
        /// The repository.
        model: String,
        /// The quantization or file that was asked for.
        asked: Option<String>,
        /// The models there are.
        there: Vec<Choice>,
    },
    /// A split model lacks a part.
    #[error("{model} lacks {missing} of the parts of {file}; its owner has not uploaded it yet, or has removed it")]
    MissingPart {
        /// The repository.
        model: String,
        /// One of the parts that are there.
        file: String,
        /// How many parts are missing.
        missing: usize,
    },
}

/// A GGUF model of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The name to ask for it.
    pub name: String,
    /// The size of all its files in bytes, if the hub says it.
    pub bytes: Option<u64>,
}

/// Why the files could not be fetched, or not all. Bytes already fetched stay, and the next call resumes there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The hub.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The caller cancelled.
    #[error("the download was stopped; the downloaded data is kept")]
    Cancelled,
    /// It does not fit.
    #[error("not enough space in {folder}: {} needed, {} free; remove models you no longer use, or set {setting} to a folder on a larger disk", size(*needed), size(*free))]
    DiskFull {
        /// The cache.
        folder: PathBuf,
        /// Bytes still to come.
        needed: u64,
        /// Bytes free.
        free: u64,
        /// The variable of the environment that decides on the folder.
        setting: &'static str,
    },
    /// The contents do not match the hub's checksum.
    #[error(
        "{file} arrived damaged: its checksum is not the one {host} gives; it was removed, so try again, and if that does not help, a proxy or the mirror changes it"
    )]
    Checksum {
        /// The hub.
        host: String,
        /// The file.
        file: FileName,
    },
    /// The cache cannot be written.
    #[error("{path} cannot be written ({why}); make the folder writable, or set {setting} to one that is")]
    Cache {
        /// Where.
        path: PathBuf,
        /// The system's error.
        why: String,
        /// Whether this folder or disk can be read only.
        read_only: bool,
        /// The variable of the environment that decides on the folder.
        setting: &'static str,
    },
}

fn hint(did_you_mean: Option<&str>) -> String {
    match did_you_mean {
        Some(name) => format!(" any more; did you mean {name}?"),
        None => "; check its spelling, and if it is private, set HF_TOKEN to a token that may read it".to_owned(),
    }
}

fn with_token(has_token: bool) -> &'static str {
    if has_token {
        "try again with a token of the same account"
    } else {
        "give HiveMind a token of your account: `hivemind models token`"
    }
}

fn unauthorized(has_token: bool) -> &'static str {
    if has_token {
        "the token is not valid, or may not read this; make a new one at https://huggingface.co/settings/tokens"
    } else {
        "give HiveMind a token that may, from https://huggingface.co/settings/tokens: `hivemind models token`"
    }
}

fn later(again_in: Option<Duration>) -> String {
    again_in.map_or_else(|| "later".to_owned(), |wait| format!("in {} s", wait.as_secs().max(1)))
}

fn which(model: &str, asked: Option<&str>, there: &[Choice]) -> String {
    let described = |choice: &Choice| match choice.bytes {
        Some(bytes) => format!("{} ({})", choice.name, size(bytes)),
        None => choice.name.clone(),
    };
    let there = there.iter().map(described).collect::<Vec<_>>().join(", ");
    match asked {
        Some(_) if there.is_empty() => format!("{model} has no GGUF files; ask for {model} itself"),
        Some(asked) => format!("{asked} does not match exactly one file of {model}; choose one of {there}"),
        None => format!("{model} has several models; choose one of {there}"),
    }
}
