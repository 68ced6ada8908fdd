// Collectives over memory that the ranks share.
//
// The memory is an anonymous file of the process that makes the unique id, which the other ranks open by way of /proc:
// it has no name that could be left over when a rank is killed.
#pragma once

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "devices.h"
#include "paddle/phi/backends/device_ext.h"
#include "paddle/phi/common/bfloat16.h"
#include "paddle/phi/common/float16.h"

namespace standin {

constexpr size_t kIdBytes = 64;
constexpr size_t kSlotBytes = size_t{4} << 20;
constexpr size_t kControlBytes = 4096;

inline size_t width(C_DataType type) {
  switch (type) {
    case BOOL:
    case UINT8:
    case INT8:
      return 1;
    case UINT16:
    case INT16:
    case FLOAT16:
    case BFLOAT16:
      return 2;
    case UINT32:
    case INT32:
    case FLOAT32:
      return 4;
    case UINT64:
    case INT64:
    case FLOAT64:
    case COMPLEX64:
      return 8;
    case COMPLEX128:
      return 16;
    default:
      return 0;
  }
}

// A number of ranks that meet, and a slot of memory for each.
class Group {
 public:
  // The text that the other ranks open the memory by; empty if there is none to be had.
  static std::string make_id() {
    const int file = memfd_create("standin-collectives", MFD_CLOEXEC);
    if (file < 0) return "";
    return "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(file);
  }

  // Waits until all ranks have opened the memory. Null if this one can't.
  static std::shared_ptr<Group> join(const std::string& id, size_t ranks, size_t rank) {
    const size_t bytes = kControlBytes + ranks * kSlotBytes;
    const int file = open(id.c_str(), O_RDWR | O_CLOEXEC);
    if (file < 0 || ftruncate(file, static_cast<off_t>(bytes)) != 0) return nullptr;
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED) return nullptr;
    std::shared_ptr<Group> group(new Group(static_cast<char*>(memory), bytes, ranks, rank));
    group->meet();
    const std::string own = "/proc/" + std::to_string(getpid()) + "/fd/";
    if (id.compare(0, own.size(), own) == 0) close(std::stoi(id.substr(own.size())));
    return group;
  }

  ~Group() { munmap(memory_, bytes_); }

  size_t ranks() const { return ranks_; }
  size_t rank() const { return rank_; }
  const char* slot(size_t rank) const { return memory_ + kControlBytes + rank * kSlotBytes; }

  // Show `bytes` of device memory to the others, in pieces: `take` is called, with the place of the piece and its
  // bytes, when all have shown theirs. Null shows nothing, but takes part.
  void exchange(const void* shown, size_t bytes, const std::function<void(size_t, size_t)>& take) {
    for (size_t begin = 0; begin < bytes; begin += kSlotBytes) {
      const size_t piece = std::min(kSlotBytes, bytes - begin);
      if (shown != nullptr) {
        copy_scrambled(memory_ + kControlBytes + rank_ * kSlotBytes, static_cast<const char*>(shown) + begin, piece);
      }
      meet();
      take(begin, piece);
      meet();
    }
  }

 private:
  // At the start of the memory, which begins as zeros.
  struct Control {
    std::atomic<uint32_t> arrived;
    std::atomic<uint32_t> meeting;
  };

  Group(char* memory, size_t bytes, size_t ranks, size_t rank)
      : memory_(memory), bytes_(bytes), ranks_(ranks), rank_(rank) {}

  // Wait, asleep, until all ranks are here: for ever, if one of them has died.
  void meet() {
    auto* const control = reinterpret_cast<Control*>(memory_);
    const uint32_t meeting = control->meeting.load();
    if (control->arrived.fetch_add(1) + 1 == ranks_) {
      control->arrived = 0;
      control->meeting.fetch_add(1);
      syscall(SYS_futex, &control->meeting, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
      return;
    }
    while (control->meeting.load() == meeting) {
      syscall(SYS_futex, &control->meeting, FUTEX_WAIT, meeting, nullptr, nullptr, 0);
    }
  }

  char* const memory_;
  const size_t bytes_;
  const size_t ranks_;
  const size_t rank_;
};

// Reduce the ranks' slots in ascending order, in the type Sum, into device memory.
template <class Element, class Sum>
void reduce_slots(const Group& group, C_CCLReduceOp operation, void* result, size_t bytes) {
  std::vector<Element> reduced(bytes / sizeof(Element));
  for (size_t i = 0; i < reduced.size(); ++i) {
    const auto element = [&](size_t rank) {
      return static_cast<Sum>(reinterpret_cast<const Element*>(group.slot(rank))[i]);
    };
    Sum value = element(0);
    for (size_t rank = 1; rank < group.ranks(); ++rank) {
      const Sum other = element(rank);
      switch (operation) {
        case MAX:
          value = std::max(value, other);
          break;
        case MIN:
          value = std::min(value, other);
          break;
        case PRODUCT:
          value = static_cast<Sum>(value * other);
          break;
        default:
          value = static_cast<Sum>(value + other);
      }
    }
    if (operation == AVG) value = static_cast<Sum>(value / static_cast<Sum>(group.ranks()));
    reduced[i] = static_cast<Element>(value);
  }
  copy_scrambled(result, reduced.data(), bytes);
}

using Reduction = void (*)(const Group&, C_CCLReduceOp, void*, size_t);

// Null for types that can't be reduced.
inline Reduction reduction(C_DataType type) {
  switch (type) {
    case BOOL:
    case UINT8:
      return reduce_slots<uint8_t, uint8_t>;
    case INT32:
      return reduce_slots<int32_t, int32_t>;
    case INT64:
      return reduce_slots<int64_t, int64_t>;
    case FLOAT16:
      return reduce_slots<phi::dtype::float16, float>;
    case BFLOAT16:
      return reduce_slots<phi::dtype::bfloat16, float>;
    case FLOAT32:
      return reduce_slots<float, float>;
    case FLOAT64:
      return reduce_slots<double, double>;
    default:
      return nullptr;
  }
}

}  // namespace standin
