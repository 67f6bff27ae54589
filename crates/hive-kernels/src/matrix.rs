//! Weight matrices in the layout of the kernels: rows interleaved by 16.

use mlx_rs::{Array, Dtype};
use mlx_sys::mlx_array;

use crate::{KernelError, LANES, build, ffi, require};

/// How a matrix stores its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// 4-bit affine: eight weights a word, low bits first.
    Q4,
    /// 8-bit affine: four weights a word, low bits first.
    Q8,
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// The upper half of an IEEE single.
    Bf16,
}

impl Format {
    /// Weights per stored element.
    fn per_element(self) -> usize {
        match self {
            Self::Q4 => 8,
            Self::Q8 => 4,
            Self::F32 | Self::F16 | Self::Bf16 => 1,
        }
    }

    fn element_bytes(self) -> usize {
        if matches!(self, Self::F16 | Self::Bf16) { 2 } else { 4 }
    }

    fn quantized(self) -> bool {
        matches!(self, Self::Q4 | Self::Q8)
    }
}

/// Why a matrix cannot be packed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PackError {
    /// The byte counts do not match the shape.
    #[error("a {rows} × {columns} matrix does not have {bytes} bytes of weights")]
    Size {
        /// Output rows.
        rows: usize,
        /// Input columns.
        columns: usize,
        /// Bytes given.
        bytes: usize,
    },
    /// Columns or group are no multiple of what the kernels take at a time.
    #[error("{columns} columns in groups of {group} do not suit the kernels")]
    Columns {
        /// Input columns.
        columns: usize,
        /// Columns per scale.
        group: usize,
    },
}

/// A weight matrix `[rows, columns]` that multiplies rows of float32: `y = x · Wᵀ`.
#[derive(Debug)]
pub struct PackedMatrix {
    format: Format,
    rows: usize,
    columns: usize,
    group: usize,
    weights: Array,
    scales_biases: Option<(Array, Array)>,
}

/// Scales and biases of a quantized matrix, `[rows, columns / group]` each.
#[derive(Debug, Clone, Copy)]
pub struct Affine<'a> {
    /// Columns per scale: a multiple of 16.
    pub group: usize,
    /// One per group.
    pub scales: &'a [f32],
    /// One per group.
    pub biases: &'a [f32],
}

impl PackedMatrix {
    /// Packs a row-major matrix. `weights` are the stored elements' little-endian bytes.
    ///
    /// # Errors
    /// Sizes that do not fit together; rows that are no multiple of 16 are padded.
    pub fn pack(
        format: Format,
        rows: usize,
        columns: usize,
        weights: &[u8],
        affine: Option<Affine<'_>>,
    ) -> Result<Self, PackError> {
        let group = affine.map_or(columns, |affine| affine.group);
        let fits = group > 0
            && columns > 0
            && columns <= i32::MAX as usize
            && columns.is_multiple_of(group)
            && affine.is_some() == format.quantized();
        if !fits || (format.quantized() && !group.is_multiple_of(LANES)) {
            return Err(PackError::Columns { columns, group });
        }
        let elements = columns / format.per_element();
        let bytes = format.element_bytes();
        let groups = columns / group;
        let sizes_match = columns.is_multiple_of(format.per_element())
            && rows.checked_mul(elements * bytes) == Some(weights.len())
            && rows > 0
            && rows <= i32::MAX as usize - LANES
            && affine.is_none_or(|a| a.scales.len() == rows * groups && a.biases.len() == rows * groups);
        if !sizes_match {
            return Err(PackError::Size { rows, columns, bytes: weights.len() });
        }
        let padded = rows.next_multiple_of(LANES);
        let shape = [(padded / LANES) as i32, elements as i32, LANES as i32];
        let dtype = if bytes == 4 { Dtype::Uint32 } else { Dtype::Uint16 };
        let interleaved = interleave(weights, rows, elements, bytes);
        let mismatch = || PackError::Size { rows, columns, bytes: weights.len() };
        let weights = crate::array_from_bytes(&interleaved, &shape, dtype).map_err(|_| mismatch())?;
        let scales_biases = affine.map(|affine| {
            let shape = [(padded / LANES) as i32, groups as i32, LANES as i32];
            let pack = |values: &[f32]| Array::from_slice(&interleave_floats(values, rows, groups), &shape);
            (pack(affine.scales), pack(affine.biases))
        });
        Ok(Self { format, rows, columns, group, weights, scales_biases })
    }

    /// Output rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.weights.nbytes() + self.scales_biases.as_ref().map_or(0, |(s, b)| s.nbytes() + b.nbytes())
    }

    /// `x [n, columns] -> [n, rows]`, plus `residual [n, rows]` where given; all contiguous float32.
    pub fn matmul(&self, x: &Array, residual: Option<&Array>) -> Result<Array, KernelError> {
        require(x.ndim() == 2 && x.dim(1) as usize == self.columns, "matmul: width of x")?;
        let padded = self.rows.next_multiple_of(LANES);
        require(residual.is_none_or(|r| r.shape() == [x.dim(0), padded as i32]), "matmul: shape of the residual")?;
        let none = mlx_array { ctx: std::ptr::null_mut() };
        let matrix = ffi::MatrixHandles { rows: padded as i32, ..self.handles() };
        let residual = residual.map_or(none, Array::as_ptr);
        // SAFETY: valid handles or null; the packed arrays have the sizes their constructor gave them.
        let y = build(|out, stream| unsafe { ffi::hive_matmul(out, x.as_ptr(), &raw const matrix, residual, stream) })?;
        if padded == self.rows {
            return Ok(y);
        }
        use mlx_rs::ops::indexing::IndexOp;
        Ok(y.index((.., ..self.rows as i32)))
    }

    /// As the C++ takes it.
    pub(crate) fn handles(&self) -> ffi::MatrixHandles {
        let none = mlx_array { ctx: std::ptr::null_mut() };
        let (scales, biases) = self.scales_biases.as_ref().map_or((none, none), |(s, b)| (s.as_ptr(), b.as_ptr()));
        ffi::MatrixHandles {
            weights: self.weights.as_ptr(),
            scales,
            biases,
            format: self.format as i32,
            rows: self.rows as i32,
            columns: self.columns as i32,
            group: self.group as i32,
        }
    }

    /// Whether it takes rows of this many columns to rows of that many, without padding.
    pub(crate) fn maps(&self, columns: usize, rows: usize) -> bool {
        self.columns == columns && self.rows == rows && rows.is_multiple_of(LANES)
    }

    /// The stored words of one row as bytes, and its scales and biases: what [`Self::pack`] was given.
    pub fn row(&self, row: usize) -> Option<(Vec<u8>, Vec<f32>, Vec<f32>)> {
        if row >= self.rows || self.format.element_bytes() != 4 {
            return None;
        }
        let (block, lane) = (row / LANES, row % LANES);
        let pick = |values: &[f32], width: usize| -> Vec<f32> {
            (0..width).map(|i| values[(block * width + i) * LANES + lane]).collect()
        };
        let elements = self.columns / self.format.per_element();
        let words: &[u32] = self.weights.try_as_slice().ok()?;
        let bytes = (0..elements).flat_map(|i| words[(block * elements + i) * LANES + lane].to_le_bytes()).collect();
        let groups = self.columns / self.group;
        let (scales, biases) = self.scales_biases.as_ref()?;
        Some((bytes, pick(scales.try_as_slice().ok()?, groups), pick(biases.try_as_slice().ok()?, groups)))
    }
}

/// `[rows][width] -> [rows / 16][width][16]` elements of `size` bytes, padded with zeros.
fn interleave(data: &[u8], rows: usize, width: usize, size: usize) -> Vec<u8> {
    let mut out = vec![0; rows.next_multiple_of(LANES) * width * size];
    for (row, source) in data.chunks_exact(width * size).enumerate() {
        let base = (row / LANES) * width * LANES + row % LANES;
        for (i, element) in source.chunks_exact(size).enumerate() {
            let at = (base + i * LANES) * size;
            out[at..at + size].copy_from_slice(element);
        }
    }
    out
}

fn interleave_floats(data: &[f32], rows: usize, width: usize) -> Vec<f32> {
    let mut out = vec![0.0; rows.next_multiple_of(LANES) * width];
    for (row, source) in data.chunks_exact(width).enumerate() {
        let base = (row / LANES) * width * LANES + row % LANES;
        for (i, &value) in source.iter().enumerate() {
            out[base + i * LANES] = value;
        }
    }
    out
}
