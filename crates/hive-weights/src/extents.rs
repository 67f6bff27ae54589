//! Which bytes of a model's files a machine needs: to know the model at all, and to compute some of its layers.
//!
//! A machine that has just these, with holes between them, opens the files and gets the same digest and the same layers
//! as one with all of them (the tests compare).

use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::files::{ModelFiles, samples};
use crate::weights::names::{self, layer_of};

/// Tensors that belong to no layer are part of the outline up to this size.
const SMALL_BYTES: u64 = 1 << 20;

/// A range of one of a model's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The file's name, without its folder.
    pub file: String,
    /// Offsets in the file.
    pub bytes: Range<u64>,
}

impl ModelFiles {
    /// The outline of a model: the headers of its files, and the samples that its digest is made of.
    pub fn outline(&self) -> Vec<Extent> {
        let places = self.weights().places();
        let headers = self.weights().files().into_iter().map(|file| {
            let starts = places.iter().filter(|place| place.file == file).map(|place| place.bytes.start);
            let length = || std::fs::metadata(file).map_or(0, |about| about.len());
            (file, 0..starts.min().unwrap_or_else(length))
        });
        let samples = places.iter().flat_map(|place| {
            let Range { start, end } = place.bytes;
            let is_small = layer_of(&place.name).is_none() && end - start <= SMALL_BYTES;
            let parts = if is_small {
                std::iter::once(0..end - start).collect()
            } else if names::is_computed(&place.name, self.config()) {
                samples(end - start)
            } else {
                Vec::new()
            };
            parts.into_iter().map(move |part| (place.file, start + part.start..start + part.end))
        });
        merged(headers.chain(samples))
    }

    /// The weights of these layers; the embedding belongs to the first, the output to the last.
    pub fn extents(&self, layers: &Range<usize>) -> Vec<Extent> {
        let config = self.config();
        let (is_first, is_last) = (layers.start == 0, layers.end == config.layers);
        let is_wanted = |name: &str| match layer_of(name) {
            Some(layer) => layers.contains(&layer),
            None if name == "model.norm.weight" || name.starts_with("lm_head.") => is_last,
            None if name.starts_with("model.embed_tokens.") => is_first || is_last && config.tied_embeddings,
            None => is_first,
        };
        let places = self.weights().places().into_iter();
        let wanted = places.filter(|place| names::is_computed(&place.name, config) && is_wanted(&place.name));
        merged(wanted.map(|place| (place.file, place.bytes)))
    }
}

/// Sorted, with ranges that touch or overlap joined.
fn merged<'a>(ranges: impl Iterator<Item = (&'a Path, Range<u64>)>) -> Vec<Extent> {
    let mut ranges: Vec<_> = ranges.filter(|(_, bytes)| !bytes.is_empty()).collect();
    ranges.sort_by(|(a, x), (b, y)| (a, x.start, x.end).cmp(&(b, y.start, y.end)));
    let mut joined: Vec<(&Path, Range<u64>)> = Vec::new();
    for (file, bytes) in ranges {
        match joined.last_mut() {
            Some((last, before)) if *last == file && bytes.start <= before.end => {
                before.end = before.end.max(bytes.end);
            }
            _ => joined.push((file, bytes)),
        }
    }
    let name = |file: &Path| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    joined.into_iter().map(|(file, bytes)| Extent { file: name(file), bytes }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_one() {
        let (a, b) = (Path::new("f/a"), Path::new("f/b"));
        let ranges = [(b, 0..4), (a, 8..9), (a, 0..4), (a, 3..6), (a, 6..7), (a, 7..7)];
        let extent = |file: &str, bytes| Extent { file: file.to_owned(), bytes };
        assert_eq!(merged(ranges.into_iter()), [extent("a", 0..7), extent("a", 8..9), extent("b", 0..4)]);
    }
}
