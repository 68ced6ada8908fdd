// Streams, which are queues with a thread that works on them, and events.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <utility>

#include "settings.h"

namespace standin {

// Does what it is given one after the other, in its own thread, each after a random delay if one is asked for.
//
// The thread keeps the queue alive and ends after the last work that was submitted before `close`. Nobody joins it:
// destroying a stream must not wait for a device that hangs.
class Queue {
 public:
  static std::shared_ptr<Queue> start(uint64_t seed) {
    std::shared_ptr<Queue> queue(new Queue(seed));
    std::thread([queue] { queue->run(); }).detach();
    return queue;
  }

  void submit(std::function<void()> work) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      waiting_.push_back(std::move(work));
      ++submitted_;
    }
    changed_.notify_all();
  }

  // Wait for all that has been submitted so far. Work that calls it doesn't wait for itself.
  void drain() {
    if (working_on() == this) return;
    std::unique_lock<std::mutex> lock(mutex_);
    const uint64_t last = submitted_;
    changed_.wait(lock, [&] { return done_ >= last; });
  }

  bool idle() {
    std::lock_guard<std::mutex> lock(mutex_);
    return done_ == submitted_;
  }

  void close() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      closed_ = true;
    }
    changed_.notify_all();
  }

 private:
  explicit Queue(uint64_t seed) : random_(seed) {}

  // The queue whose thread this is.
  static const Queue*& working_on() {
    static thread_local const Queue* queue = nullptr;
    return queue;
  }

  void run() {
    working_on() = this;
    std::uniform_real_distribution<double> delay_ms(0, settings().delay_ms);
    for (;;) {
      std::function<void()> work;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [&] { return closed_ || !waiting_.empty(); });
        if (waiting_.empty()) return;
        work = std::move(waiting_.front());
        waiting_.pop_front();
      }
      if (settings().delay_ms > 0) sleep_ms(delay_ms(random_));
      work();
      {
        std::lock_guard<std::mutex> lock(mutex_);
        ++done_;
      }
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> waiting_;
  uint64_t submitted_ = 0;
  uint64_t done_ = 0;
  bool closed_ = false;
  std::mt19937_64 random_;
};

// The points in streams at which an event was recorded, numbered from 1, and the last one that was reached.
//
// Streams that wait share it with the event, because Paddle destroys events that streams still wait for.
class Marks {
 public:
  uint64_t record() {
    std::lock_guard<std::mutex> lock(mutex_);
    return ++recorded_;
  }

  uint64_t recorded() {
    std::lock_guard<std::mutex> lock(mutex_);
    return recorded_;
  }

  void reach(uint64_t mark) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (reached_ < mark) reached_ = mark;
    }
    changed_.notify_all();
  }

  void wait(uint64_t mark) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return reached_ >= mark; });
  }

  bool all_reached() {
    std::lock_guard<std::mutex> lock(mutex_);
    return reached_ >= recorded_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t recorded_ = 0;
  uint64_t reached_ = 0;
};

}  // namespace standin
