// MLX's headers use std::format, which GCC gained in version 13. Older ones borrow fmt, which std::format was made from.
#pragma once
#if __has_include(<version>)
#include <version>
#endif
#if __has_include(<format>)
#include <format>
#else
#define FMT_HEADER_ONLY
#include <fmt/format.h>
namespace std {
using fmt::format;
}
#endif
