//! The starter model with another chat template: a file as a stranger might offer it.

use std::path::Path;

/// Where tensor data begins is a multiple of this.
const ALIGNMENT: usize = 32;
const TEMPLATE: &[u8] = b"tokenizer.chat_template";
/// The type of a text in a GGUF's metadata.
const STRING: [u8; 4] = 8_u32.to_le_bytes();

/// Writes the model at `from` with another chat template to `to`.
pub(crate) fn with_template(from: &Path, to: &Path, template: &str) {
    let model = std::fs::read(from).expect("the starter model can be read");
    let mut reader = Reader { bytes: &model, at: 8 };
    let (tensors, entries) = (reader.number(), reader.number());
    for _ in 0..entries {
        reader.text();
        let kind = reader.kind();
        reader.skip(kind);
    }
    for _ in 0..tensors {
        reader.text();
        let dimensions = reader.kind();
        reader.at += 8 * dimensions as usize + 12;
    }
    let (header, data) = (reader.at, reader.at.next_multiple_of(ALIGNMENT));
    let key = [&(TEMPLATE.len() as u64).to_le_bytes(), TEMPLATE, &STRING].concat();
    let at = model[..header].windows(key.len()).position(|window| window == key).expect("the model has a template")
        + key.len();
    let old = Reader { bytes: &model, at }.text().len();
    let mut new =
        [&model[..at], &(template.len() as u64).to_le_bytes(), template.as_bytes(), &model[at + 8 + old..header]]
            .concat();
    new.resize(new.len().next_multiple_of(ALIGNMENT), 0);
    new.extend(&model[data..]);
    std::fs::write(to, new).expect("there is room for a model");
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> &'a [u8] {
        self.at += bytes;
        &self.bytes[self.at - bytes..self.at]
    }

    fn kind(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn number(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().expect("eight bytes"))
    }

    fn text(&mut self) -> &'a [u8] {
        let length = self.number() as usize;
        self.take(length)
    }

    fn skip(&mut self, kind: u32) {
        match kind {
            0 | 1 | 7 => self.at += 1,
            2 | 3 => self.at += 2,
            4..=6 => self.at += 4,
            8 => drop(self.text()),
            9 => {
                let (kind, count) = (self.kind(), self.number());
                for _ in 0..count {
                    self.skip(kind);
                }
            }
            _ => self.at += 8,
        }
    }
}
