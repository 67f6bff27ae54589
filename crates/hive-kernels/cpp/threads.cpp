#include "threads.h"

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

namespace hive {
namespace {

// A layer's operations follow each other within microseconds, so a thread looks for the next one this long before it
// sleeps. Longer would take the core from a neighbouring stage while this one has nothing to do.
constexpr auto kSpin = std::chrono::microseconds(40);

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
    stop_ = false;
    for (int worker = 1; worker < count; ++worker)
      helpers_.emplace_back([this, worker, seen = generation_.load()]() mutable { serve(worker, seen); });
  }

  void run(int units, const std::function<void(int, int)>& body) {
    if (helpers_.empty() || units < 2) {
      for (int unit = 0; unit < units; ++unit) body(unit, 0);
      return;
    }
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

  void work(int worker) {
    for (int unit = next_.fetch_add(1); unit < units_; unit = next_.fetch_add(1)) (*body_)(unit, worker);
  }

  void serve(int worker, unsigned seen) {
    for (;;) {
      const auto until = std::chrono::steady_clock::now() + kSpin;
      while (generation_.load(std::memory_order_acquire) == seen && std::chrono::steady_clock::now() < until) pause();
      generation_.wait(seen);
      seen = generation_.load();
      if (stop_) return;
      inside_.fetch_add(1);
      if (open_.load()) work(worker);
      inside_.fetch_sub(1);
    }
  }

  std::vector<std::thread> helpers_;
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
