// A stand-in accelerator for tests: a device type of Paddle's own plugin interface, simulated in host memory.
//
// It has no kernels. Paddle computes on the CPU what a plugin has no kernel for, with copies from the device and back,
// so that results are the CPU's to the bit. What a device adds is real: memory that the host can't read and that runs
// out, streams that run by themselves and late, events, copies, collectives, and failures. The variables that it is
// set with are in settings.h, and tests/support/accelerator.py says what they are for.
//
// A copy from the host that is queued on the default stream takes its source at the call, as CUDA does with memory
// that isn't page-locked. On any other stream the source is read when the copy's turn comes, as from page-locked
// memory, so that a source that is released or used again too early shows. A copy to the host is complete when the
// call returns, since Paddle doesn't wait before it reads the target.
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "collectives.h"
#include "devices.h"
#include "paddle/phi/backends/device_ext.h"
#include "settings.h"
#include "streams.h"

struct C_Stream_st {
  std::shared_ptr<standin::Queue> queue;
};

struct C_Event_st {
  std::shared_ptr<standin::Marks> marks = std::make_shared<standin::Marks>();
};

struct C_CCLComm_st {
  std::shared_ptr<standin::Group> group;
  std::string id;
  standin::Device* device;
};

namespace standin {
namespace {

thread_local int current_device = 0;

// What calls return, apart from those that Paddle makes in destructors, where a failure would end the process without a
// word to Python: these choose a device, or give something back.
C_Status outcome() { return device_lost() ? C_FAILED : C_SUCCESS; }

std::shared_ptr<Queue> queue_of(Device& device, C_Stream stream) {
  return stream != nullptr ? stream->queue : device.default_stream();
}

// Queue a piece of work of the device.
template <class Work>
void submit(const std::shared_ptr<Queue>& queue, Work work) {
  queue->submit([work = std::move(work)] {
    if (begin_operation()) work();
  });
}

// Do a piece of work at once, after what the host expects to come before it.
template <class Work>
C_Status perform(const C_Device device, Work work) {
  Device& own = device_of(device->id);
  own.default_stream()->drain();
  if (begin_operation()) work();
  return outcome();
}

void count_h2d(size_t bytes) {
  count(kH2d);
  count(kH2dBytes, bytes);
}

void count_d2h(size_t bytes) {
  count(kD2h);
  count(kD2hBytes, bytes);
}

// Devices.

C_Status set_device(const C_Device device) {
  current_device = device->id;
  return C_SUCCESS;
}

C_Status get_device(const C_Device device) {
  device->id = current_device;
  return C_SUCCESS;
}

C_Status nothing_to_do(const C_Device) { return C_SUCCESS; }

C_Status succeed() { return C_SUCCESS; }

size_t device_count() { return static_cast<size_t>(number("STANDIN_DEVICES", 2)); }

C_Status get_device_count(size_t* devices) {
  *devices = device_count();
  return C_SUCCESS;
}

C_Status get_device_list(size_t* devices) {
  for (size_t id = 0; id < device_count(); ++id) devices[id] = id;
  return C_SUCCESS;
}

C_Status synchronize_device(const C_Device device) {
  count(kSynchronizeDevice);
  device_of(device->id).drain();
  return outcome();
}

C_Status supported(const C_Device, bool* answer) {
  *answer = true;
  return C_SUCCESS;
}

C_Status version_one(const C_Device, size_t* version) {
  *version = 1;
  return C_SUCCESS;
}

// Streams and events.

C_Status create_stream(const C_Device device, C_Stream* stream) {
  *stream = new C_Stream_st{device_of(device->id).add_stream()};
  return outcome();
}

C_Status destroy_stream(const C_Device device, C_Stream stream) {
  // The default stream goes on: Paddle's own contexts share it.
  if (!device_of(device->id).is_default(stream->queue)) stream->queue->close();
  delete stream;
  return C_SUCCESS;
}

C_Status query_stream(const C_Device device, C_Stream stream) {
  if (device_lost()) return C_ERROR;
  return queue_of(device_of(device->id), stream)->idle() ? C_SUCCESS : C_FAILED;
}

C_Status synchronize_stream(const C_Device device, C_Stream stream) {
  count(kSynchronizeStream);
  queue_of(device_of(device->id), stream)->drain();
  return outcome();
}

C_Status add_callback(const C_Device device, C_Stream stream, C_Callback callback, void* data) {
  queue_of(device_of(device->id), stream)->submit([=] {
    begin_operation();
    C_Status status = C_SUCCESS;
    callback(device, stream, data, &status);
  });
  return outcome();
}

C_Status create_event(const C_Device, C_Event* event) {
  *event = new C_Event_st;
  return outcome();
}

C_Status destroy_event(const C_Device, C_Event event) {
  delete event;
  return C_SUCCESS;
}

C_Status record_event(const C_Device device, C_Stream stream, C_Event event) {
  const auto marks = event->marks;
  const uint64_t mark = marks->record();
  // Also when the device is lost, so that nobody waits for it.
  queue_of(device_of(device->id), stream)->submit([=] {
    begin_operation();
    marks->reach(mark);
  });
  return outcome();
}

C_Status query_event(const C_Device, C_Event event) {
  if (device_lost()) return C_ERROR;
  return event->marks->all_reached() ? C_SUCCESS : C_FAILED;
}

C_Status synchronize_event(const C_Device, C_Event event) {
  count(kSynchronizeEvent);
  event->marks->wait(event->marks->recorded());
  return outcome();
}

C_Status stream_wait_event(const C_Device device, C_Stream stream, C_Event event) {
  count(kStreamWaitEvent);
  const auto marks = event->marks;
  const uint64_t mark = marks->recorded();
  submit(queue_of(device_of(device->id), stream), [=] { marks->wait(mark); });
  return outcome();
}

// Events as in plugins that have none, such as Paddle's for Iluvatar: to record one and to have a stream wait for one
// are to wait for that stream, and to wait for an event is to wait for the device. None can be asked whether it has
// passed, so Paddle waits for it instead.

C_Status record_event_blocking(const C_Device device, C_Stream stream, C_Event event) {
  const C_Status status = record_event(device, stream, event);
  queue_of(device_of(device->id), stream)->drain();
  return status;
}

C_Status stream_wait_event_blocking(const C_Device device, C_Stream stream, C_Event) {
  count(kStreamWaitEvent);
  queue_of(device_of(device->id), stream)->drain();
  return outcome();
}

C_Status synchronize_event_blocking(const C_Device device, C_Event) {
  count(kSynchronizeEvent);
  device_of(device->id).drain();
  return outcome();
}

// Memory.

C_Status allocate(const C_Device device, void** memory, size_t bytes) {
  *memory = device_of(device->id).allocate(bytes);
  // Paddle says that the device is out of memory if the call succeeds and gives nothing.
  if (*memory == nullptr && settings().allocation_error) return C_ERROR;
  return outcome();
}

C_Status release(const C_Device device, void* memory, size_t) {
  device_of(device->id).release(memory);
  return C_SUCCESS;
}

C_Status allocate_host(const C_Device, void** memory, size_t bytes) {
  *memory = std::malloc(bytes);
  return *memory != nullptr ? outcome() : C_FAILED;
}

C_Status release_host(const C_Device, void* memory, size_t) {
  std::free(memory);
  return C_SUCCESS;
}

C_Status set_memory(const C_Device device, void* memory, unsigned char value, size_t bytes) {
  count(kMemset);
  return perform(device, [=] { std::memset(memory, value ^ kScrambled, bytes); });
}

C_Status memory_stats(const C_Device device, size_t* total, size_t* free) {
  *total = device_of(device->id).total_bytes();
  *free = device_of(device->id).free_bytes();
  return outcome();
}

C_Status min_chunk_size(const C_Device, size_t* bytes) {
  *bytes = 512;
  return C_SUCCESS;
}

C_Status copy_h2d(const C_Device device, void* to, const void* from, size_t bytes) {
  count_h2d(bytes);
  return perform(device, [=] { copy_scrambled(to, from, bytes); });
}

C_Status copy_d2h(const C_Device device, void* to, const void* from, size_t bytes) {
  count_d2h(bytes);
  return perform(device, [=] { copy_scrambled(to, from, bytes); });
}

C_Status copy_d2d(const C_Device device, void* to, const void* from, size_t bytes) {
  count(kD2d);
  return perform(device, [=] { std::memmove(to, from, bytes); });
}

C_Status copy_p2p(const C_Device, const C_Device source, void* to, const void* from, size_t bytes) {
  return copy_d2d(source, to, from, bytes);
}

C_Status async_copy_h2d(const C_Device device, C_Stream stream, void* to, const void* from, size_t bytes) {
  count_h2d(bytes);
  count(kH2dQueued);
  Device& own = device_of(device->id);
  const auto queue = queue_of(own, stream);
  if (own.is_default(queue)) {
    const auto* const source = static_cast<const char*>(from);
    const auto staged = std::make_shared<const std::vector<char>>(source, source + bytes);
    submit(queue, [=] { copy_scrambled(to, staged->data(), bytes); });
  } else {
    submit(queue, [=] {
      if (bytes >= settings().copy_bytes) sleep_ms(settings().copy_ms);
      copy_scrambled(to, from, bytes);
    });
  }
  return outcome();
}

C_Status async_copy_d2h(const C_Device device, C_Stream stream, void* to, const void* from, size_t bytes) {
  count_d2h(bytes);
  count(kD2hQueued);
  const auto queue = queue_of(device_of(device->id), stream);
  submit(queue, [=] { copy_scrambled(to, from, bytes); });
  queue->drain();
  return outcome();
}

C_Status async_copy_d2d(const C_Device device, C_Stream stream, void* to, const void* from, size_t bytes) {
  count(kD2d);
  count(kD2dQueued);
  submit(queue_of(device_of(device->id), stream), [=] { std::memmove(to, from, bytes); });
  return outcome();
}

C_Status async_copy_p2p(
    const C_Device, const C_Device source, C_Stream stream, void* to, const void* from, size_t bytes) {
  return async_copy_d2d(source, stream, to, from, bytes);
}

// Collectives.

C_Status unique_id_size(size_t* bytes) {
  *bytes = kIdBytes;
  return C_SUCCESS;
}

C_Status unique_id(C_CCLRootId* id) {
  const std::string text = Group::make_id();
  if (text.empty() || text.size() >= kIdBytes) return C_FAILED;
  std::memset(id->data, 0, kIdBytes);
  std::memcpy(id->data, text.data(), text.size());
  id->sz = kIdBytes;
  return C_SUCCESS;
}

C_Status join_ranks(size_t ranks, C_CCLRootId* id, size_t rank, C_CCLComm* comm) {
  const std::string text(static_cast<const char*>(id->data));
  auto group = Group::join(text, ranks, rank);
  if (group == nullptr) return C_FAILED;
  *comm = new C_CCLComm_st{std::move(group), text, &device_of(current_device)};
  return outcome();
}

C_Status leave_ranks(C_CCLComm comm) {
  delete comm;
  return C_SUCCESS;
}

C_Status comm_name(C_CCLComm comm, char* name) {
  std::memcpy(name, comm->id.c_str(), comm->id.size() + 1);
  return C_SUCCESS;
}

// Queue a collective; `work` gets the group.
template <class Work>
C_Status collective(C_CCLComm comm, C_Stream stream, Work work) {
  const uint64_t number = count(kCollectives);
  if (has_begun(Failure::kCollectiveError, number)) return C_FAILED;
  const bool hangs = has_begun(Failure::kCollectiveHang, number);
  submit(queue_of(*comm->device, stream), [=, group = comm->group] {
    if (hangs) hang();
    work(*group);
  });
  return outcome();
}

C_Status all_reduce(void* send,
                    void* receive,
                    size_t elements,
                    C_DataType type,
                    C_CCLReduceOp operation,
                    C_CCLComm comm,
                    C_Stream stream) {
  const Reduction reduce = reduction(type);
  if (reduce == nullptr) return C_ERROR;
  return collective(comm, stream, [=](Group& group) {
    group.exchange(send, elements * width(type), [&](size_t begin, size_t bytes) {
      reduce(group, operation, static_cast<char*>(receive) + begin, bytes);
    });
  });
}

C_Status reduce_to_root(void* send,
                        void* receive,
                        size_t elements,
                        C_DataType type,
                        C_CCLReduceOp operation,
                        size_t root,
                        C_CCLComm comm,
                        C_Stream stream) {
  const Reduction reduce = reduction(type);
  if (reduce == nullptr) return C_ERROR;
  return collective(comm, stream, [=](Group& group) {
    group.exchange(send, elements * width(type), [&](size_t begin, size_t bytes) {
      if (group.rank() == root) reduce(group, operation, static_cast<char*>(receive) + begin, bytes);
    });
  });
}

C_Status reduce_scatter(void* send,
                        void* receive,
                        size_t elements,
                        C_DataType type,
                        C_CCLReduceOp operation,
                        C_CCLComm comm,
                        C_Stream stream) {
  const Reduction reduce = reduction(type);
  if (reduce == nullptr) return C_ERROR;
  return collective(comm, stream, [=](Group& group) {
    const size_t part = elements * width(type);
    for (size_t rank = 0; rank < group.ranks(); ++rank) {
      group.exchange(static_cast<const char*>(send) + rank * part, part, [&](size_t begin, size_t bytes) {
        if (group.rank() == rank) reduce(group, operation, static_cast<char*>(receive) + begin, bytes);
      });
    }
  });
}

C_Status broadcast(void* buffer, size_t elements, C_DataType type, size_t root, C_CCLComm comm, C_Stream stream) {
  if (width(type) == 0) return C_ERROR;
  return collective(comm, stream, [=](Group& group) {
    const void* const shown = group.rank() == root ? buffer : nullptr;
    group.exchange(shown, elements * width(type), [&](size_t begin, size_t bytes) {
      if (group.rank() != root) copy_scrambled(static_cast<char*>(buffer) + begin, group.slot(root), bytes);
    });
  });
}

// Complete when the call returns, because Paddle splits the result among the tensors of a list by code of the host that
// doesn't wait for the stream.
C_Status all_gather(void* send, void* receive, size_t elements, C_DataType type, C_CCLComm comm, C_Stream stream) {
  if (width(type) == 0) return C_ERROR;
  const C_Status status = collective(comm, stream, [=](Group& group) {
    const size_t part = elements * width(type);
    group.exchange(send, part, [&](size_t begin, size_t bytes) {
      for (size_t rank = 0; rank < group.ranks(); ++rank) {
        copy_scrambled(static_cast<char*>(receive) + rank * part + begin, group.slot(rank), bytes);
      }
    });
  });
  queue_of(*comm->device, stream)->drain();
  return status == C_SUCCESS ? outcome() : status;
}

}  // namespace
}  // namespace standin

extern "C" void InitPlugin(CustomRuntimeParams* params) {
  using namespace standin;
  PADDLE_CUSTOM_RUNTIME_CHECK_VERSION(params);
  static std::string* const name = new std::string(variable("STANDIN_NAME", "standin"));
  static char sub_type[] = "stand-in";
  params->device_type = name->data();
  params->sub_device_type = sub_type;

  C_DeviceInterface* const calls = params->interface;
  const size_t size = calls->size;
  std::memset(static_cast<void*>(calls), 0, size);
  calls->size = size;

  calls->initialize = succeed;
  calls->finalize = succeed;
  calls->init_device = nothing_to_do;
  calls->deinit_device = nothing_to_do;
  calls->set_device = set_device;
  calls->get_device = get_device;
  calls->get_device_count = get_device_count;
  calls->get_device_list = get_device_list;
  calls->synchronize_device = synchronize_device;
  calls->get_compute_capability = version_one;
  calls->get_runtime_version = version_one;
  calls->get_driver_version = version_one;
  calls->is_float16_supported = supported;
  calls->is_bfloat16_supported = supported;

  calls->create_stream = create_stream;
  calls->destroy_stream = destroy_stream;
  calls->query_stream = query_stream;
  calls->synchronize_stream = synchronize_stream;
  calls->stream_add_callback = add_callback;
  calls->stream_wait_event = stream_wait_event;
  calls->create_event = create_event;
  calls->destroy_event = destroy_event;
  calls->record_event = record_event;
  calls->query_event = query_event;
  calls->synchronize_event = synchronize_event;

  if (number("STANDIN_BLOCKING_EVENTS", 0) != 0) {
    calls->query_stream = nullptr;
    calls->query_event = nullptr;
    calls->record_event = record_event_blocking;
    calls->stream_wait_event = stream_wait_event_blocking;
    calls->synchronize_event = synchronize_event_blocking;
  }

  calls->device_memory_allocate = allocate;
  calls->device_memory_deallocate = release;
  calls->host_memory_allocate = allocate_host;
  calls->host_memory_deallocate = release_host;
  calls->device_memory_set = set_memory;
  calls->device_memory_stats = memory_stats;
  calls->device_min_chunk_size = min_chunk_size;
  calls->memory_copy_h2d = copy_h2d;
  calls->memory_copy_d2h = copy_d2h;
  calls->memory_copy_d2d = copy_d2d;
  calls->memory_copy_p2p = copy_p2p;
  calls->async_memory_copy_h2d = async_copy_h2d;
  calls->async_memory_copy_d2h = async_copy_d2h;
  calls->async_memory_copy_d2d = async_copy_d2d;
  calls->async_memory_copy_p2p = async_copy_p2p;

  calls->xccl_get_unique_id_size = unique_id_size;
  calls->xccl_get_unique_id = unique_id;
  calls->xccl_comm_init_rank = join_ranks;
  calls->xccl_destroy_comm = leave_ranks;
  calls->xccl_get_comm_name = comm_name;
  calls->xccl_all_reduce = all_reduce;
  calls->xccl_reduce = reduce_to_root;
  calls->xccl_reduce_scatter = reduce_scatter;
  calls->xccl_broadcast = broadcast;
  calls->xccl_all_gather = all_gather;
  calls->xccl_group_start = succeed;
  calls->xccl_group_end = succeed;
}
