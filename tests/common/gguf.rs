//! The starter model with another chat template, a file as a stranger might offer it; and in two files.

use std::path::{Path, PathBuf};

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

/// Writes the model in two files, as `llama-gguf-split` does, which lie elsewhere: the folder has links to them, as in a
/// download cache. Returns the links.
pub(crate) fn in_two(from: &Path, folder: &Path, name: &str) -> [PathBuf; 2] {
    let model = std::fs::read(from).expect("the starter model can be read");
    let mut reader = Reader { bytes: &model, at: 8 };
    let (tensors, entries) = (reader.number(), reader.number());
    for _ in 0..entries {
        reader.text();
        let kind = reader.kind();
        reader.skip(kind);
    }
    let metadata = &model[24..reader.at];
    let mut infos = Vec::new();
    for _ in 0..tensors {
        let start = reader.at;
        reader.text();
        let dimensions = reader.kind();
        reader.at += 8 * dimensions as usize + 4;
        let info = &model[start..reader.at];
        infos.push((reader.number() as usize, info));
    }
    infos.sort_unstable();
    let data = &model[reader.at.next_multiple_of(ALIGNMENT)..];
    let ends = infos.iter().skip(1).map(|(offset, _)| *offset).chain([data.len()]);
    let all: Vec<_> = infos.iter().zip(ends).map(|((offset, info), end)| (*info, &data[*offset..end])).collect();
    let integer = |key: &str, number: u64| {
        [&(key.len() as u64).to_le_bytes()[..], key.as_bytes(), &4_u32.to_le_bytes(), &(number as u32).to_le_bytes()]
            .concat()
    };
    let blobs = folder.join("blobs");
    std::fs::create_dir_all(&blobs).expect("there is room for a folder");
    let (first, second) = all.split_at(all.len() / 2);
    [(first, metadata, entries), (second, &[][..], 0)].map(|(part, metadata, entries)| {
        let place = u64::from(entries == 0);
        let split = [("split.no", place), ("split.count", 2), ("split.tensors.count", tensors)];
        let split = split.map(|(key, number)| integer(key, number)).concat();
        let counts = [part.len() as u64, entries + 3].map(u64::to_le_bytes).concat();
        let mut file = [b"GGUF", &3_u32.to_le_bytes()[..], &counts, metadata, &split].concat();
        let mut offset = 0_u64;
        for (info, data) in part {
            file.extend([*info, &offset.to_le_bytes()].concat());
            offset += data.len() as u64;
        }
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
        for (_, data) in part {
            file.extend(*data);
        }
        let blob = blobs.join(format!("{name}{place}"));
        std::fs::write(&blob, file).expect("there is room for a model");
        let link = folder.join(format!("{name}-{:05}-of-00002.gguf", place + 1));
        std::os::unix::fs::symlink(&blob, &link).expect("a link can be made");
        link
    })
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
