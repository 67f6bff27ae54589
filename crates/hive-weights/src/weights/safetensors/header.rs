//! The header of one file: which tensors it holds, and where.
//!
//! The `safetensors` crate parses and validates it (no gaps, no overlaps, matching sizes). Checked here is the rest:
//! the header's length against the file's, and the data's length against the header's.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use hive_text::regular;
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::error::FolderError;

/// Limit on the header of a file; the format allows 100 MB, and the largest real ones have ten. Parsed, it may take
/// twenty times as much.
const MAX_HEADER_BYTES: u64 = 32 << 20;
/// Limits on what it lists. Models with a tensor per expert and layer have about a hundred thousand in many files.
const MAX_TENSORS: usize = 1 << 17;
/// Kernels of convolutions have five.
const MAX_DIMENSIONS: usize = 8;
/// The longest real names have about a hundred bytes.
const MAX_NAME_BYTES: usize = 1 << 10;
/// Limit on a message of the parser, which may repeat a name.
const MAX_MESSAGE_CHARS: usize = 200;

/// A tensor's position and type.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) file: Arc<(PathBuf, File)>,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) start: u64,
    pub(super) bytes: u64,
}

/// Reads a header of at most `left` bytes, and subtracts its length from `left`.
pub(super) fn read_header(path: PathBuf, left: &mut u64) -> Result<BTreeMap<String, Entry>, FolderError> {
    let io = |source| FolderError::Io { file: path.clone(), source };
    let (file, length) = regular::open(&path).map_err(io)?;
    if length < 8 {
        return Err(FolderError::Short { file: path, bytes: length });
    }
    let mut prefix = [0; 8];
    file.read_exact_at(&mut prefix, 0).map_err(io)?;
    let claimed = u64::from_le_bytes(prefix);
    if claimed > MAX_HEADER_BYTES.min(*left) || claimed > length - 8 {
        if regular::is_lfs_pointer(&path) {
            return Err(FolderError::Pointer { file: path });
        }
        return Err(FolderError::HeaderLength { file: path, claimed });
    }
    *left -= claimed;
    let mut header = vec![0; claimed as usize];
    file.read_exact_at(&mut header, 8).map_err(io)?;
    let refuse = |why: String| FolderError::Header { file: path.clone(), why };
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| refuse(error.to_string().chars().take(MAX_MESSAGE_CHARS).collect()))?;
    drop(header);
    let tensors = metadata.tensors();
    if tensors.len() > MAX_TENSORS {
        return Err(refuse(format!("it lists {} tensors; more than {MAX_TENSORS} are not accepted", tensors.len())));
    }
    for (name, info) in &tensors {
        if name.len() > MAX_NAME_BYTES {
            return Err(refuse(format!("the name of a tensor has {} bytes", name.len())));
        }
        if info.shape.len() > MAX_DIMENSIONS {
            return Err(refuse(format!("tensor {name} has {} dimensions", info.shape.len())));
        }
    }
    // Deserializing has validated offsets, sizes and order.
    let expected = metadata.data_len() as u64;
    let found = length - 8 - claimed;
    if expected != found {
        return Err(FolderError::DataLength { file: path, found, expected });
    }
    let file = Arc::new((path, file));
    let entries = tensors.into_iter().map(|(name, info)| {
        let (start, end) = info.data_offsets;
        let entry = Entry {
            file: file.clone(),
            dtype: info.dtype,
            shape: info.shape.clone(),
            start: 8 + claimed + start as u64,
            bytes: (end - start) as u64,
        };
        (name, entry)
    });
    Ok(entries.collect())
}
