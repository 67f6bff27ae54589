//! A GGUF file, written from metadata and tensors.

#![allow(dead_code)]

use std::path::Path;

/// The numbers of ggml's types.
pub const F32: u32 = 0;
pub const Q8_0: u32 = 8;
pub const MXFP4: u32 = 39;

/// What is written.
#[derive(Default)]
pub struct GgufFile {
    metadata: Vec<Vec<u8>>,
    infos: Vec<u8>,
    data: Vec<u8>,
    tensors: u64,
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

impl GgufFile {
    fn entry(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.metadata.push([&string(key)[..], &kind.to_le_bytes(), value].concat());
    }

    pub fn text(&mut self, key: &str, text: &str) {
        self.entry(key, 8, &string(text));
    }

    pub fn number(&mut self, key: &str, number: usize) {
        self.entry(key, 4, &(number as u32).to_le_bytes());
    }

    pub fn real(&mut self, key: &str, number: f64) {
        self.entry(key, 6, &(number as f32).to_le_bytes());
    }

    pub fn flag(&mut self, key: &str, flag: bool) {
        self.entry(key, 7, &[u8::from(flag)]);
    }

    fn array(&mut self, key: &str, kind: u32, count: usize, items: &[u8]) {
        self.entry(key, 9, &[&kind.to_le_bytes()[..], &(count as u64).to_le_bytes(), items].concat());
    }

    pub fn flags(&mut self, key: &str, flags: &[bool]) {
        let items: Vec<u8> = flags.iter().map(|flag| u8::from(*flag)).collect();
        self.array(key, 7, flags.len(), &items);
    }

    pub fn numbers(&mut self, key: &str, numbers: &[usize]) {
        let items: Vec<u8> = numbers.iter().flat_map(|number| (*number as u32).to_le_bytes()).collect();
        self.array(key, 4, numbers.len(), &items);
    }

    /// Adds a tensor of this shape, outermost dimension first.
    pub fn tensor(&mut self, name: &str, shape: &[usize], kind: u32, bytes: &[u8]) {
        self.infos.extend(string(name));
        self.infos.extend((shape.len() as u32).to_le_bytes());
        self.infos.extend(shape.iter().rev().flat_map(|dim| (*dim as u64).to_le_bytes()));
        self.infos.extend(kind.to_le_bytes());
        self.infos.extend((self.data.len() as u64).to_le_bytes());
        self.data.extend(bytes);
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        self.tensors += 1;
    }

    pub fn write(&self, to: &Path) {
        let counts = [self.tensors, self.metadata.len() as u64].map(u64::to_le_bytes).concat();
        let head = [&b"GGUF"[..], &3u32.to_le_bytes(), &counts].concat();
        let mut file = [head, self.metadata.concat(), self.infos.clone()].concat();
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(&self.data);
        std::fs::write(to, file).unwrap();
    }
}

pub fn f32_bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// `Q8_0`: of 32 numbers, a scale and bytes.
pub fn q8_0(numbers: &[f32]) -> Vec<u8> {
    let block = |numbers: &[f32]| {
        let scale = numbers.iter().fold(0f32, |largest, number| largest.max(number.abs())) / 127.0;
        let byte = |number: &f32| if scale > 0.0 { (number / scale).round() as i8 as u8 } else { 0 };
        let bytes: Vec<u8> = numbers.iter().map(byte).collect();
        [&half::f16::from_f32(scale).to_le_bytes()[..], &bytes].concat()
    };
    numbers.chunks_exact(32).flat_map(block).collect()
}

/// The numbers that `Q8_0` makes of these.
pub fn rounded(numbers: &[f32]) -> Vec<f32> {
    let blocks = q8_0(numbers);
    let of_block = |block: &[u8]| -> Vec<f32> {
        let scale = half::f16::from_le_bytes([block[0], block[1]]).to_f32();
        block[2..].iter().map(|byte| scale * f32::from(*byte as i8)).collect()
    };
    blocks.chunks_exact(34).flat_map(of_block).collect()
}

/// MXFP4: of 32 codes, two to a byte in order, and their power of two.
pub fn mxfp4(codes: &[u8], scales: &[u8]) -> Vec<u8> {
    let block = |(codes, scale): (&[u8], &u8)| {
        let codes: Vec<u8> = codes.iter().flat_map(|byte| [byte & 15, byte >> 4]).collect();
        let packed: Vec<u8> = (0..16).map(|at| codes[at] | codes[at + 16] << 4).collect();
        [&[*scale][..], &packed].concat()
    };
    codes.chunks_exact(16).zip(scales).flat_map(block).collect()
}
