// What mlx-c's half.h declares on aarch64 only, for bindgen; the Rust types stand in src/lib.rs.
#pragma once
typedef struct { unsigned short bits; } float16_t;
typedef unsigned short bfloat16_t;
#define MLX_HALF_H
