// Devices: their memory, which the host can't read, and their streams.
#pragma once

#include <dlfcn.h>
#include <execinfo.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "settings.h"
#include "streams.h"

namespace standin {

// Bytes in device memory differ from the host's in these bits, so that code of the host that reads device memory, or
// writes to it, gets something else than the values.
constexpr unsigned char kScrambled = 0x5a;
// Fresh memory holds these bytes to the device: not-a-number in every floating-point type.
constexpr unsigned char kPoison = 0xff;

// Copy between host and device memory, in either direction.
inline void copy_scrambled(void* to, const void* from, size_t bytes) {
  auto* const target = static_cast<unsigned char*>(to);
  const auto* const source = static_cast<const unsigned char*>(from);
  for (size_t i = 0; i < bytes; ++i) target[i] = source[i] ^ kScrambled;
}

// Whether a context of Paddle's is being made: nothing else tells its stream from one that was asked for, which may be
// there before.
inline bool called_by_context() {
  void* frames[32];
  const int depth = backtrace(frames, 32);
  for (int i = 0; i < depth; ++i) {
    Dl_info symbol;
    if (dladdr(frames[i], &symbol) == 0 || symbol.dli_sname == nullptr) continue;
    if (std::strstr(symbol.dli_sname, "CustomContext") != nullptr) return true;
  }
  return false;
}

class Device {
 public:
  explicit Device(int id) : id_(id) {}

  // The default stream is the first one that Paddle makes for its own context.
  std::shared_ptr<Queue> add_stream() {
    const bool of_context = called_by_context();
    std::lock_guard<std::mutex> lock(mutex_);
    const auto stream = add_stream_locked();
    if (of_context && default_ == nullptr) default_ = stream;
    return stream;
  }

  std::shared_ptr<Queue> default_stream() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (default_ == nullptr) default_ = add_stream_locked();
    return default_;
  }

  bool is_default(const std::shared_ptr<Queue>& stream) {
    std::lock_guard<std::mutex> lock(mutex_);
    return stream == default_;
  }

  // Wait for all streams. A stream that was destroyed is kept until it has finished.
  void drain() {
    std::vector<std::shared_ptr<Queue>> streams;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      streams = streams_;
    }
    for (const auto& stream : streams) stream->drain();
  }

  // Null if the memory doesn't suffice.
  void* allocate(size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    // All that follow fail too, because Paddle tries again at once.
    if (has_begun(Failure::kAllocation, count(kAllocations)) || bytes > free_bytes_locked()) return nullptr;
    // One byte at least, so that no other memory has the address.
    void* memory = std::malloc(std::max<size_t>(bytes, 1));
    if (memory == nullptr) return nullptr;
    std::memset(memory, kPoison ^ kScrambled, bytes);
    sizes_[memory] = bytes;
    live_bytes_ += bytes;
    const uint64_t live = count(kLiveBytes, bytes);
    uint64_t peak = counter(kPeakBytes);
    while (peak < live && !counter(kPeakBytes).compare_exchange_weak(peak, live)) {
    }
    return memory;
  }

  // Waits for all streams first, which may still use the memory.
  void release(void* memory) {
    if (!device_lost()) drain();
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = sizes_.find(memory);
    if (found == sizes_.end()) refuse("memory is released that was not allocated");
    live_bytes_ -= found->second;
    counter(kLiveBytes).fetch_sub(found->second);
    sizes_.erase(found);
    std::free(memory);
  }

  size_t total_bytes() const {
    constexpr size_t kUnlimited = size_t{16} << 30;
    return settings().memory_bytes > 0 ? settings().memory_bytes : kUnlimited;
  }

  size_t free_bytes() {
    std::lock_guard<std::mutex> lock(mutex_);
    return free_bytes_locked();
  }

 private:
  std::shared_ptr<Queue> add_stream_locked() {
    const uint64_t seed = settings().seed * 1000003 + static_cast<uint64_t>(id_) * 1009 + streams_.size();
    streams_.push_back(Queue::start(seed));
    return streams_.back();
  }

  size_t free_bytes_locked() const { return total_bytes() - std::min(live_bytes_, total_bytes()); }

  const int id_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<Queue>> streams_;
  std::shared_ptr<Queue> default_;
  std::unordered_map<void*, size_t> sizes_;
  size_t live_bytes_ = 0;
};

// Devices live as long as the process: threads of their streams may outlast Paddle.
inline Device& device_of(int id) {
  static std::mutex* const mutex = new std::mutex;
  static auto* const devices = new std::map<int, Device*>;
  std::lock_guard<std::mutex> lock(*mutex);
  Device*& device = (*devices)[id];
  if (device == nullptr) device = new Device(id);
  return *device;
}

}  // namespace standin
