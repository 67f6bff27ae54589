//! Opens a model's file, or all files of a split model: `split.count` in the metadata says how many there are, and their
//! names say which is which.
//!
//! Only the first file describes the model; each of the others has its own place, the count, and the number of the
//! model's tensors, by which files of different models are told apart. A part of another model with as many tensors,
//! none of which is here, cannot be told from the right one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use hive_text::regular;
use hive_text::split::{MOST_PARTS, PartName, files_of};

use super::header::{self, Header, HeaderError, MAX_TENSORS, TensorInfo, Value};

/// The files, and the metadata of the first, and all tensors.
type Opened = (Vec<(PathBuf, File)>, BTreeMap<String, Value>, BTreeMap<String, TensorInfo>);

pub(super) fn open(path: &Path) -> Result<Opened, HeaderError> {
    let (file, header) = read(path)?;
    let count = header.number("split.count").unwrap_or(1);
    if count <= 1 {
        return Ok((vec![(path.to_owned(), file)], header.metadata, header.tensors));
    }
    check_name(path, count)?;
    let claims = Claims { count, tensors: header.number("split.tensors.count") };
    let (mut files, mut metadata, mut tensors) = (Vec::new(), BTreeMap::new(), BTreeMap::<String, TensorInfo>::new());
    // The header that was read already is read again in its turn: one file at a time takes memory for its metadata.
    drop((file, header));
    for (place, path) in files_of(path).into_iter().enumerate() {
        let name = name(&path);
        let (file, header) = read(&path).map_err(|error| match error {
            HeaderError::Io(error) if error.kind() == ErrorKind::NotFound => {
                HeaderError::MissingPart { part: name.clone(), count }
            }
            HeaderError::Magic if regular::is_lfs_pointer(&path) => {
                HeaderError::Split(format!("{name}: {}", regular::IS_LFS_POINTER))
            }
            source => HeaderError::Part { part: name.clone(), source: Box::new(source) },
        })?;
        claims.check(&header, place as u64).map_err(|why| HeaderError::Split(format!("{name} {why}")))?;
        if (tensors.len() + header.tensors.len()) as u64 > MAX_TENSORS {
            let why = format!("all parts claim more than {MAX_TENSORS} tensors, which are not accepted");
            return Err(HeaderError::Corrupt(why));
        }
        if place == 0 {
            metadata = header.metadata;
        }
        for (tensor, info) in header.tensors {
            if let Some(other) = tensors.insert(tensor, TensorInfo { part: place, ..info }) {
                let (tensor, first): (_, &(PathBuf, File)) = (other.name, &files[other.part]);
                let why =
                    format!("{name} and {} both have tensor {tensor}: one is of another model", self::name(&first.0));
                return Err(HeaderError::Split(why));
            }
        }
        files.push((path, file));
    }
    match claims.tensors {
        Some(claimed) if claimed != tensors.len() as u64 => Err(HeaderError::Split(format!(
            "the {count} parts have {} tensors, but the model has {claimed}: one is of another model",
            tensors.len()
        ))),
        _ => Ok((files, metadata, tensors)),
    }
}

fn read(path: &Path) -> Result<(File, Header), HeaderError> {
    let (file, length) = regular::open(path).map_err(HeaderError::Io)?;
    let header = header::read(&mut std::io::BufReader::new(&file), length)?;
    Ok((file, header))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Checks that a part's name says where the others are.
fn check_name(path: &Path, count: u64) -> Result<(), HeaderError> {
    if count > MOST_PARTS {
        return Err(HeaderError::Split(format!("it is one of {count} parts; more than {MOST_PARTS} are not accepted")));
    }
    let name = name(path);
    let why = match PartName::read(&name) {
        Some(said) if said.count == count => return Ok(()),
        Some(said) => format!("its name says that it is one of {} parts, but its metadata says {count}", said.count),
        None => format!(
            "it is one of {count} parts of a model, but its name does not end in -00001-of-{count:05}.gguf or the like, so \
             the others cannot be found; give all parts the names they had"
        ),
    };
    Err(HeaderError::Split(why))
}

/// What every part must say.
struct Claims {
    count: u64,
    tensors: Option<u64>,
}

impl Claims {
    fn check(&self, header: &Header, place: u64) -> Result<(), String> {
        let count = header.number("split.count").unwrap_or(1);
        if count != self.count {
            return Err(format!(
                "is one of {count} parts, but the others are of {}: it is of another model",
                self.count
            ));
        }
        if header.number("split.no") != Some(place) {
            return Err(format!("is named as part {}, but is another: its name was changed", place + 1));
        }
        if header.number("split.tensors.count") != self.tensors {
            return Err("is of a model with another number of tensors: it is of another model".to_owned());
        }
        Ok(())
    }
}

impl Header {
    /// A whole number from the metadata.
    fn number(&self, key: &str) -> Option<u64> {
        self.metadata.get(key)?.whole()
    }
}
