//! An array that is filled in place: what is loaded has no second copy on its way.

use mlx_rs::{Array, Dtype};

use crate::error::{KernelError, from_mlx};

/// An array that nobody else has yet.
#[derive(Debug)]
pub(crate) struct Room {
    array: Array,
    data: *mut u8,
}

impl Room {
    /// Zeros of 16 or 32 bits.
    pub(crate) fn new(shape: &[i32], dtype: Dtype) -> Result<Self, KernelError> {
        let array = match dtype {
            Dtype::Uint16 => Array::zeros::<u16>(shape),
            _ => Array::zeros::<u32>(shape),
        };
        let array = array.map_err(from_mlx)?;
        array.eval().map_err(from_mlx)?;
        // SAFETY: the array has been evaluated, so it has its data.
        let data = unsafe {
            match dtype {
                Dtype::Uint16 => mlx_sys::mlx_array_data_uint16(array.as_ptr()).cast::<u8>(),
                _ => mlx_sys::mlx_array_data_uint32(array.as_ptr()).cast::<u8>(),
            }
        };
        Ok(Self { array, data: data.cast_mut() })
    }

    /// All of it.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: an evaluated array of zeros is contiguous, holds so many bytes, and nobody else has it.
        unsafe { std::slice::from_raw_parts_mut(self.data, self.array.nbytes()) }
    }

    /// The array, not to be written any more.
    pub(crate) fn filled(self) -> Array {
        self.array
    }
}
