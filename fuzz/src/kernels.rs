//! The kernels' safe surface with shapes that do not fit: an error, and never a read or write past an end.

use hive_kernels::{
    Affine, AttentionShape, Format, HeadWeights, KvBuffers, KvSource, LayerWeights, PackedMatrix, Scaling, SessionRows,
    attention, geglu, head, layer, rms_norm, swiglu,
};
use mlx_rs::{Array, Device};

/// Takes numbers off the input; zeros when it has ended.
struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    /// Nearly always small; sometimes what overflows when it is added or multiplied.
    fn size(&mut self) -> usize {
        match self.byte() {
            250 => usize::MAX,
            251 => i32::MAX as usize,
            252 => usize::MAX / 2 + 1,
            253 => 1 << 32,
            254 => u32::MAX as usize,
            byte if byte < 128 => usize::from(byte),
            byte => usize::from(byte - 127) * 16,
        }
    }

    fn small(&mut self) -> usize {
        self.size().min(512)
    }

    fn array(&mut self) -> Array {
        let (rows, columns) = (self.small().min(24), self.small());
        let values: Vec<f32> = (0..rows * columns).map(|n| n as f32 / 64.0).collect();
        let array = Array::from_slice(&values, &[rows as i32, columns as i32]);
        match self.byte() % 8 {
            0 => array.reshape(&[(rows * columns) as i32]).unwrap_or(array),
            1 => array.as_dtype(mlx_rs::Dtype::Float16).unwrap_or(array),
            2 => array.transpose().unwrap_or(array),
            _ => array,
        }
    }

    fn vector(&mut self) -> Array {
        let length = self.small();
        Array::from_slice(&vec![1.0f32; length], &[length as i32])
    }

    fn matrix(&mut self) -> Option<PackedMatrix> {
        let format = [Format::Q4, Format::Q8, Format::F32, Format::F16, Format::Bf16][usize::from(self.byte() % 5)];
        let (rows, columns, group) = (self.size(), self.size(), self.size());
        let per_byte = match format {
            Format::Q4 => (1, 2),
            Format::Q8 => (1, 1),
            Format::F32 => (4, 1),
            Format::F16 | Format::Bf16 => (2, 1),
        };
        let fitting = rows.saturating_mul(columns).saturating_mul(per_byte.0) / per_byte.1;
        let weights = vec![0x11; if fitting <= 1 << 20 { fitting } else { self.small() }];
        let groups = rows.saturating_mul(columns.checked_div(group).unwrap_or(0)).min(1 << 16);
        let choice = self.byte();
        let (scaling, scale, bias) = match choice / 8 % 5 {
            0 => (Scaling::F32, 4, 4),
            1 => (Scaling::F16, 2, 2),
            2 => (Scaling::Bf16, 2, 2),
            3 => (Scaling::F16Multiple(-8.0), 2, 0),
            _ => (Scaling::F16Multiple(f32::from(choice)), 2, 2),
        };
        let (scales, biases) = (vec![0x11; groups * scale], vec![0x11; groups * bias]);
        let affine = Affine { group, scaling, scales: &scales, biases: &biases };
        let affine = (!choice.is_multiple_of(8) && matches!(format, Format::Q4 | Format::Q8)).then_some(affine);
        PackedMatrix::pack(format, rows, columns, &weights, affine).ok()
    }

    fn shape(&mut self) -> AttentionShape {
        let (heads, kv_heads, head_dim) = (self.size(), self.size(), self.size());
        let shape = AttentionShape::new(heads, kv_heads, head_dim, 0.25);
        match self.byte() % 8 {
            0 => AttentionShape { rotated: self.size(), ..shape },
            1 => AttentionShape { window: Some(self.size()), ..shape },
            2 => AttentionShape { source: KvSource::NormedValues, ..shape },
            3 => AttentionShape { source: KvSource::Joint, ..shape },
            4 => AttentionShape { source: KvSource::Cached, ..shape },
            _ => shape,
        }
    }
}

fn evaluate(array: Result<Array, hive_kernels::KernelError>) -> bool {
    array.is_ok_and(|array| array.eval().is_ok())
}

/// Calls one function with arguments made of the bytes. Whether they fit.
pub fn run(data: &[u8]) -> bool {
    Device::set_default(&Device::cpu());
    hive_kernels::set_threads(1);
    let mut bytes = Bytes(data.iter());
    match bytes.byte() % 6 {
        0 => evaluate(rms_norm(&bytes.array(), &bytes.vector(), 1e-5)),
        1 => {
            let gate_up = bytes.array();
            evaluate(if bytes.byte().is_multiple_of(2) { swiglu(&gate_up) } else { geglu(&gate_up) })
        }
        2 => {
            let Some(matrix) = bytes.matrix() else { return false };
            let residual = bytes.byte().is_multiple_of(2);
            let residual = residual.then(|| bytes.array());
            let fits = evaluate(matrix.matmul(&bytes.array(), residual.as_ref()));
            let _ = matrix.bytes();
            fits
        }
        3 => {
            let shape = bytes.shape();
            // Large shapes that are right take memory that was asked for.
            if shape.kv_heads.saturating_mul(shape.head_dim) > 1 << 14 && shape.head_dim < 1 << 20 {
                return false;
            }
            let Ok(mut cache) = KvBuffers::new(&shape) else { return false };
            let positions = bytes.size();
            if !(1 << 12..=1 << 40).contains(&positions) {
                let _ = cache.reserve(&shape, positions);
            }
            let other = if bytes.byte().is_multiple_of(4) { bytes.shape() } else { shape };
            let (qkv, periods, parts) =
                (bytes.array(), bytes.vector(), [bytes.vector(), bytes.vector(), bytes.vector()]);
            let [q_norm, k_norm, sinks] = &parts;
            let norms = bytes.byte().is_multiple_of(4).then_some((q_norm, k_norm, 1e-5));
            let sinks = bytes.byte().is_multiple_of(4).then_some(sinks);
            let weights = HeadWeights { periods: &periods, norms, sinks, growth: None };
            evaluate(attention(&qkv, &mut cache, &weights, &other, bytes.size()))
        }
        4 => {
            let (x, norm) = (bytes.array(), bytes.vector());
            let rows: Vec<usize> = (0..bytes.small().min(4)).map(|_| bytes.size()).collect();
            let Some(matrix) = bytes.matrix() else { return false };
            evaluate(head(&x, &rows, &norm, 1e-5, &matrix))
        }
        _ => {
            let shape = AttentionShape::new(2, 1, 16, 0.25);
            let float = |rows: usize, columns: usize| {
                PackedMatrix::pack(Format::F32, rows, columns, &vec![0; rows * columns * 4], None)
            };
            let width = [32, 16, 48][usize::from(bytes.byte() % 3)];
            let matrices = (float(64, width), float(width, 32), float(64, width), float(width, 32));
            let (Ok(qkv), Ok(output), Ok(gate_up), Ok(down)) = matrices else { return false };
            let caches: Result<Vec<_>, _> = (0..4).map(|_| KvBuffers::new(&shape)).collect();
            let Ok(mut caches) = caches else { return false };
            let (x, attention_norm, mlp_norm, periods) =
                (bytes.array(), bytes.vector(), bytes.vector(), bytes.vector());
            let weights = LayerWeights {
                attention_norm: &attention_norm,
                qkv: &qkv,
                heads: HeadWeights { periods: &periods, norms: None, sinks: None, growth: None },
                output: &output,
                mlp_norm: &mlp_norm,
                gate_up: &gate_up,
                down: &down,
                eps: 1e-5,
            };
            let count = bytes.small().min(4);
            let sessions = caches.iter_mut().take(count);
            let mut sessions: Vec<_> =
                sessions.map(|cache| SessionRows { cache, offset: bytes.size(), tokens: bytes.size() }).collect();
            let shape = if bytes.byte().is_multiple_of(4) { bytes.shape() } else { shape };
            evaluate(layer(&x, &weights, &shape, &mut sessions))
        }
    }
}

/// One for each function, of shapes that fit.
pub fn seeds() -> Vec<Vec<u8>> {
    vec![
        vec![0, 2, 32, 7, 32],
        vec![1, 2, 64, 7],
        vec![1, 2, 64, 7, 1],
        vec![2, 0, 16, 64, 32, 1, 1, 2, 64, 7],
        vec![2, 2, 16, 64, 64, 0, 2, 2, 16, 7, 2, 64, 7],
        vec![2, 0, 16, 64, 32, 9, 1, 2, 64, 7],
        vec![2, 1, 16, 64, 32, 25, 1, 2, 64, 7],
        vec![3, 2, 1, 16, 7, 20, 1, 3, 64, 7, 8, 16, 16, 2, 1, 1, 5],
        vec![3, 2, 1, 16, 7, 20, 1, 3, 64, 7, 8, 16, 16, 2, 0, 0, 5],
        vec![3, 2, 1, 16, 2, 20, 1, 3, 64, 7, 8, 16, 16, 2, 0, 0, 5],
        vec![3, 2, 1, 16, 3, 20, 1, 3, 48, 7, 8, 16, 16, 2, 0, 0, 5],
        vec![3, 2, 1, 16, 4, 20, 1, 3, 32, 7, 8, 16, 16, 2, 1, 1, 5],
        vec![4, 2, 32, 7, 32, 1, 1, 2, 16, 32, 32, 1],
        vec![5, 0, 2, 32, 7, 32, 32, 8, 1, 3, 2, 1],
    ]
}

/// Some of shapes that overflow.
pub fn misfits() -> Vec<Vec<u8>> {
    vec![vec![5, 0, 2, 32, 7, 32, 32, 8, 1, 250, 2, 1], vec![3, 250, 251, 252, 20]]
}
