// A few threads that wait for work. Calls come from MLX's thread and from those that compute at once; one goes at a time.
#pragma once
#include <functional>

namespace hive {

// How many threads compute, the calling one included. Takes effect at the next parallel_for.
void set_threads(int count);
int threads();

// Runs body(unit, worker) for every unit in [0, units); worker < threads().
void parallel_for(int units, const std::function<void(int, int)>& body);

} // namespace hive
