//! Folders as authors publish them, from those that `formula.rs` writes in MLX's form: experts one by one, numbers of 16
//! bits, and matrices in FP8 with scales of blocks.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

/// The tensors of a folder by name, with type, shape and bytes.
pub type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// The tensors of all files of a folder.
pub fn read(folder: &Path) -> Tensors {
    let mut tensors = Tensors::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "safetensors") {
            let bytes = std::fs::read(&path).unwrap();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let of_file = file.tensors().into_iter();
            tensors.extend(
                of_file.map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()))),
            );
        }
    }
    tensors
}

/// Writes a folder with these tensors in one file.
pub fn write(tensors: &Tensors, config: &Value, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let views = tensors
        .iter()
        .map(|(name, (kind, shape, bytes))| (name, TensorView::new(*kind, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, &to.join("model.safetensors")).unwrap();
    std::fs::write(to.join("config.json"), config.to_string()).unwrap();
}

/// Experts as authors have them: each matrix by itself.
pub fn unstacked(tensors: Tensors, parts: [&str; 3]) -> Tensors {
    let mut all = Tensors::new();
    for (name, (kind, shape, bytes)) in tensors {
        let Some((module, part)) = name.split_once("switch_mlp.") else {
            all.insert(name, (kind, shape, bytes));
            continue;
        };
        let (matrix, what) = part.split_once('.').unwrap();
        let at = ["gate_proj", "up_proj", "down_proj"].iter().position(|name| *name == matrix).unwrap();
        for (expert, bytes) in bytes.chunks_exact(bytes.len() / shape[0]).enumerate() {
            let name = format!("{module}experts.{expert}.{}.{what}", parts[at]);
            all.insert(name, (kind, shape[1..].to_vec(), bytes.to_vec()));
        }
    }
    all
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
}

/// Numbers in single precision become bfloat16, but for those of these names.
pub fn in_bfloat16(tensors: &mut Tensors, but: &[&str]) {
    for (_, (kind, _, bytes)) in tensors.iter_mut().filter(|(name, _)| !but.iter().any(|end| name.ends_with(end))) {
        if *kind == Dtype::F32 {
            *bytes = numbers(bytes).flat_map(|number| half::bf16::from_f32(number).to_le_bytes()).collect();
            *kind = Dtype::BF16;
        }
    }
}

/// A number of FP8 by the definition of E4M3.
fn of_code(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 0xf), f32::from(code & 7));
    let magnitude =
        if exponent == 0 { mantissa / 8.0 * 2f32.powi(-6) } else { (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7) };
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

/// The nearest code.
fn code_of(number: f32) -> u8 {
    let codes = (0..0x7f).map(|code| ((of_code(code) - number.abs()).abs(), code));
    let nearest = codes.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap().1;
    nearest | if number < 0.0 { 0x80 } else { 0 }
}

/// Turns the matrices in single precision whose names satisfy `is_chosen` into FP8 with scales of such blocks, and returns
/// the same tensors with the numbers that these stand for, rounded to bfloat16 if `rounds`.
pub fn in_fp8(tensors: &mut Tensors, block: [usize; 2], rounds: bool, is_chosen: impl Fn(&str) -> bool) -> Tensors {
    let mut plain = tensors.clone();
    let chosen: Vec<String> = tensors.keys().filter(|name| is_chosen(name)).cloned().collect();
    for name in chosen {
        let (_, shape, bytes) = &tensors[&name];
        let (values, shape): (Vec<f32>, Vec<usize>) = (numbers(bytes).collect(), shape.clone());
        let (rows, columns) = (shape[0], shape[1]);
        let grid = [rows.div_ceil(block[0]), columns.div_ceil(block[1])];
        let block_of = |at: usize| at / columns / block[0] * grid[1] + at % columns / block[1];
        let mut scales = vec![0f32; grid[0] * grid[1]];
        for (at, value) in values.iter().enumerate() {
            let scale = &mut scales[block_of(at)];
            *scale = scale.max(value.abs() / 448.0);
        }
        let codes: Vec<u8> =
            values.iter().enumerate().map(|(at, value)| code_of(value / scales[block_of(at)])).collect();
        let read = codes.iter().enumerate().map(|(at, code)| of_code(*code) * scales[block_of(at)]);
        let read = if rounds {
            (Dtype::BF16, shape.clone(), read.flat_map(|number| half::bf16::from_f32(number).to_le_bytes()).collect())
        } else {
            (Dtype::F32, shape.clone(), read.flat_map(f32::to_le_bytes).collect())
        };
        plain.insert(name.clone(), read);
        let bytes = scales.into_iter().flat_map(f32::to_le_bytes).collect();
        tensors.insert(format!("{name}_scale_inv"), (Dtype::F32, grid.to_vec(), bytes));
        tensors.insert(name, (Dtype::F8_E4M3, shape, codes));
    }
    plain
}

/// What `config.json` says of FP8 in such blocks.
pub fn fp8_config(block: [usize; 2]) -> Value {
    json!({ "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": block })
}
