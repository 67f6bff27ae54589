//! Tests the kernels against MLX's own, and for the same bits in any batch, on any instruction set and thread count.

use std::sync::{Mutex, MutexGuard};

use hive_kernels::{
    Activation, Affine, AttentionShape, Format, HeadWeights, KvBuffers, KvSource, LayerWeights, Layout, PackedMatrix,
    Packing, Scaling, SessionRows,
};
use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, Device, Dtype};

/// Instruction set and thread count are process-wide.
static SETTINGS: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    Device::set_default(&Device::cpu());
    SETTINGS.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A small generator, so that failures are reproducible.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    fn float(&mut self) -> f32 {
        (self.next() % 2000) as f32 / 1000.0 - 1.0
    }

    fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }
}

struct Sample {
    packed: PackedMatrix,
    words: Array,
    scales: Array,
    biases: Array,
    bits: i32,
    group: i32,
}

fn sample(rows: usize, columns: usize, group: usize, bits: usize) -> Sample {
    let mut numbers = Numbers((rows * columns * bits + group) as u64);
    let words: Vec<u32> = (0..rows * columns * bits / 32).map(|_| numbers.next() ^ (numbers.next() << 16)).collect();
    let scales: Vec<f32> = numbers.floats(rows * columns / group).iter().map(|s| s / 8.0).collect();
    let biases = numbers.floats(rows * columns / group);
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let format = if bits == 4 { Format::Q4 } else { Format::Q8 };
    let (scale_bytes, bias_bytes) = (little_endian(&scales), little_endian(&biases));
    let affine = Affine { group, scaling: Scaling::F32, scales: &scale_bytes, biases: &bias_bytes };
    let shape = |width: usize| [rows as i32, width as i32];
    Sample {
        packed: PackedMatrix::pack(format, rows, columns, &bytes, Some(affine)).unwrap(),
        words: Array::from_slice(&words, &shape(columns * bits / 32)),
        scales: Array::from_slice(&scales, &shape(columns / group)),
        biases: Array::from_slice(&biases, &shape(columns / group)),
        bits: bits as i32,
        group: group as i32,
    }
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn values(array: &Array) -> Vec<f32> {
    array.eval().unwrap();
    array.as_slice::<f32>().to_vec()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let scale = b.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / scale
}

#[test]
fn products_agree_with_mlx_for_every_width_group_and_batch() {
    let _alone = alone();
    for bits in [4, 8] {
        for group in [32, 64] {
            for (rows, columns) in [(64, 128), (48, 576), (16, 64)] {
                let s = sample(rows, columns, group, bits);
                for tokens in [1, 2, 3, 5, 8, 9, 12, 31] {
                    let x = Array::from_slice(&Numbers(7).floats(tokens * columns), &[tokens as i32, columns as i32]);
                    let expected =
                        mlx_rs::ops::quantized_matmul(&x, &s.words, &s.scales, &s.biases, true, s.group, s.bits)
                            .unwrap();
                    let got = s.packed.matmul(&x, None).unwrap();
                    let off = largest_difference(&values(&got), &values(&expected));
                    assert!(off < 5e-6, "{bits} bits, group {group}, {rows}x{columns}, {tokens} tokens: off by {off}");
                }
            }
        }
    }
}

#[test]
fn float_weights_agree_with_mlx() {
    let _alone = alone();
    let (rows, columns) = (32, 96);
    let weights = Numbers(3).floats(rows * columns);
    for (format, dtype) in
        [(Format::F32, Dtype::Float32), (Format::F16, Dtype::Float16), (Format::Bf16, Dtype::Bfloat16)]
    {
        let bytes: Vec<u8> = weights
            .iter()
            .flat_map(|&w| match format {
                Format::F16 => half::f16::from_f32(w).to_le_bytes().to_vec(),
                Format::Bf16 => half::bf16::from_f32(w).to_le_bytes().to_vec(),
                _ => w.to_le_bytes().to_vec(),
            })
            .collect();
        let packed = PackedMatrix::pack(format, rows, columns, &bytes, None).unwrap();
        let plain = hive_kernels::array_from_bytes(&bytes, &[rows as i32, columns as i32], dtype).unwrap();
        let plain = plain.as_dtype(Dtype::Float32).unwrap();
        for tokens in [1, 20] {
            let x = Array::from_slice(&Numbers(7).floats(tokens * columns), &[tokens as i32, columns as i32]);
            let expected = mlx_rs::ops::matmul(&x, plain.t()).unwrap();
            let off = largest_difference(&values(&packed.matmul(&x, None).unwrap()), &values(&expected));
            assert!(off < 5e-6, "{format:?}, {tokens} tokens: off by {off}");
        }
    }
}

#[test]
fn a_token_has_the_same_bits_alone_and_in_any_batch() {
    let _alone = alone();
    let s = sample(80, 576, 32, 4);
    let tokens = 29;
    let x = Array::from_slice(&Numbers(5).floats(tokens * 576), &[tokens as i32, 576]);
    let together = values(&s.packed.matmul(&x, None).unwrap());
    for t in 0..tokens {
        let row = x.index((t as i32..t as i32 + 1, ..));
        row.eval().unwrap();
        assert_eq!(values(&s.packed.matmul(&row, None).unwrap()), together[t * 80..(t + 1) * 80], "token {t}");
    }
}

#[test]
fn threads_and_instruction_sets_give_the_same_bits() {
    let _alone = alone();
    let s = sample(240, 256, 64, 4);
    let best = hive_kernels::instruction_set();
    for tokens in [1, 17] {
        let x = Array::from_slice(&Numbers(5).floats(tokens * 256), &[tokens as i32, 256]);
        let expected = values(&s.packed.matmul(&x, None).unwrap());
        for threads in [2, 3, 1] {
            hive_kernels::set_threads(threads);
            assert_eq!(values(&s.packed.matmul(&x, None).unwrap()), expected, "{threads} threads");
        }
        // The x86 baseline is excluded: without fused multiply-add it rounds twice.
        if hive_kernels::force_instruction_set("avx2").is_ok() {
            assert_eq!(values(&s.packed.matmul(&x, None).unwrap()), expected, "avx2 against {best}");
            hive_kernels::force_instruction_set(&best).unwrap();
        }
    }
}

#[test]
fn attention_agrees_with_mlx_and_does_not_depend_on_chunks() {
    let _alone = alone();
    let (heads, kv_heads, head_dim, tokens) = (6, 2, 64, 300);
    let scale = 1.0 / (head_dim as f32).sqrt();
    let shape = AttentionShape::new(heads, kv_heads, head_dim, scale);
    let base = 10_000.0f32;
    let periods: Vec<f32> = (0..head_dim / 2).map(|i| base.powf(2.0 * i as f32 / head_dim as f32)).collect();
    let periods = Array::from_slice(&periods, &[head_dim as i32 / 2]);
    let weights = HeadWeights { periods: &periods, norms: None, sinks: None, growth: None };
    let width = (heads + 2 * kv_heads) * head_dim;
    let qkv = Array::from_slice(&Numbers(11).floats(tokens * width), &[tokens as i32, width as i32]);

    let run = |chunks: &[usize]| {
        let mut cache = KvBuffers::new(&shape).unwrap();
        let mut offset = 0;
        let mut out = Vec::new();
        for &chunk in chunks {
            cache.reserve(&shape, offset + chunk).unwrap();
            let part = qkv.index((offset as i32..(offset + chunk) as i32, ..));
            out.extend(values(&hive_kernels::attention(&part, &mut cache, &weights, &shape, offset).unwrap()));
            offset += chunk;
        }
        out
    };
    let whole = run(&[tokens]);
    assert_eq!(run(&[1, 2, 13, 100, 184]), whole);

    let split = |from: usize, count: usize| {
        let part = qkv.index((.., (from * head_dim) as i32..((from + count) * head_dim) as i32));
        let part = part.reshape(&[1, tokens as i32, count as i32, head_dim as i32]).unwrap();
        part.transpose_axes(&[0, 2, 1, 3]).unwrap()
    };
    let rope = |x: Array| mlx_rs::fast::rope(x, head_dim as i32, false, base, 1.0, 0, None).unwrap();
    let expected = mlx_rs::fast::scaled_dot_product_attention(
        rope(split(0, heads)),
        rope(split(heads, kv_heads)),
        split(heads + kv_heads, kv_heads),
        scale,
        Some(mlx_rs::fast::ScaledDotProductAttentionMask::Causal),
        None,
    )
    .unwrap()
    .transpose_axes(&[0, 2, 1, 3])
    .unwrap()
    .reshape(&[tokens as i32, (heads * head_dim) as i32])
    .unwrap();
    let off = largest_difference(&whole, &values(&expected));
    assert!(off < 2e-5, "off by {off}");
}

#[test]
fn keys_and_values_come_from_where_the_layer_says() {
    let _alone = alone();
    let (heads, kv_heads, head_dim, tokens) = (4, 2, 32, 21);
    let of = |source| AttentionShape { source, window: Some(9), ..AttentionShape::new(heads, kv_heads, head_dim, 1.0) };
    // Only the first half of the pairs turns.
    let periods: Vec<f32> = (0..16).map(|i| if i < 8 { (i + 1) as f32 } else { f32::INFINITY }).collect();
    let periods = Array::from_slice(&periods, &[16]);
    let [q_norm, k_norm] = [5, 6].map(|seed| Array::from_slice(&Numbers(seed).floats(head_dim), &[head_dim as i32]));
    let weights = HeadWeights { periods: &periods, norms: Some((&q_norm, &k_norm, 1e-6)), sinks: None, growth: None };
    let [queries, keys, own] = [(7, heads), (8, kv_heads), (9, kv_heads)].map(|(seed, heads)| {
        Array::from_slice(&Numbers(seed).floats(tokens * heads * head_dim), &[tokens as i32, (heads * head_dim) as i32])
    });
    let normed = |x: &Array| {
        let heads = x.reshape(&[tokens as i32, kv_heads as i32, head_dim as i32]).unwrap();
        let ones = Array::from_slice(&[1f32; 32], &[32]);
        hive_kernels::rms_norm(&heads, &ones, 1e-6).unwrap().reshape(x.shape()).unwrap()
    };
    let run = |source, parts: &[&Array], cache: &mut KvBuffers| {
        let input = mlx_rs::ops::concatenate(parts, -1).unwrap();
        let rows = |range: std::ops::Range<i32>| input.index((range, ..)).contiguous().unwrap();
        let attend = |range: std::ops::Range<i32>, cache: &mut KvBuffers| {
            let at = range.start as usize;
            values(&hive_kernels::attention(&rows(range), cache, &weights, &of(source), at).unwrap())
        };
        [attend(0..13, cache), attend(13..tokens as i32, cache)].concat()
    };
    let fresh = || KvBuffers::new(&of(KvSource::Projected)).unwrap();
    let mut cache = fresh();
    let expected = run(KvSource::Projected, &[&queries, &keys, &normed(&own)], &mut cache);
    assert_eq!(run(KvSource::NormedValues, &[&queries, &keys, &own], &mut fresh()), expected);
    // A later layer reads what is there, and leaves it as it is.
    let [k, v] = cache.arrays().map(values);
    assert_eq!(run(KvSource::Cached, &[&queries], &mut cache), expected);
    assert_eq!(cache.arrays().map(values), [k, v]);
    let expected = run(KvSource::Projected, &[&queries, &keys, &normed(&keys)], &mut fresh());
    assert_eq!(run(KvSource::Joint, &[&queries, &keys], &mut fresh()), expected);

    let refused = |source, columns: usize, norms| {
        let input = Array::zeros::<f32>(&[1, (columns * head_dim) as i32]).unwrap();
        let weights = HeadWeights { norms, ..weights };
        hive_kernels::attention(&input, &mut fresh(), &weights, &of(source), 0).is_err()
    };
    assert!(!refused(KvSource::Cached, heads, None));
    assert!(refused(KvSource::Cached, heads + 2 * kv_heads, None), "a layer without keys is given some");
    assert!(refused(KvSource::Joint, heads + kv_heads, None), "a norm without its epsilon");
}

#[test]
fn norm_and_activation_agree_with_mlx() {
    let _alone = alone();
    let x = Array::from_slice(&Numbers(1).floats(3 * 64), &[3, 64]);
    let weight = Array::from_slice(&Numbers(2).floats(64), &[64]);
    let expected = mlx_rs::fast::rms_norm(&x, Some(&weight), 1e-5).unwrap();
    assert!(
        largest_difference(&values(&hive_kernels::rms_norm(&x, &weight, 1e-5).unwrap()), &values(&expected)) < 1e-6
    );

    let (gate, up) = (x.index((.., ..32)), x.index((.., 32..)));
    let expected = &gate * mlx_rs::ops::sigmoid(&gate).unwrap() * &up;
    assert!(largest_difference(&values(&hive_kernels::swiglu(&x).unwrap()), &values(&expected)) < 1e-6);

    let numbers = [0.0, -0.7, 0.3, 2.5, -4.0, 1.1, -0.1, 3.0].repeat(4);
    let x = Array::from_slice(&[numbers.as_slice(), &[1.5; 32]].concat(), &[1, 64]);
    let expected = numbers.iter().map(|&gate| {
        let gate = f64::from(gate);
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (gate + 0.044_715 * gate.powi(3));
        (0.5 * gate * (1.0 + inner.tanh()) * 1.5) as f32
    });
    let expected: Vec<f32> = expected.collect();
    assert!(largest_difference(&values(&hive_kernels::geglu(&x).unwrap()), &expected) < 1e-6);
    // Where the cube is beyond every range, all or nothing passes.
    let x = Array::from_slice(&[[3e4f32; 16], [1.5; 16]].concat(), &[1, 32]);
    assert_eq!(values(&hive_kernels::geglu(&x).unwrap()), [45_000.0; 16]);
    let x = Array::from_slice(&[[-3e14f32; 16], [1.5; 16]].concat(), &[1, 32]);
    assert!(values(&hive_kernels::geglu(&x).unwrap()).iter().all(|value| value.abs() < 1e-20));
}

#[test]
fn what_is_fused_is_what_stands_alone() {
    let _alone = alone();
    for count in [3, 1, 40] {
        check_fused(count);
    }
}

/// Other numbers of rows use what the first has compiled.
fn check_fused(count: i32) {
    let rows = Array::from_slice(&Numbers(5).floats(count as usize * 64), &[count, 64]);
    let (gate, up) = (rows.index((.., ..32)), rows.index((.., 32..)));
    let number = Array::from_f32;
    let silu = &gate * mlx_rs::ops::sigmoid(&gate).unwrap() * &up;
    let inner =
        (&gate + gate.power(number(3.0)).unwrap() * number(0.044_715)) * number((2.0 / std::f32::consts::PI).sqrt());
    let gelu = &gate * number(0.5) * (mlx_rs::ops::tanh(&inner).unwrap() + number(1.0)) * &up;
    let limit = 0.4;
    let below = mlx_rs::ops::minimum(&gate, number(limit)).unwrap();
    let within = mlx_rs::ops::clip(&up, (-limit, limit)).unwrap();
    let clamped = &below * mlx_rs::ops::sigmoid(&below * number(1.702)).unwrap() * (within + number(1.0));
    for (activation, expected) in
        [(Activation::Silu, silu), (Activation::Gelu, gelu), (Activation::Clamped(limit), clamped)]
    {
        let fused = values(&hive_kernels::fused_gate(&rows, activation).unwrap());
        assert!(largest_difference(&fused, &values(&expected)) < 1e-6, "{activation:?} of {count} rows");
    }
    assert!(hive_kernels::fused_gate(&rows.index((.., ..33)), Activation::Silu).is_err(), "an odd width");
}

#[test]
fn a_matrix_that_does_not_fit_its_bytes_is_refused() {
    assert!(PackedMatrix::pack(Format::F32, 4, 8, &[0; 127], None).is_err());
    assert!(PackedMatrix::pack(Format::Q4, 4, 8, &[0; 16], None).is_err());
    let affine = Affine { group: 24, scaling: Scaling::F32, scales: &[0; 16], biases: &[0; 16] };
    assert!(PackedMatrix::pack(Format::Q4, 4, 24, &[0; 48], Some(affine)).is_err());
    assert!(PackedMatrix::pack(Format::F32, usize::MAX, 8, &[0; 16], None).is_err());
    let fits = Affine { group: 32, scaling: Scaling::F16, scales: &[0; 8], biases: &[0; 8] };
    let pack = |affine| PackedMatrix::pack(Format::Q4, 4, 32, &[0; 64], Some(affine)).is_ok();
    assert!(pack(fits));
    let refused = [
        Affine { biases: &[], ..fits },
        Affine { scales: &[0; 16], ..fits },
        Affine { scaling: Scaling::F32, ..fits },
        Affine { scaling: Scaling::F16Multiple(-8.0), ..fits },
        Affine { scaling: Scaling::F16Multiple(-7.0), biases: &[], ..fits },
        Affine { scaling: Scaling::F16Multiple(f32::INFINITY), biases: &[], ..fits },
    ];
    assert!(!refused.into_iter().any(pack));
    assert!(pack(Affine { scaling: Scaling::F16Multiple(-8.0), biases: &[], ..fits }));
}

#[test]
fn scales_of_16_bits_give_the_bits_of_the_same_scales_in_32() {
    let _alone = alone();
    let best = hive_kernels::instruction_set();
    let (rows, columns, group) = (48, 128, 32);
    let groups = rows * columns / group;
    for bits in [4, 8] {
        let mut numbers = Numbers(bits as u64);
        let format = if bits == 4 { Format::Q4 } else { Format::Q8 };
        let weights: Vec<u8> = (0..rows * columns * bits / 8).map(|_| numbers.next() as u8).collect();
        // From the smallest number to large ones, of both signs, and zero.
        let halves: Vec<half::f16> = (0..groups)
            .map(|n| if n == 0 { half::f16::ZERO } else { half::f16::from_bits(numbers.next() as u16 & 0x93ff) })
            .collect();
        let brains: Vec<half::bf16> = numbers.floats(groups).into_iter().map(half::bf16::from_f32).collect();
        let middle = if bits == 4 { -8.0 } else { -128.0 };
        let single = |values: &mut dyn Iterator<Item = f32>| little_endian(&values.collect::<Vec<_>>());
        let (f16, bf16) = (
            halves.iter().flat_map(|half| half.to_le_bytes()).collect::<Vec<_>>(),
            brains.iter().flat_map(|brain| brain.to_le_bytes()).collect::<Vec<_>>(),
        );
        let f32_of_f16 = single(&mut halves.iter().map(|half| half.to_f32()));
        let f32_of_bf16 = single(&mut brains.iter().map(|brain| brain.to_f32()));
        let middles = single(&mut halves.iter().map(|half| half.to_f32() * middle));
        let pack = |scaling, scales: &[u8], biases: &[u8]| {
            let affine = Affine { group, scaling, scales, biases };
            PackedMatrix::pack(format, rows, columns, &weights, Some(affine)).unwrap()
        };
        let pairs = [
            (pack(Scaling::F16, &f16, &f16), pack(Scaling::F32, &f32_of_f16, &f32_of_f16)),
            (pack(Scaling::Bf16, &bf16, &bf16), pack(Scaling::F32, &f32_of_bf16, &f32_of_bf16)),
            (pack(Scaling::F16Multiple(middle), &f16, &[]), pack(Scaling::F32, &f32_of_f16, &middles)),
            (pack(Scaling::F32Multiple(middle), &f32_of_f16, &[]), pack(Scaling::F32, &f32_of_f16, &middles)),
        ];
        let (packed, unscaled) = (rows * columns * bits / 8, groups * 2);
        assert_eq!(pairs.each_ref().map(|(short, _)| short.bytes()), [2, 2, 1, 2].map(|n| packed + n * unscaled));
        for (which, (short, long)) in pairs.iter().enumerate() {
            for tokens in [1, 2, 4, 9, 13, 29] {
                let x = Array::from_slice(&Numbers(5).floats(tokens * columns), &[tokens as i32, columns as i32]);
                for set in ["avx512", "avx2", "baseline"] {
                    if hive_kernels::force_instruction_set(set).is_err() {
                        continue;
                    }
                    let of = |matrix: &PackedMatrix| values(&matrix.matmul(&x, None).unwrap());
                    let (short, long) = (of(short), of(long));
                    assert!(short.iter().all(|value| value.is_finite()) && short.iter().any(|value| *value != 0.0));
                    assert_eq!(short, long, "{bits} bits, format {which}, {tokens} tokens, {set}");
                }
                hive_kernels::force_instruction_set(&best).unwrap();
            }
        }
    }
}

#[test]
fn a_matrix_filled_a_few_rows_at_a_time_is_the_same_one_and_its_size_is_known_before() {
    let _alone = alone();
    let (rows, columns, group) = (39, 64, 32);
    let mut numbers = Numbers(3);
    let weights: Vec<u8> = (0..rows * columns / 2).map(|_| numbers.next() as u8).collect();
    let scales: Vec<u8> =
        numbers.floats(rows * 2).into_iter().flat_map(|scale| half::f16::from_f32(scale).to_le_bytes()).collect();
    let affine = Affine { group, scaling: Scaling::F16, scales: &scales, biases: &scales };
    let whole = PackedMatrix::pack(Format::Q4, rows, columns, &weights, Some(affine)).unwrap();
    let layout = Layout::new(Format::Q4, rows, columns, Some((group, Scaling::F16))).unwrap();
    let x = Array::from_slice(&Numbers(5).floats(columns), &[1, columns as i32]);
    for at_once in [1, 7, 16, 38] {
        let mut packing = Packing::new(layout).unwrap();
        for (weights, scales) in weights.chunks(at_once * columns / 2).zip(scales.chunks(at_once * 4)) {
            packing.push(weights, scales, scales).unwrap();
        }
        let matrix = packing.finish().unwrap();
        assert_eq!((matrix.bytes(), whole.bytes()), (layout.bytes(), layout.bytes()));
        assert_eq!(values(&matrix.matmul(&x, None).unwrap()), values(&whole.matmul(&x, None).unwrap()), "{at_once}");
    }
    let mut packing = Packing::new(layout).unwrap();
    packing.push(&weights[..32 * 38], &scales[..4 * 38], &scales[..4 * 38]).unwrap();
    assert!(packing.push(&weights[..32 * 2], &scales[..8], &scales[..8]).is_err(), "one row too many");
    assert!(packing.push(&weights[..16], &scales[..2], &scales[..2]).is_err(), "half a row");
    assert!(packing.finish().is_err(), "a row is missing");
    assert!(Layout::new(Format::F32, 1 << 30, 1 << 40, None).is_err());
    assert!(Layout::new(Format::F32, 0, 16, None).is_err());
}

#[test]
fn a_layer_at_once_has_the_bits_of_its_operations() {
    let _alone = alone();
    let (heads, kv_heads, head_dim, hidden, inner) = (6, 2, 32, 192, 320);
    let shape = AttentionShape::new(heads, kv_heads, head_dim, 0.2);
    let matrix = |rows: usize, columns: usize, format: Format, seed: u64| {
        let bytes = Numbers(seed).floats(rows * columns);
        let bytes: Vec<u8> = match format {
            Format::F16 => bytes.iter().flat_map(|&w| half::f16::from_f32(w).to_le_bytes()).collect(),
            _ => bytes.iter().flat_map(|w| w.to_le_bytes()).collect(),
        };
        PackedMatrix::pack(format, rows, columns, &bytes, None).unwrap()
    };
    let quantized = |rows, columns| sample(rows, columns, 32, 4).packed;
    let norm = |seed| Array::from_slice(&Numbers(seed).floats(hidden), &[hidden as i32]);
    let (attention_norm, mlp_norm) = (norm(1), norm(2));
    let periods: Vec<f32> = (0..head_dim / 2).map(|i| 10_000f32.powf(2.0 * i as f32 / head_dim as f32)).collect();
    let periods = Array::from_slice(&periods, &[head_dim as i32 / 2]);
    let of_heads = HeadWeights { periods: &periods, norms: None, sinks: None, growth: None };
    let qkv = quantized((heads + 2 * kv_heads) * head_dim, hidden);
    let output = matrix(hidden, heads * head_dim, Format::F16, 3);
    let gate_up = quantized(2 * inner, hidden);
    let down = matrix(hidden, inner, Format::F32, 4);
    let weights = LayerWeights {
        attention_norm: &attention_norm,
        qkv: &qkv,
        heads: of_heads,
        output: &output,
        mlp_norm: &mlp_norm,
        gate_up: &gate_up,
        down: &down,
        eps: 1e-5,
    };
    let (mut one, mut other) = (KvBuffers::new(&shape).unwrap(), KvBuffers::new(&shape).unwrap());
    let mut offset = 0;
    for tokens in [5, 1, 1, 8] {
        let x = Array::from_slice(&Numbers(offset as u64 + 9).floats(tokens * hidden), &[tokens as i32, hidden as i32]);
        let rows = SessionRows { cache: &mut one, offset, tokens };
        let at_once = values(&hive_kernels::layer(&x, &weights, &shape, &mut [rows]).unwrap());
        let normed = hive_kernels::rms_norm(&x, &attention_norm, 1e-5).unwrap();
        let mixed = qkv.matmul(&normed, None).unwrap();
        let attended = hive_kernels::attention(&mixed, &mut other, &of_heads, &shape, offset).unwrap();
        let between = output.matmul(&attended, Some(&x)).unwrap();
        let normed = hive_kernels::rms_norm(&between, &mlp_norm, 1e-5).unwrap();
        let activated = hive_kernels::swiglu(&gate_up.matmul(&normed, None).unwrap()).unwrap();
        let expected = values(&down.matmul(&activated, Some(&between)).unwrap());
        assert!(expected.iter().all(|value| value.is_finite()) && expected.iter().any(|value| *value != 0.0));
        assert_eq!(at_once, expected, "{tokens} tokens at {offset}");
        offset += tokens;
    }
    // Another session in the batch changes nothing.
    let (mut beside, x) = (KvBuffers::new(&shape).unwrap(), Numbers(40).floats(3 * hidden));
    let rows = |range: std::ops::Range<usize>| {
        Array::from_slice(&x[range.start * hidden..range.end * hidden], &[range.len() as i32, hidden as i32])
    };
    let first = SessionRows { cache: &mut beside, offset: 0, tokens: 2 };
    let second = SessionRows { cache: &mut one, offset, tokens: 1 };
    let together = values(&hive_kernels::layer(&rows(0..3), &weights, &shape, &mut [first, second]).unwrap());
    let alone = SessionRows { cache: &mut other, offset, tokens: 1 };
    let alone = values(&hive_kernels::layer(&rows(2..3), &weights, &shape, &mut [alone]).unwrap());
    assert_eq!(together[2 * hidden..], alone);
    let mut fresh = KvBuffers::new(&shape).unwrap();
    let alone = SessionRows { cache: &mut fresh, offset: 0, tokens: 2 };
    assert_eq!(
        together[..2 * hidden],
        values(&hive_kernels::layer(&rows(0..2), &weights, &shape, &mut [alone]).unwrap())
    );

    let wrong = LayerWeights { down: &output, ..weights };
    let x = Array::from_slice(&Numbers(9).floats(hidden), &[1, hidden as i32]);
    let mut is_refused = |weights: &LayerWeights<'_>, offset| {
        let rows = SessionRows { cache: &mut one, offset, tokens: 1 };
        hive_kernels::layer(&x, weights, &shape, &mut [rows]).is_err()
    };
    assert!(is_refused(&wrong, 0));
    assert!(is_refused(&weights, hive_kernels::KV_BLOCK));
    assert!(hive_kernels::layer(&x, &weights, &shape, &mut []).is_err(), "whose token is it?");
}

#[test]
fn the_end_of_the_model_at_once_has_the_bits_of_its_operations() {
    let _alone = alone();
    let (hidden, vocabulary) = (192, 320);
    let matrix = sample(vocabulary, hidden, 32, 4).packed;
    let norm = Array::from_slice(&Numbers(1).floats(hidden), &[hidden as i32]);
    let x = Array::from_slice(&Numbers(2).floats(4 * hidden), &[4, hidden as i32]);
    let logits = hive_kernels::head(&x, &[3, 1], &norm, 1e-5, &matrix).unwrap();
    let all = values(&matrix.matmul(&hive_kernels::rms_norm(&x, &norm, 1e-5).unwrap(), None).unwrap());
    assert_eq!(logits.shape(), [2, vocabulary as i32]);
    assert_eq!(values(&logits), [&all[3 * vocabulary..], &all[vocabulary..2 * vocabulary]].concat());
    assert!(hive_kernels::head(&x, &[4], &norm, 1e-5, &matrix).is_err(), "no such row");
    let narrow = Array::from_slice(&Numbers(1).floats(32), &[32]);
    assert!(hive_kernels::head(&x, &[0], &narrow, 1e-5, &matrix).is_err());
}
