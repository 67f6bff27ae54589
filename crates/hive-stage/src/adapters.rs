//! The files of a LoRA adapter on this machine's disk.
//!
//! The node reads their bytes and nothing in them: they are opened in the workers, which are confined. A stage on another
//! machine gets them from the machine that asks for the answer.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use hive_model::AdapterId;
use hive_protocol::AdapterHead;
use hive_text::regular;
use hive_weights::adapter::{CONFIG_FILE, TENSOR_FILES};
use hive_worker::text::{Model, TextError};
use sha2::{Digest, Sha256};

use crate::runtime::aside;

/// Limit on `adapter_config.json`, in bytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Limit on the file with the matrices, in bytes. Adapters of large models have a few hundred megabytes.
const MAX_TENSOR_BYTES: u64 = 384 << 20;

/// The contents of an adapter's two files.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct AdapterBytes {
    pub(crate) config: Vec<u8>,
    pub(crate) tensors: Vec<u8>,
}

impl AdapterBytes {
    /// Identifies the adapter by its contents.
    pub(crate) fn id(&self) -> AdapterId {
        let mut digest = Sha256::new();
        // The length keeps a byte from counting as one of the other file.
        digest.update((self.config.len() as u64).to_le_bytes());
        digest.update(&self.config);
        digest.update(&self.tensors);
        AdapterId(digest.finalize().into())
    }

    pub(crate) fn head(&self) -> AdapterHead {
        let [config_bytes, tensor_bytes] = [&self.config, &self.tensors].map(|file| file.len() as u64);
        AdapterHead { id: self.id(), config_bytes, tensor_bytes }
    }
}

/// Checks the sizes of an adapter that another machine is about to send.
pub(crate) fn check_sizes(head: AdapterHead) -> Result<(), String> {
    for (bytes, limit) in [(head.config_bytes, MAX_CONFIG_BYTES), (head.tensor_bytes, MAX_TENSOR_BYTES)] {
        if bytes > limit {
            return Err(format!("a file of the adapter has {bytes} bytes; more than {limit} are not accepted"));
        }
    }
    Ok(())
}

/// Why an adapter's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AdapterFilesError {
    /// There is no adapter.
    #[error("{0} holds no adapter; expected a folder with {CONFIG_FILE} and {files}", files = TENSOR_FILES.join(" or "))]
    None(PathBuf),
    /// A file cannot be read.
    #[error("cannot read {file}: {source}")]
    Read {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// It does not suit the model.
    #[error(transparent)]
    Unfit(#[from] TextError),
    /// The files are others than they were.
    #[error("the adapter in {0} has changed since the answer began")]
    Changed(PathBuf),
}

/// An adapter on this machine's disk.
#[derive(Debug, Clone)]
pub struct AdapterFiles {
    head: AdapterHead,
    folder: PathBuf,
    /// Open, so that files which are replaced stay readable.
    files: Arc<[File; 2]>,
    stamps: Stamps,
}

/// Size and time of the latest change of the two files.
type Stamps = [(u64, SystemTime); 2];

impl AdapterFiles {
    /// Reads an adapter's files to identify it.
    ///
    /// # Errors
    /// There is none, or its files are too large or cannot be read.
    pub fn open(folder: &Path) -> Result<Self, AdapterFilesError> {
        // Before the contents: a change meanwhile is then noticed.
        let stamps = stamps(folder)?;
        let [config, tensors] = files(folder)?;
        let open = |file: PathBuf, limit: u64| match regular::open(&file) {
            Ok((_, length)) if length > limit => {
                let why = format!("it has {length} bytes; more than {limit} are not accepted");
                Err(AdapterFilesError::Read { file, source: std::io::Error::new(ErrorKind::InvalidData, why) })
            }
            Ok((opened, _)) => Ok(opened),
            Err(source) => Err(AdapterFilesError::Read { file, source }),
        };
        let files = Arc::new([open(config, MAX_CONFIG_BYTES)?, open(tensors, MAX_TENSOR_BYTES)?]);
        let head = bytes(&files, folder)?.head();
        Ok(Self { head, folder: folder.to_owned(), files, stamps })
    }

    /// Whether the files are as they were, by size and time.
    pub fn is_current(&self) -> bool {
        stamps(&self.folder).is_ok_and(|stamps| stamps == self.stamps)
    }

    /// What identifies it on every machine.
    pub fn id(&self) -> AdapterId {
        self.head.id
    }

    pub(crate) fn head(&self) -> AdapterHead {
        self.head
    }

    /// Checks that it suits a model, which is not loaded for this.
    ///
    /// # Errors
    /// It is not an adapter, or was made for another model.
    pub async fn check(&self, model: &Model) -> Result<(), AdapterFilesError> {
        let AdapterBytes { config, tensors } = aside(|| self.read())?;
        Ok(model.check_adapter(config, tensors).await?)
    }

    /// Its contents.
    pub(crate) fn read(&self) -> Result<AdapterBytes, AdapterFilesError> {
        let bytes = bytes(&self.files, &self.folder)?;
        if bytes.id() == self.head.id { Ok(bytes) } else { Err(AdapterFilesError::Changed(self.folder.clone())) }
    }
}

/// The two files of an adapter.
fn files(folder: &Path) -> Result<[PathBuf; 2], AdapterFilesError> {
    let config = folder.join(CONFIG_FILE);
    let tensors = TENSOR_FILES.into_iter().map(|name| folder.join(name)).find(|file| file.exists());
    match tensors.filter(|_| config.exists()) {
        Some(tensors) => Ok([config, tensors]),
        None => Err(AdapterFilesError::None(folder.to_owned())),
    }
}

fn stamps(folder: &Path) -> Result<Stamps, AdapterFilesError> {
    let stamp = |file: &PathBuf| -> std::io::Result<(u64, SystemTime)> {
        let about = file.metadata()?;
        Ok((about.len(), about.modified()?))
    };
    let [config, tensors] = files(folder)?;
    let read = |file: PathBuf| stamp(&file).map_err(|source| AdapterFilesError::Read { file, source });
    Ok([read(config)?, read(tensors)?])
}

fn bytes(files: &[File; 2], folder: &Path) -> Result<AdapterBytes, AdapterFilesError> {
    let read = |file: &File, limit: u64| {
        let mut bytes = vec![0; file.metadata()?.len().min(limit + 1) as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    let [config, tensors] = files;
    let failed = |name: &'static str| {
        let file = folder.join(name);
        |source| AdapterFilesError::Read { file, source }
    };
    Ok(AdapterBytes {
        config: read(config, MAX_CONFIG_BYTES).map_err(failed(CONFIG_FILE))?,
        tensors: read(tensors, MAX_TENSOR_BYTES).map_err(failed("the file with its matrices"))?,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_adapter_is_known_by_its_contents_and_one_that_changes_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let [mlx, peft] = ["mlx", "peft"].map(|name| folder.path().join(name));
        for (path, name) in [(&mlx, "adapters.safetensors"), (&peft, "adapter_model.safetensors")] {
            fs::create_dir(path).unwrap();
            let why = AdapterFiles::open(path).unwrap_err().to_string();
            assert!(
                why.ends_with("with adapter_config.json and adapters.safetensors or adapter_model.safetensors"),
                "{why}"
            );
            fs::write(path.join("adapter_config.json"), "{}").unwrap();
            assert!(AdapterFiles::open(path).is_err());
            fs::write(path.join(name), "matrices").unwrap();
        }
        let files = AdapterFiles::open(&mlx).unwrap();
        assert!(files.is_current());
        assert_eq!(files.id(), AdapterFiles::open(&peft).unwrap().id());
        assert_eq!(files.read().unwrap().tensors, b"matrices");
        // Replaced, as a careful program does it: an answer under way keeps what it began with.
        fs::write(mlx.join("new"), "others").unwrap();
        fs::rename(mlx.join("new"), mlx.join("adapters.safetensors")).unwrap();
        assert!(!files.is_current() && files.read().unwrap().tensors == b"matrices");
        let files = AdapterFiles::open(&mlx).unwrap();
        fs::write(mlx.join("adapter_config.json"), "{}o").unwrap();
        fs::write(mlx.join("adapters.safetensors"), "thers").unwrap();
        assert!(!files.is_current());
        let why = files.read().err().unwrap().to_string();
        assert!(why.ends_with("has changed since the answer began"), "{why}");
        let large = AdapterHead { id: files.id(), config_bytes: 1, tensor_bytes: MAX_TENSOR_BYTES + 1 };
        assert!(check_sizes(large).is_err() && check_sizes(AdapterHead { tensor_bytes: 1, ..large }).is_ok());
    }
}
