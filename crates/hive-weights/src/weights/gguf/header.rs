//! The untrusted part of a GGUF file: everything before the tensor data.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};

use super::blocks::BlockType;

/// Limits on names and dimensions of tensors that no real file exceeds; the format itself allows four dimensions.
const MAX_DIMENSIONS: u32 = 4;
/// The largest real headers, with a vocabulary of 262,144 tokens and its merges, take 20 MB.
const MAX_HEADER_BYTES: u64 = 256 << 20;
/// Models with a tensor per expert and layer have about ten thousand.
pub(super) const MAX_TENSORS: u64 = 1 << 17;
/// Real files have about fifty.
const MAX_VALUES: u64 = 1 << 14;
/// Limit on the length of a key or tensor name; the longest real ones have about sixty bytes.
const MAX_NAME_BYTES: u64 = 1 << 10;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    String(String),
    Array(Items),
}

/// A metadata array, which takes as much memory as in the file.
#[derive(Debug, Clone, PartialEq)]
pub enum Items {
    /// Texts.
    Strings(Strings),
    /// Numbers or truth values.
    Numbers(Numbers),
}

impl Value {
    /// A whole number.
    pub(super) fn whole(&self) -> Option<u64> {
        match self {
            Self::Unsigned(number) => Some(*number),
            Self::Signed(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }
}

impl Items {
    /// The number of items.
    pub fn len(&self) -> usize {
        match self {
            Self::Strings(strings) => strings.len(),
            Self::Numbers(numbers) => numbers.bytes.len() / numbers.item_bytes,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Strings, stored back to back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Strings {
    text: String,
    /// The end of each string.
    ends: Vec<u32>,
}

impl Strings {
    /// The number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// One of the strings.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)? as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.text.get(start..end)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

/// Numbers as stored in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbers {
    kind: u32,
    item_bytes: usize,
    bytes: Vec<u8>,
}

impl Numbers {
    /// All of them, without those that are not whole numbers.
    pub(crate) fn integers(&self) -> impl Iterator<Item = i64> {
        self.values().filter_map(|value| match value {
            Value::Signed(number) => Some(number),
            Value::Unsigned(number) => i64::try_from(number).ok(),
            _ => None,
        })
    }

    /// All of them, if they are truth values, or whole numbers that stand for some.
    pub(crate) fn flags(&self) -> Option<Vec<bool>> {
        let flag = |value| match value {
            Value::Bool(flag) => Some(flag),
            other => other.whole().map(|number| number != 0),
        };
        self.values().map(flag).collect()
    }

    /// All of them, if they are real numbers.
    pub(crate) fn reals(&self) -> Option<Vec<f64>> {
        let real = |value| if let Value::Float(number) = value { Some(number) } else { None };
        self.values().map(real).collect()
    }

    fn values(&self) -> impl Iterator<Item = Value> {
        self.bytes.chunks_exact(self.item_bytes).filter_map(|bytes| number(self.kind, bytes))
    }
}

/// The size of a number or truth value of this metadata type, in bytes.
fn number_bytes(kind: u32) -> Option<usize> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn number(kind: u32, bytes: &[u8]) -> Option<Value> {
    Some(match kind {
        0 => Value::Unsigned(u64::from(*bytes.first()?)),
        1 => Value::Signed(i64::from(i8::from_le_bytes(bytes.try_into().ok()?))),
        2 => Value::Unsigned(u64::from(u16::from_le_bytes(bytes.try_into().ok()?))),
        3 => Value::Signed(i64::from(i16::from_le_bytes(bytes.try_into().ok()?))),
        4 => Value::Unsigned(u64::from(u32::from_le_bytes(bytes.try_into().ok()?))),
        5 => Value::Signed(i64::from(i32::from_le_bytes(bytes.try_into().ok()?))),
        6 => Value::Float(f64::from(f32::from_le_bytes(bytes.try_into().ok()?))),
        7 => Value::Bool(*bytes.first()? != 0),
        10 => Value::Unsigned(u64::from_le_bytes(bytes.try_into().ok()?)),
        11 => Value::Signed(i64::from_le_bytes(bytes.try_into().ok()?)),
        12 => Value::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
        _ => return None,
    })
}

/// An entry of the tensor table, checked to be inside the file.
#[derive(Debug, Clone)]
pub(super) struct TensorInfo {
    pub(super) name: String,
    /// Outermost dimension first, unlike in the file.
    pub(super) shape: Vec<usize>,
    pub(super) block: BlockType,
    /// The file, by its place among the model's.
    pub(super) part: usize,
    /// The offset from the beginning of the file.
    pub(super) start: u64,
    pub(super) bytes: u64,
}

#[derive(Debug)]
pub(super) struct Header {
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) tensors: BTreeMap<String, TensorInfo>,
}

/// Why a file is not a usable GGUF.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// Reading failed.
    #[error("cannot read the file: {0}")]
    Io(std::io::Error),
    /// It does not begin like a GGUF.
    #[error("this is not a GGUF file")]
    Magic,
    /// A version with another layout.
    #[error("GGUF version {0} is not supported; versions 2 and 3 are")]
    Version(u32),
    /// The file ends before its header does.
    #[error("the file ends inside its header: it is truncated, or was downloaded only in part")]
    Truncated,
    /// An impossible length or count.
    #[error("{what} claims {claimed} bytes or items, more than the file or a header holds: the file is corrupt")]
    TooLarge {
        /// What it counts.
        what: String,
        /// Its value.
        claimed: u64,
    },
    /// Any other contradiction.
    #[error("the file is corrupt: {0}")]
    Corrupt(String),
    /// A tensor extends past the end of the file.
    #[error("tensor {0} reaches past the end of the file: it is truncated, or was downloaded only in part")]
    OutOfFile(String),
    /// A file of a split model is not there.
    #[error("{part} is missing: the model is in {count} files, and all must be in one folder; download it, too")]
    MissingPart {
        /// Its name.
        part: String,
        /// The number of files.
        count: u64,
    },
    /// Another file of a split model is not valid.
    #[error("{part}: {source}")]
    Part {
        /// Its name.
        part: String,
        /// The cause.
        source: Box<HeaderError>,
    },
    /// The files of a split model do not belong together.
    #[error("{0}")]
    Split(String),
    /// Two tensors overlap.
    #[error("tensors {0} and {1} overlap: the file is corrupt")]
    Overlap(String, String),
}

/// Reads the header of a file of `length` bytes.
pub(super) fn read(from: &mut impl Read, length: u64) -> Result<Header, HeaderError> {
    let header_bytes = length.min(MAX_HEADER_BYTES);
    let mut reader = Reader { from, left: header_bytes };
    if reader.array()? != *b"GGUF" {
        return Err(HeaderError::Magic);
    }
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        return Err(HeaderError::Version(version));
    }
    let tensor_count = reader.count("the number of tensors", 24)?;
    let value_count = reader.count("the number of metadata values", 13)?;
    for (what, count, most) in [("tensors", tensor_count, MAX_TENSORS), ("metadata values", value_count, MAX_VALUES)] {
        if count > most {
            return Err(HeaderError::Corrupt(format!("it claims {count} {what}; more than {most} are not accepted")));
        }
    }

    let mut metadata = BTreeMap::new();
    for _ in 0..value_count {
        let key = reader.name("a metadata key")?;
        let kind = reader.u32()?;
        // Text in another encoding is no reason to refuse a model if it is a label, such as a name or a path; if it is
        // a token, it is.
        let text = if key.starts_with("tokenizer.") { Text::Exact } else { Text::Label };
        let value = reader.value(&format!("the metadata value {key}"), kind, text)?;
        if metadata.contains_key(&key) {
            return Err(HeaderError::Corrupt(format!("the metadata key {key} stands there twice")));
        }
        metadata.insert(key, value);
    }
    let mut tensors = Vec::new();
    for _ in 0..tensor_count {
        tensors.push(reader.tensor()?);
    }
    let alignment = match metadata.get("general.alignment") {
        None => 32,
        Some(Value::Unsigned(alignment)) if alignment.is_power_of_two() && *alignment <= 1 << 20 => *alignment,
        Some(other) => return Err(HeaderError::Corrupt(format!("alignment {other:?}"))),
    };
    let data = (header_bytes - reader.left).next_multiple_of(alignment);
    Ok(Header { metadata, tensors: place(tensors, data, length)? })
}

/// Turns offsets into file positions, and refuses tensors that are outside the file or overlap.
fn place(mut tensors: Vec<TensorInfo>, data: u64, length: u64) -> Result<BTreeMap<String, TensorInfo>, HeaderError> {
    for tensor in &mut tensors {
        let end = tensor.start.checked_add(data).and_then(|start| {
            tensor.start = start;
            start.checked_add(tensor.bytes)
        });
        if end.is_none_or(|end| end > length) {
            return Err(HeaderError::OutOfFile(tensor.name.clone()));
        }
    }
    tensors.sort_by_key(|tensor| tensor.start);
    for pair in tensors.windows(2) {
        if pair[0].start + pair[0].bytes > pair[1].start {
            return Err(HeaderError::Overlap(pair[0].name.clone(), pair[1].name.clone()));
        }
    }
    let mut table = BTreeMap::new();
    for tensor in tensors {
        if let Some(twice) = table.insert(tensor.name.clone(), tensor) {
            return Err(HeaderError::Corrupt(format!("tensor {} stands there twice", twice.name)));
        }
    }
    Ok(table)
}

/// How strictly a text is decoded.
#[derive(Clone, Copy, PartialEq)]
enum Text {
    /// Leniently: it is for people only.
    Label,
    Exact,
}

impl Text {
    fn read(self, bytes: Vec<u8>, what: &str) -> Result<String, HeaderError> {
        match self {
            Self::Label => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Self::Exact => String::from_utf8(bytes).map_err(|_| HeaderError::Corrupt(format!("{what} is not UTF-8"))),
        }
    }
}

/// Reads numbers, and never more than is left of the file.
struct Reader<'a, R> {
    from: &'a mut R,
    left: u64,
}

impl<R: Read> Reader<'_, R> {
    fn bytes(&mut self, count: u64, what: &str) -> Result<Vec<u8>, HeaderError> {
        if count > self.left {
            return Err(HeaderError::TooLarge { what: what.to_owned(), claimed: count });
        }
        let mut bytes = vec![0; count as usize];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), HeaderError> {
        self.left = self.left.checked_sub(buffer.len() as u64).ok_or(HeaderError::Truncated)?;
        self.from.read_exact(buffer).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => HeaderError::Truncated,
            _ => HeaderError::Io(error),
        })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], HeaderError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, HeaderError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, HeaderError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Reads a count of items that take at least `item_bytes` each.
    fn count(&mut self, what: &str, item_bytes: u64) -> Result<u64, HeaderError> {
        let count = self.u64()?;
        if count > self.left / item_bytes {
            return Err(HeaderError::TooLarge { what: what.to_owned(), claimed: count });
        }
        Ok(count)
    }

    fn name(&mut self, what: &str) -> Result<String, HeaderError> {
        let name = self.string(what)?;
        if name.len() as u64 > MAX_NAME_BYTES {
            return Err(HeaderError::Corrupt(format!("{what} has {} bytes", name.len())));
        }
        Ok(name)
    }

    fn string(&mut self, what: &str) -> Result<String, HeaderError> {
        let length = self.u64()?;
        let bytes = self.bytes(length, what)?;
        Text::Exact.read(bytes, what)
    }

    fn value(&mut self, what: &str, kind: u32, text: Text) -> Result<Value, HeaderError> {
        let unknown = |kind| HeaderError::Corrupt(format!("{what} is of type {kind}"));
        match kind {
            8 => {
                let length = self.u64()?;
                let bytes = self.bytes(length, what)?;
                Ok(Value::String(text.read(bytes, what)?))
            }
            9 => {
                let item_kind = self.u32()?;
                if item_kind == 8 {
                    return Ok(Value::Array(Items::Strings(self.strings(what, text)?)));
                }
                // Nested arrays are not used in practice.
                let item_bytes = number_bytes(item_kind).ok_or_else(|| unknown(item_kind))?;
                let count = self.count(what, item_bytes as u64)?;
                let bytes = self.bytes(count * item_bytes as u64, what)?;
                Ok(Value::Array(Items::Numbers(Numbers { kind: item_kind, item_bytes, bytes })))
            }
            _ => {
                let bytes = self.bytes(number_bytes(kind).ok_or_else(|| unknown(kind))? as u64, what)?;
                number(kind, &bytes).ok_or_else(|| unknown(kind))
            }
        }
    }

    fn strings(&mut self, what: &str, text: Text) -> Result<Strings, HeaderError> {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..self.count(what, 8)? {
            let length = self.u64()?;
            if length > self.left {
                return Err(HeaderError::TooLarge { what: what.to_owned(), claimed: length });
            }
            let start = bytes.len();
            bytes.resize(start + length as usize, 0);
            self.fill(&mut bytes[start..])?;
            // The header's own limit is far below that.
            ends.push(bytes.len() as u32);
        }
        if text == Text::Label && std::str::from_utf8(&bytes).is_err() {
            return Ok(Strings { text: String::new(), ends: Vec::new() });
        }
        let text = text.read(bytes, what)?;
        if ends.iter().any(|&end| !text.is_char_boundary(end as usize)) {
            return Err(HeaderError::Corrupt(format!("{what} is not UTF-8")));
        }
        Ok(Strings { text, ends })
    }

    fn tensor(&mut self) -> Result<TensorInfo, HeaderError> {
        let name = self.name("a tensor name")?;
        let dimensions = self.u32()?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(HeaderError::Corrupt(format!("tensor {name} has {dimensions} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.push(self.u64()?);
        }
        let block = BlockType::from_ggml(self.u32()?);
        let start = self.u64()?;
        let elements = shape.iter().try_fold(1u64, |product, &dimension| product.checked_mul(dimension));
        // A block never spans two rows.
        if !shape[0].is_multiple_of(block.elements()) {
            let (row, elements) = (shape[0], block.elements());
            let why = format!("tensor {name} has rows of {row} numbers, but {block} stores {elements} together");
            return Err(HeaderError::Corrupt(why));
        }
        let bytes = elements.and_then(|elements| (elements / block.elements()).checked_mul(block.bytes()));
        let bytes = bytes.ok_or_else(|| HeaderError::Corrupt(format!("tensor {name} has shape {shape:?}")))?;
        // The file lists the innermost dimension first. Every dimension is now known to fit, as their product does.
        let shape = shape.iter().rev().map(|&dimension| dimension as usize).collect();
        Ok(TensorInfo { name, shape, block, part: 0, start, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &[u8]) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text].concat()
    }

    /// A header with texts.
    fn with_all(texts: &[(&str, &[u8])]) -> Result<Header, String> {
        let counts = [0u64, texts.len() as u64].map(u64::to_le_bytes).concat();
        let entry =
            |(key, value): &(&str, &[u8])| [text(key.as_bytes()), 8u32.to_le_bytes().to_vec(), text(value)].concat();
        let entries: Vec<u8> = texts.iter().flat_map(entry).collect();
        let bytes = [&b"GGUF"[..], &3u32.to_le_bytes(), &counts, &entries].concat();
        read(&mut &*bytes, bytes.len() as u64).map_err(|error| error.to_string())
    }

    fn with(key: &str, value: &[u8]) -> Result<Header, String> {
        with_all(&[(key, value)])
    }

    #[test]
    fn a_key_that_stands_there_twice_has_no_value() {
        assert!(with_all(&[("llama.note", b"a"), ("llama.notes", b"b")]).is_ok());
        let message = with_all(&[("llama.note", b"a"), ("x", b"b"), ("llama.note", b"a")]).unwrap_err();
        assert!(message.contains("the metadata key llama.note stands there twice"), "{message}");
    }

    #[test]
    fn a_text_in_another_encoding_is_a_fault_only_where_tokens_are_made_of_it() {
        for label in ["general.organization", "quantize.imatrix.file", "llama.note", "whatever"] {
            let header = with(label, b"Caf\xe9").unwrap();
            assert_eq!(header.metadata[label], Value::String("Caf\u{fffd}".to_owned()), "{label}");
        }
        let message = with("tokenizer.chat_template", b"Caf\xe9").unwrap_err();
        assert!(message.contains("the metadata value tokenizer.chat_template is not UTF-8"), "{message}");
    }
}
