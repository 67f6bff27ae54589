//! An array that is filled in place, so that loading makes no second copy.

use mlx_rs::{Array, Dtype};

use crate::error::{KernelError, from_mlx};

/// An array without any other owner.
#[derive(Debug)]
pub(crate) struct Room {
    array: Array,
    data: *mut u8,
}

impl Room {
    /// Zeros of a 16- or 32-bit type.
    pub(crate) fn new(shape: &[i32], dtype: Dtype) -> Result<Self, KernelError> {
        let array = match dtype {
            Dtype::Uint16 => Array::zeros::<u16>(shape),
            _ => Array::zeros::<u32>(shape),
        };
        let array = array.map_err(from_mlx)?;
        array.eval().map_err(from_mlx)?;
        // SAFETY: the array was evaluated, so its data is allocated.
        let data = unsafe {
            match dtype {
                Dtype::Uint16 => mlx_sys::mlx_array_data_uint16(array.as_ptr()).cast::<u8>(),
                _ => mlx_sys::mlx_array_data_uint32(array.as_ptr()).cast::<u8>(),
            }
        };
        Ok(Self { array, data: data.cast_mut() })
    }

    /// All its bytes.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: an evaluated array of zeros is contiguous, has this many bytes, and has no other owner.
        unsafe { std::slice::from_raw_parts_mut(self.data, self.array.nbytes()) }
    }

    /// The filled array; it is not written again.
    pub(crate) fn filled(self) -> Array {
        self.array
    }
}
