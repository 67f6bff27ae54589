//! Numbers of a few bits, as files of weights are read into them, beside MLX's own reading of them.

#![allow(clippy::unwrap_used)]

use hive_weights::weights::packing::{pack, unpack, widen};
use mlx_rs::{Array, Dtype};

#[test]
fn numbers_of_every_width_lie_where_mlx_has_them() {
    for bits in [2, 3, 4, 5, 6, 8] {
        let numbers: Vec<u8> = (0..64u32).map(|n| (n * 37 % (1 << bits)) as u8).collect();
        let mut packed = Vec::new();
        pack(&numbers, bits, &mut packed);
        assert_eq!((packed.len(), unpack(&packed, bits)), (8 * bits, numbers.clone()), "{bits} bits");
        let words = hive_kernels::array_from_bytes(&packed, &[1, 2 * bits as i32], Dtype::Uint32).unwrap();
        let (one, none) = (Array::ones::<f32>(&[1, 2]).unwrap(), Array::zeros::<f32>(&[1, 2]).unwrap());
        let values = mlx_rs::ops::dequantize(&words, &one, &none, 32, bits as i32).unwrap();
        values.eval().unwrap();
        let expected: Vec<f32> = numbers.iter().map(|n| f32::from(*n)).collect();
        assert_eq!(values.as_slice::<f32>(), expected, "{bits} bits");
        for to in [4, 8] {
            if to >= bits {
                assert_eq!(unpack(&widen(packed.clone(), bits, to), to), numbers, "{bits} to {to} bits");
            }
        }
    }
}
