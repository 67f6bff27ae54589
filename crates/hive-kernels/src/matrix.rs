//! Weight matrices in the kernels' layout: rows interleaved by 16.
//!
//! A packed matrix is as large as its file: weights stay quantized, scales and biases stay in 16 bits if stored so, and
//! biases that are a multiple of the scales take no memory. It is filled a few rows at a time, so memory never holds a
//! second copy.

use mlx_rs::{Array, Dtype};
use mlx_sys::mlx_array;

use crate::{KernelError, LANES, Room, build, ffi, require};

/// How a matrix stores its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// 4-bit affine: eight weights per word, low bits first.
    Q4,
    /// 8-bit affine: four weights per word, low bits first.
    Q8,
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16: the upper half of an IEEE single.
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

/// How a quantized matrix stores its scales and biases.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scaling {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16: the upper half of an IEEE single.
    Bf16,
    /// Scales in half precision; each bias is its scale times this factor, a power of two, so the product is exact.
    F16Multiple(f32),
    /// Scales in single precision; biases as in [`Self::F16Multiple`].
    F32Multiple(f32),
}

impl Scaling {
    /// Bytes of a scale and of a bias.
    fn bytes(self) -> [usize; 2] {
        match self {
            Self::F32 => [4, 4],
            Self::F16 | Self::Bf16 => [2, 2],
            Self::F16Multiple(_) => [2, 0],
            Self::F32Multiple(_) => [4, 0],
        }
    }

    /// The C++ code, and the factor.
    fn code(self) -> (i32, f32) {
        match self {
            Self::F32 => (0, 0.0),
            Self::F16 => (1, 0.0),
            Self::Bf16 => (2, 0.0),
            Self::F16Multiple(multiple) => (3, multiple),
            Self::F32Multiple(multiple) => (4, multiple),
        }
    }

    fn is_exact(self) -> bool {
        match self {
            Self::F16Multiple(multiple) | Self::F32Multiple(multiple) => {
                multiple.is_normal() && multiple.to_bits().trailing_zeros() >= 23
            }
            _ => true,
        }
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
    /// The kernels do not support this number of columns, or this group.
    #[error("{columns} columns in groups of {group} do not suit the kernels")]
    Columns {
        /// Input columns.
        columns: usize,
        /// Columns per scale.
        group: usize,
    },
    /// The allocation failed.
    #[error("there is no memory for a {rows} × {columns} matrix")]
    Memory {
        /// Output rows.
        rows: usize,
        /// Input columns.
        columns: usize,
    },
}

/// The layout of a matrix.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layout {
    format: Format,
    rows: usize,
    columns: usize,
    group: usize,
    scaling: Option<Scaling>,
}

impl Layout {
    /// A matrix `[rows, columns]`. Quantized formats have a scale per `group` columns, a multiple of 16; others have
    /// none.
    ///
    /// # Errors
    /// The kernels do not support the columns, or a size overflows.
    pub fn new(
        format: Format,
        rows: usize,
        columns: usize,
        scales: Option<(usize, Scaling)>,
    ) -> Result<Self, PackError> {
        let group = scales.map_or(columns, |(group, _)| group);
        let fits = group > 0
            && columns > 0
            && columns <= i32::MAX as usize
            && columns.is_multiple_of(group)
            && scales.is_some() == format.quantized()
            && scales.is_none_or(|(group, scaling)| group.is_multiple_of(LANES) && scaling.is_exact());
        if !fits {
            return Err(PackError::Columns { columns, group });
        }
        let layout = Self { format, rows, columns, group, scaling: scales.map(|(_, scaling)| scaling) };
        let counts = columns.is_multiple_of(format.per_element())
            && rows > 0
            && rows <= i32::MAX as usize - LANES
            && layout
                .padded_rows()
                .checked_mul(layout.weights_width())
                .is_some_and(|bytes| bytes <= isize::MAX as usize);
        if counts { Ok(layout) } else { Err(PackError::Size { rows, columns, bytes: 0 }) }
    }

    /// Bytes of a matrix in this layout.
    pub fn bytes(&self) -> usize {
        let [scale, bias] = self.scaling.map_or([0, 0], Scaling::bytes);
        self.padded_rows() * (self.weights_width() + self.groups() * (scale + bias))
    }

    fn padded_rows(&self) -> usize {
        self.rows.next_multiple_of(LANES)
    }

    /// Stored elements per row.
    fn elements(&self) -> usize {
        self.columns / self.format.per_element()
    }

    /// Bytes of weights per row.
    fn weights_width(&self) -> usize {
        self.elements() * self.format.element_bytes()
    }

    fn groups(&self) -> usize {
        self.columns / self.group
    }
}

/// Scales and biases of a quantized matrix, `[rows, columns / group]` each, as little-endian bytes.
#[derive(Debug, Clone, Copy)]
pub struct Affine<'a> {
    /// Columns per scale: a multiple of 16.
    pub group: usize,
    /// The format of both.
    pub scaling: Scaling,
    /// One per group.
    pub scales: &'a [u8],
    /// One per group; empty if they are multiples of the scales.
    pub biases: &'a [u8],
}

/// A matrix being filled, from its first row to its last.
#[derive(Debug)]
pub struct Packing {
    layout: Layout,
    rows: usize,
    weights: Room,
    scales: Option<Room>,
    biases: Option<Room>,
}

impl Packing {
    /// Allocates a matrix.
    ///
    /// # Errors
    /// The allocation failed.
    pub fn new(layout: Layout) -> Result<Self, PackError> {
        let Layout { rows, columns, scaling, .. } = layout;
        let room = |width: usize, bytes: usize| {
            let shape = [(layout.padded_rows() / LANES) as i32, width as i32, LANES as i32];
            Room::new(&shape, if bytes == 4 { Dtype::Uint32 } else { Dtype::Uint16 })
                .map_err(|_| PackError::Memory { rows, columns })
        };
        let [scale, bias] = scaling.map_or([0, 0], Scaling::bytes);
        let groups = |bytes: usize| (bytes > 0).then(|| room(layout.groups(), bytes)).transpose();
        Ok(Self {
            layout,
            rows: 0,
            weights: room(layout.elements(), layout.format.element_bytes())?,
            scales: groups(scale)?,
            biases: groups(bias)?,
        })
    }

    /// Appends rows: the stored elements' little-endian bytes, row by row, with their scales and biases.
    ///
    /// # Errors
    /// The bytes are not a whole number of rows, or more rows than remain.
    pub fn push(&mut self, weights: &[u8], scales: &[u8], biases: &[u8]) -> Result<(), PackError> {
        let Layout { rows, columns, format, scaling, .. } = self.layout;
        let count = weights.len() / self.layout.weights_width();
        let [scale, bias] = scaling.map_or([0, 0], Scaling::bytes);
        let groups = count * self.layout.groups();
        let fits = count > 0
            && weights.len() == count * self.layout.weights_width()
            && scales.len() == groups * scale
            && biases.len() == groups * bias
            && count <= rows - self.rows;
        if !fits {
            return Err(PackError::Size { rows, columns, bytes: weights.len() });
        }
        let (first, elements, groups) = (self.rows, self.layout.elements(), self.layout.groups());
        interleave(weights, self.weights.bytes_mut(), first, elements, format.element_bytes());
        for (room, bytes, size) in [(&mut self.scales, scales, scale), (&mut self.biases, biases, bias)] {
            if let Some(room) = room {
                interleave(bytes, room.bytes_mut(), first, groups, size);
            }
        }
        self.rows += count;
        Ok(())
    }

    /// The matrix, once all its rows are filled.
    ///
    /// # Errors
    /// Rows are missing.
    pub fn finish(self) -> Result<PackedMatrix, PackError> {
        let Self { layout, rows, weights, scales, biases } = self;
        if rows != layout.rows {
            let bytes = rows * layout.weights_width();
            return Err(PackError::Size { rows: layout.rows, columns: layout.columns, bytes });
        }
        let [scales, biases] = [scales, biases].map(|room| room.map(Room::filled));
        Ok(PackedMatrix { layout, weights: weights.filled(), scales, biases })
    }
}

/// A weight matrix `[rows, columns]` that multiplies rows of float32: `y = x · Wᵀ`.
#[derive(Debug)]
pub struct PackedMatrix {
    layout: Layout,
    weights: Array,
    scales: Option<Array>,
    biases: Option<Array>,
}

impl PackedMatrix {
    /// Packs a row-major matrix. `weights` are the stored elements' little-endian bytes. Pads rows to a multiple of 16.
    ///
    /// # Errors
    /// The sizes do not match.
    pub fn pack(
        format: Format,
        rows: usize,
        columns: usize,
        weights: &[u8],
        affine: Option<Affine<'_>>,
    ) -> Result<Self, PackError> {
        let layout = Layout::new(format, rows, columns, affine.map(|affine| (affine.group, affine.scaling)))?;
        let (scales, biases) = affine.map_or((&[][..], &[][..]), |affine| (affine.scales, affine.biases));
        // Checked before allocating.
        if rows.checked_mul(layout.weights_width()) != Some(weights.len()) {
            return Err(PackError::Size { rows, columns, bytes: weights.len() });
        }
        let mut packing = Packing::new(layout)?;
        packing.push(weights, scales, biases)?;
        packing.finish()
    }

    /// Output rows.
    pub fn rows(&self) -> usize {
        self.layout.rows
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let rest = self.scales.iter().chain(&self.biases).map(Array::nbytes);
        self.weights.nbytes() + rest.sum::<usize>()
    }

    /// `x [n, columns] -> [n, rows]`, plus `residual [n, rows]` if given; all contiguous float32.
    pub fn matmul(&self, x: &Array, residual: Option<&Array>) -> Result<Array, KernelError> {
        require(x.ndim() == 2 && x.dim(1) as usize == self.layout.columns, "matmul: width of x")?;
        let padded = self.layout.padded_rows();
        require(residual.is_none_or(|r| r.shape() == [x.dim(0), padded as i32]), "matmul: shape of the residual")?;
        let none = mlx_array { ctx: std::ptr::null_mut() };
        let matrix = ffi::MatrixHandles { rows: padded as i32, ..self.handles() };
        let residual = residual.map_or(none, Array::as_ptr);
        // SAFETY: valid handles or null; the packed arrays have the sizes that their constructor checked.
        let y = build(|out, stream| unsafe { ffi::hive_matmul(out, x.as_ptr(), &raw const matrix, residual, stream) })?;
        if padded == self.rows() {
            return Ok(y);
        }
        use mlx_rs::ops::indexing::IndexOp;
        Ok(y.index((.., ..self.rows() as i32)))
    }

    /// Handles for the C++.
    pub(crate) fn handles(&self) -> ffi::MatrixHandles {
        let none = mlx_array { ctx: std::ptr::null_mut() };
        let Layout { format, rows, columns, group, scaling } = self.layout;
        let (scaling, multiple) = scaling.map_or((0, 0.0), Scaling::code);
        ffi::MatrixHandles {
            weights: self.weights.as_ptr(),
            scales: self.scales.as_ref().map_or(none, Array::as_ptr),
            biases: self.biases.as_ref().map_or(none, Array::as_ptr),
            format: format as i32,
            scaling,
            rows: rows as i32,
            columns: columns as i32,
            group: group as i32,
            multiple,
        }
    }

    /// Whether it maps this many columns to this many rows, without padding.
    pub(crate) fn maps(&self, columns: usize, rows: usize) -> bool {
        self.layout.columns == columns && self.rows() == rows && rows.is_multiple_of(LANES)
    }
}

/// Interleaves rows `[first, …)` of `width` elements of `size` bytes each into `[rows / 16][width][16]`.
fn interleave(rows: &[u8], into: &mut [u8], first: usize, width: usize, size: usize) {
    match size {
        2 => interleave_sized::<2>(rows, into, first, width),
        _ => interleave_sized::<4>(rows, into, first, width),
    }
}

fn interleave_sized<const SIZE: usize>(rows: &[u8], into: &mut [u8], first: usize, width: usize) {
    // Whole elements, so that each is one load and one store however little is optimized.
    let (into, _) = into.as_chunks_mut::<SIZE>();
    for (row, elements) in rows.chunks_exact(width * SIZE).enumerate() {
        let (block, lane) = ((first + row) / LANES * width * LANES, (first + row) % LANES);
        let (elements, _) = elements.as_chunks::<SIZE>();
        for (lanes, element) in into[block..].chunks_exact_mut(LANES).zip(elements) {
            lanes[lane] = *element;
        }
    }
}
