// mlx-rs seeds its default random state from the Mach clock. Outside macOS that clock is the monotonic one.
#include <cstdint>
#include <ctime>

extern "C" std::uint64_t mach_absolute_time() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000ull + static_cast<std::uint64_t>(now.tv_nsec);
}
