//! The work itself: checks, then a tensor after the other, then what stands beside them.

use std::fs::File;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;

use hive_weights::weights::FloatTensor;
use hive_weights::{ModelFiles, Role};
use serde_json::Value as Json;

use crate::arithmetic::{converted, quantized};
use crate::beside::{self, Beside};
use crate::destination::{Destination, free};
use crate::error::QuantizeError;
use crate::plan::{FilePlan, MAX_FILE_BYTES, Plan, Planned};
use crate::recipe::Recipe;
use crate::settings::Settings;

/// The numbers of a tensor that are in memory at a time. MLX has a copy of them, one in another type where they are
/// converted, and what they become: about four times as much in all.
pub const PART_BYTES: usize = 16 << 20;

/// Room for what is small.
const SPARE_BYTES: u64 = 16 << 20;

/// Progress, in bytes of the model's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Those that are done.
    pub done_bytes: u64,
    /// All of them.
    pub total_bytes: u64,
}

/// What was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantized {
    /// The bytes of its weights.
    pub bytes: u64,
    /// The matrices that were quantized.
    pub quantized: usize,
    /// The other tensors.
    pub kept: usize,
    /// Bits for each of all numbers, with scales and biases.
    pub bits_per_weight: f64,
}

/// Quantizes the model in a folder into a new folder `to`. Calls `heard` now and then, and stops when it says so.
///
/// Runs for as long as it takes to read the model once, on the thread that calls it.
///
/// # Errors
/// [`QuantizeError`] says which. The new folder is there only if there is none.
pub fn quantize(
    model: &Path,
    to: &Path,
    recipe: Recipe,
    heard: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Quantized, QuantizeError> {
    quantize_in_files_of(MAX_FILE_BYTES, model, to, recipe, heard)
}

/// The same with another limit on the size of a file.
#[doc(hidden)]
pub fn quantize_in_files_of(
    max_file_bytes: u64,
    model: &Path,
    to: &Path,
    recipe: Recipe,
    heard: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Quantized, QuantizeError> {
    free(to)?;
    let files = ModelFiles::open(model)?;
    if files.weights().is_gguf() {
        return Err(QuantizeError::Gguf(model.to_owned()));
    }
    if files.is_quantized() {
        return Err(QuantizeError::Quantized(model.to_owned()));
    }
    let settings = Settings::read(model)?;
    let plan = Plan::new(&files, &recipe, settings.float(), max_file_bytes)?;
    if !plan.is_worth_it() {
        return Err(QuantizeError::Nothing { model: model.to_owned(), group: recipe.group });
    }
    let beside = beside::files(model)?;
    has_room(to, plan.bytes() + beside.iter().map(|file| file.bytes).sum::<u64>() + SPARE_BYTES)?;

    let destination = Destination::begin(to)?;
    let total_bytes = plan.tensors.iter().map(Planned::source_bytes).sum();
    let mut done_bytes = 0;
    let mut advance = |bytes: u64| {
        done_bytes += bytes;
        match heard(Progress { done_bytes, total_bytes }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(QuantizeError::Stopped),
        }
    };
    for file in &plan.files {
        write_file(&destination.file(&file.name), file, &plan, &mut advance)?;
    }
    write_json(&destination.file("model.safetensors.index.json"), &plan.index())?;
    for file in &beside {
        copy(file, &destination)?;
    }
    // With it, a folder is a model.
    let exceptions = plan.exceptions(&recipe);
    write_json(&destination.file("config.json"), &settings.quantized(&recipe, exceptions))?;
    ModelFiles::open(&destination.file(""))?;
    destination.finish()?;

    let bytes = plan.files.iter().map(|file| file.bytes).sum();
    let numbers: u64 = plan.tensors.iter().map(|tensor| tensor.tensor.numbers()).sum();
    let quantized = plan.tensors.iter().filter(|tensor| tensor.how.is_some()).count();
    Ok(Quantized {
        bytes,
        quantized,
        kept: plan.tensors.len() - quantized,
        bits_per_weight: bytes as f64 * 8.0 / numbers.max(1) as f64,
    })
}

/// Whether the disk has room for so much.
fn has_room(to: &Path, needed_bytes: u64) -> Result<(), QuantizeError> {
    let to = std::path::absolute(to).unwrap_or_else(|_| to.to_owned());
    let Some(folder) = to.ancestors().skip(1).find(|folder| folder.is_dir()) else { return Ok(()) };
    // A disk that does not say it is not refused.
    let Ok(disk) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free_bytes < needed_bytes {
        return Err(QuantizeError::NoRoom { folder: folder.to_owned(), needed_bytes, free_bytes });
    }
    Ok(())
}

/// A file that is being written, at any place of it.
struct Writing<'a> {
    path: &'a Path,
    file: File,
}

impl Writing<'_> {
    fn at(&self, place: &mut u64, bytes: &[u8]) -> Result<(), QuantizeError> {
        let written = self.file.write_all_at(bytes, *place);
        written.map_err(|source| QuantizeError::Write { path: self.path.to_owned(), source })?;
        *place += bytes.len() as u64;
        Ok(())
    }
}

fn write_file(
    path: &Path,
    file: &FilePlan,
    plan: &Plan<'_>,
    advance: &mut dyn FnMut(u64) -> Result<(), QuantizeError>,
) -> Result<(), QuantizeError> {
    let failed = |source| QuantizeError::Write { path: path.to_owned(), source };
    let writing = Writing { path, file: File::create_new(path).map_err(failed)? };
    let mut at = 0;
    writing.at(&mut at, &file.header)?;
    for tensor in &plan.tensors[file.tensors.clone()] {
        let mut places = Vec::new();
        for piece in tensor.pieces() {
            places.push(at);
            at += piece.bytes;
        }
        write_tensor(&writing, tensor, places, advance)?;
    }
    writing.file.sync_all().map_err(failed)
}

/// `places`: where its words, scales and biases begin, or its numbers.
fn write_tensor(
    writing: &Writing<'_>,
    tensor: &Planned<'_>,
    mut places: Vec<u64>,
    advance: &mut dyn FnMut(u64) -> Result<(), QuantizeError>,
) -> Result<(), QuantizeError> {
    let mut write = |rows: FloatTensor| -> Result<(), QuantizeError> {
        let read = rows.bytes.len() as u64;
        let parts = match (tensor.how, tensor.tensor.role) {
            (Some(how), _) => quantized(&rows, tensor.to, how)?.to_vec(),
            (None, Role::Vector { is_from_one, .. }) => vec![converted(rows, tensor.to, is_from_one)?],
            (None, _) => vec![converted(rows, tensor.to, false)?],
        };
        for (place, bytes) in places.iter_mut().zip(&parts) {
            writing.at(place, bytes)?;
        }
        advance(read)
    };
    let mut gathered: Option<FloatTensor> = None;
    for part in tensor.tensor.parts() {
        let part = part?;
        match &mut gathered {
            Some(rows) => {
                rows.shape[0] += part.shape[0];
                rows.bytes.extend_from_slice(&part.bytes);
            }
            None => gathered = Some(part),
        }
        if let Some(rows) = gathered.take_if(|rows| rows.bytes.len() >= PART_BYTES) {
            write(rows)?;
        }
    }
    gathered.map_or(Ok(()), write)
}

fn write_json(path: &Path, json: &Json) -> Result<(), QuantizeError> {
    let failed = |source| QuantizeError::Write { path: path.to_owned(), source };
    // As Python writes it with an indent of four.
    let mut text = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut writer = serde_json::Serializer::with_formatter(&mut text, indent);
    serde::Serialize::serialize(json, &mut writer).map_err(|error| failed(error.into()))?;
    let mut file = File::create_new(path).map_err(failed)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)
}

fn copy(Beside { name, path, .. }: &Beside, destination: &Destination) -> Result<(), QuantizeError> {
    let to = destination.file(name);
    let read = |source| QuantizeError::Read { path: path.clone(), source };
    let write = |source| QuantizeError::Write { path: to.clone(), source };
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).map_err(write)?;
    }
    let (mut from, _) = hive_text::regular::open(path).map_err(read)?;
    let mut file = File::create_new(&to).map_err(write)?;
    let mut part = Vec::new();
    while Read::by_ref(&mut from).take(PART_BYTES as u64).read_to_end(&mut part).map_err(read)? > 0 {
        file.write_all(&part).map_err(write)?;
        part.clear();
    }
    file.sync_all().map_err(write)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_is_named_with_what_it_has_and_what_it_needs() {
        let folder = tempfile::tempdir().unwrap();
        // Folders on the way to it need not be there yet.
        let to = folder.path().join("a/b/to");
        assert!(has_room(&to, 1).is_ok());
        let why = has_room(&to, u64::MAX).unwrap_err();
        let QuantizeError::NoRoom { folder: named, .. } = &why else { panic!("{why}") };
        assert_eq!(named, folder.path());
        assert!(why.to_string().contains("GB free, and 18446744073.7 GB are needed"), "{why}");
    }
}
