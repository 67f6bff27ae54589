//! Tensors by formula: every number follows from the seed, the tensor's name and its kind. The same bits as
//! `tests/oracle/formula.py`, which describes the kinds.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Numbers of 31 bits from a name: a linear congruential generator, seeded by FNV-1a.
fn numbers(name: &str, count: usize) -> Vec<u32> {
    let mut state = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |state, byte| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn floats(name: &str, count: usize, scale: f32, offset: f32) -> Vec<f32> {
    let unit = |n: u32| n as f32 / 2f32.powi(31) - 0.5;
    numbers(name, count).into_iter().map(|n| unit(n) * scale + offset).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The tensors of a folder by name, with type, shape and bytes.
#[derive(Default)]
struct Tensors(BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>);

impl Tensors {
    /// Adds what one entry of a fixture stands for.
    fn add(&mut self, seed: &str, name: &str, shape: &[usize], kind: &str) {
        let (at, count) = (format!("{seed}/{name}"), shape.iter().product());
        let mut parameters = kind.split(' ');
        let what = parameters.next().unwrap();
        let parameters: Vec<&str> = parameters.collect();
        let number = |index: usize| parameters[index].parse::<usize>().unwrap();
        let real = |index: usize| parameters[index].parse::<f32>().unwrap();
        if what == "float" {
            let mut values = floats(&at, count, real(0), real(1));
            if parameters.len() > 2 {
                let width = count / shape[0];
                values[number(3) * width..number(4) * width].fill(0.0);
            }
            self.0.insert(name.to_owned(), (Dtype::F32, shape.to_vec(), bytes(&values)));
            return;
        }
        let (bits, group) = match what {
            "affine" => (number(0), number(1)),
            "mxfp4" => (4, 32),
            "mxfp8" => (8, 32),
            "nvfp4" => (4, 16),
            other => panic!("{other} is no kind of tensor"),
        };
        let (columns, rows) = shape.split_last().unwrap();
        let wide = |width: usize| [rows, &[width]].concat();
        let words = count * bits / 32;
        // 8-bit floats stay below 2, so that none is NaN.
        let mask = if what == "mxfp8" { 0xbfbf_bfbf } else { u32::MAX };
        let (low, high) = (numbers(&at, words), numbers(&format!("{at}+"), words));
        let packed =
            low.iter().zip(&high).flat_map(|(low, high)| ((low ^ (high << 16)) & mask).to_le_bytes()).collect();
        self.0.insert(format!("{name}.weight"), (Dtype::U32, wide(columns * bits / 32), packed));
        let (groups, scales_at) = (count / group, format!("{at}.scales"));
        let mut scales = |part: &str, kind, bytes| {
            self.0.insert(format!("{name}.{part}"), (kind, wide(columns / group), bytes));
        };
        if what == "affine" {
            let step = ((12.0 / *columns as f64).sqrt() / f64::from(1u32 << bits)) as f32;
            let values = floats(&scales_at, groups, step * 0.2, step);
            let half = ((1u32 << bits) - 1) as f32 / 2.0;
            scales("biases", Dtype::F32, bytes(&values.iter().map(|scale| -scale * half).collect::<Vec<_>>()));
            scales("scales", Dtype::F32, bytes(&values));
        } else {
            let exponent = |size: f64| (size / (*columns as f64).sqrt()).log2().floor() as i32;
            let choices = numbers(&scales_at, groups).into_iter().map(|n| (n >> 29) as u8);
            let values = match what {
                "nvfp4" => choices.map(|choice| ((7 + exponent(0.4)) << 3) as u8 + choice * 2).collect(),
                "mxfp4" => choices.map(|choice| (126 + exponent(0.4)) as u8 + choice % 3).collect(),
                _ => choices.map(|choice| (126 + exponent(2.0)) as u8 + choice % 3).collect(),
            };
            scales("scales", Dtype::U8, values);
        }
    }
}

/// Writes the folder of one variant of a fixture, and returns a digest of the names and bits of its tensors.
pub(crate) fn write(variant: &Value, to: &Path) -> String {
    let seed = variant["seed"].as_str().unwrap();
    let mut tensors = Tensors::default();
    for entry in variant["tensors"].as_array().unwrap() {
        let shape: Vec<usize> = entry[1].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
        tensors.add(seed, entry[0].as_str().unwrap(), &shape, entry[2].as_str().unwrap());
    }
    // In two files, like large models.
    let views = tensors
        .0
        .iter()
        .map(|(name, (kind, shape, bytes))| (name, TensorView::new(*kind, shape.clone(), bytes).unwrap()));
    let (first, second): (Vec<_>, Vec<_>) = views.partition(|(name, _)| name.contains("layers.1."));
    for (number, part) in [first, second].into_iter().enumerate() {
        let file = to.join(format!("model-0000{}-of-00002.safetensors", number + 1));
        safetensors::serialize_to_file(part, None, &file).unwrap();
    }
    std::fs::write(to.join("config.json"), variant["config"].to_string()).unwrap();
    let mut hasher = Sha256::new();
    for (name, (_, _, bytes)) in &tensors.0 {
        hasher.update(name);
        hasher.update(bytes);
    }
    data_encoding::HEXLOWER.encode(&hasher.finalize())
}
