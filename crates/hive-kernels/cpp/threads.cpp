#include "threads.h"

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#include <unistd.h>
#endif

namespace hive {
namespace {

// The work of a layer comes in pieces microseconds apart, and the next token follows in less than this where a single machine
// computes it. So long a helper looks for more before it sleeps, and leaves the core to whoever else wants it.
constexpr auto kSpin = std::chrono::microseconds(300);

class Pool {
 public:
  ~Pool() { resize(1); }

  void resize(int count) {
    if (count == static_cast<int>(helpers_.size()) + 1) return;
    stop_ = true;
    generation_.fetch_add(1);
    generation_.notify_all();
    for (auto& helper : helpers_) helper.join();
    helpers_.clear();
    callers_core_ = -1;
    stop_ = false;
    for (int worker = 1; worker < count; ++worker)
      helpers_.emplace_back([this, worker, seen = generation_.load()]() mutable { serve(worker, seen); });
  }

  void run(int units, const std::function<void(int, int)>& body) {
    if (helpers_.empty() || units < 2) {
      for (int unit = 0; unit < units; ++unit) body(unit, 0);
      return;
    }
    keep_apart();
    body_ = &body;
    units_ = units;
    next_.store(0);
    open_.store(true);
    generation_.fetch_add(1);
    generation_.notify_all();
    work(0);
    // A helper that has not woken by now is not waited for: it finds the work closed. One that entered is.
    open_.store(false);
    while (inside_.load() != 0) pause();
  }

 private:
  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  // Keeps the helpers off the caller's core. A scheduler tends to wake them just there, where they wait for the caller to
  // sleep while another core idles.
  void keep_apart() {
#if defined(__linux__)
    const int core = sched_getcpu();
    if (core == callers_core_) return;
    callers_core_ = core;
    cpu_set_t others;
    if (sched_getaffinity(getpid(), sizeof others, &others) != 0) return;
    CPU_CLR(core, &others);
    if (CPU_COUNT(&others) == 0) return;
    for (auto& helper : helpers_) pthread_setaffinity_np(helper.native_handle(), sizeof others, &others);
#endif
  }

  void work(int worker) {
    for (int unit = next_.fetch_add(1); unit < units_; unit = next_.fetch_add(1)) (*body_)(unit, worker);
  }

  void serve(int worker, unsigned seen) {
    for (;;) {
      const auto until = std::chrono::steady_clock::now() + kSpin;
      while (generation_.load(std::memory_order_acquire) == seen && std::chrono::steady_clock::now() < until)
        std::this_thread::yield();
      generation_.wait(seen);
      seen = generation_.load();
      if (stop_) return;
      inside_.fetch_add(1);
      if (open_.load()) work(worker);
      inside_.fetch_sub(1);
    }
  }

  std::vector<std::thread> helpers_;
  int callers_core_ = -1;
  std::atomic<unsigned> generation_{0};
  std::atomic<int> next_{0};
  std::atomic<int> inside_{0};
  std::atomic<bool> open_{false};
  std::atomic<bool> stop_{false};
  int units_ = 0;
  const std::function<void(int, int)>* body_ = nullptr;
};

std::atomic<int> wanted{1};

} // namespace

void set_threads(int count) { wanted = count < 1 ? 1 : count; }
int threads() { return wanted; }

void parallel_for(int units, const std::function<void(int, int)>& body) {
  // Left to the end of the process on purpose: MLX's own threads may still call while statics are destroyed.
  static Pool& pool = *new Pool;
  static std::mutex one_at_a_time;
  std::lock_guard lock(one_at_a_time);
  pool.resize(wanted);
  pool.run(units, body);
}

} // namespace hive
