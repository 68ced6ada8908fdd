// What the environment asks of the stand-in, the failures that are injected, and the counters that a test reads.
//
// The variables are read at the first use of a device, not when Paddle loads the library, so that a process that has
// loaded Paddle can set them before it forks. Read as Paddle loads the library are STANDIN_NAME, STANDIN_DEVICES and
// STANDIN_BLOCKING_EVENTS.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace standin {

inline std::string variable(const char* name, const std::string& otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : otherwise;
}

[[noreturn]] inline void refuse(const std::string& message) {
  std::fprintf(stderr, "stand-in accelerator: %s\n", message.c_str());
  std::_Exit(2);
}

inline double number(const char* name, double otherwise) {
  const std::string value = variable(name, "");
  if (value.empty()) return otherwise;
  char* end = nullptr;
  const double result = std::strtod(value.c_str(), &end);
  if (*end != '\0' || result < 0) refuse(std::string(name) + " is " + value + "; it must be a number of 0 or more");
  return result;
}

enum class Failure { kAllocation, kHang, kLost, kCollectiveError, kCollectiveHang };

struct Settings {
  double delay_ms = number("STANDIN_DELAY_MS", 0);
  uint64_t seed = static_cast<uint64_t>(number("STANDIN_SEED", 0));
  double copy_ms = number("STANDIN_COPY_MS", 0);
  size_t copy_bytes = static_cast<size_t>(number("STANDIN_COPY_BYTES", 4096));
  // 0: no limit.
  size_t memory_bytes = static_cast<size_t>(number("STANDIN_MEMORY_BYTES", 0));
  // An allocation that fails is reported as an error, as some vendors' plugins do, instead of as memory that ran out.
  bool allocation_error = number("STANDIN_ALLOCATION_ERROR", 0) != 0;

  struct Injected {
    Failure failure;
    uint64_t at;
  };
  std::vector<Injected> failures = read_failures();

  // Whether a failure has begun at the operation of this number, counted from 1.
  bool has_begun(Failure failure, uint64_t number) const {
    for (const Injected& injected : failures) {
      if (injected.failure == failure && number >= injected.at) return true;
    }
    return false;
  }

 private:
  // A list such as "alloc@40,rank1:hang@200".
  static std::vector<Injected> read_failures() {
    const std::string rank = "rank" + variable("PADDLE_TRAINER_ID", "0");
    std::vector<Injected> found;
    std::stringstream list(variable("STANDIN_FAIL", ""));
    for (std::string item; std::getline(list, item, ',');) {
      const size_t colon = item.find(':');
      const size_t start = colon == std::string::npos ? 0 : colon + 1;
      const size_t at = item.find('@', start);
      if (at == std::string::npos) refuse("STANDIN_FAIL has " + item + " without @ and a number");
      const std::string name = item.substr(start, at - start);
      const uint64_t when = std::strtoull(item.c_str() + at + 1, nullptr, 10);
      if (when == 0) refuse("STANDIN_FAIL has " + item + "; operations are counted from 1");
      const Failure failure = name == "alloc"              ? Failure::kAllocation
                              : name == "hang"             ? Failure::kHang
                              : name == "lost"             ? Failure::kLost
                              : name == "collective_error" ? Failure::kCollectiveError
                              : name == "collective_hang"
                                  ? Failure::kCollectiveHang
                                  : (refuse("STANDIN_FAIL knows no " + name), Failure::kLost);
      if (colon == std::string::npos || item.substr(0, colon) == rank) found.push_back({failure, when});
    }
    return found;
  }
};

inline const Settings& settings() {
  static const Settings* const read_once = new Settings;
  return *read_once;
}

// The order is that of the fields in tests/support/accelerator.py.
enum Counter {
  kH2d,
  kH2dBytes,
  kH2dQueued,
  kD2h,
  kD2hBytes,
  kD2hQueued,
  kD2d,
  kD2dQueued,
  kMemset,
  kSynchronizeDevice,
  kSynchronizeStream,
  kSynchronizeEvent,
  kStreamWaitEvent,
  kCollectives,
  kAllocations,
  kOperations,
  kLiveBytes,
  kPeakBytes,
  kCounters,
};

// In memory of this process, or in the file that STANDIN_COUNTERS asks for. A rank's file is of its latest process.
inline std::atomic<uint64_t>* open_counters() {
  constexpr size_t kBytes = kCounters * sizeof(uint64_t);
  const std::string prefix = variable("STANDIN_COUNTERS", "");
  if (prefix.empty()) return new std::atomic<uint64_t>[kCounters]();
  const std::string path = prefix + "." + variable("PADDLE_TRAINER_ID", "0");
  const std::string unfinished = path + "." + std::to_string(getpid());
  const int file = open(unfinished.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (file < 0 || ftruncate(file, kBytes) != 0) refuse("the file of counters can't be written: " + unfinished);
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory == MAP_FAILED || std::rename(unfinished.c_str(), path.c_str()) != 0) {
    refuse("the file of counters can't be written: " + path);
  }
  return static_cast<std::atomic<uint64_t>*>(memory);
}

inline std::atomic<uint64_t>& counter(Counter which) {
  static std::atomic<uint64_t>* const counters = open_counters();
  return counters[which];
}

// Adds to a counter and returns what it comes to.
inline uint64_t count(Counter which, uint64_t amount = 1) { return counter(which).fetch_add(amount) + amount; }

inline bool has_begun(Failure failure, uint64_t number) { return settings().has_begun(failure, number); }

inline void sleep_ms(double milliseconds) {
  std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(milliseconds));
}

[[noreturn]] inline void hang() {
  for (;;) sleep_ms(1000);
}

inline std::atomic<bool>& device_lost() {
  static std::atomic<bool> lost{false};
  return lost;
}

// To be called as the device begins a piece of work. Whether it does the work: a lost device does none.
inline bool begin_operation() {
  const uint64_t operation = count(kOperations);
  if (has_begun(Failure::kHang, operation)) hang();
  if (has_begun(Failure::kLost, operation)) device_lost() = true;
  return !device_lost();
}

}  // namespace standin
