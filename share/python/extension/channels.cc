// Channels of messages: a pickle and the buffers that it left out (pickle protocol 5).
//
// A message begins with its number of buffers.  If that is not 0, the sizes of the pickle and of
// each buffer follow.  Then come the pickle and the buffers.  Each buffer is aligned to kAlignment.
#include <Python.h>
#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <structmember.h>
#include <sys/mman.h>
#include <unistd.h>
#include <unordered_map>
#include <utility>
#include <vector>

#include <cowshed/base/arch/arch.h>
#include <cowshed/share/channel.h>
#include <cowshed/share/python/extension/buffers.h>
#include <cowshed/share/python/extension/errors.h>
#include <cowshed/share/python/extension/freezing/object.h>
#include <cowshed/share/python/extension/methods.h>

namespace cowshed::python {
namespace {

using std::chrono::duration_cast;
using Clock = Wait::Clock;

constexpr std::uint64_t kWord = sizeof(std::uint64_t);
using arch::kHugePage;

constexpr std::size_t kManyBytes = 1U << 20U;  // copied without the GIL

constexpr std::size_t aligned(std::size_t offset) {
  return (offset + Bytes::kAlignment - 1) / Bytes::kAlignment * Bytes::kAlignment;
}

// Only the main thread runs Python's signal handlers; it looks for signals this often.
constexpr std::chrono::milliseconds kBetweenSignals{100};

bool is_over(const Error& error) {
  return error.code == ErrorCode::would_block || error.code == ErrorCode::timed_out;
}

// Calls `attempt(wait)` until it succeeds, fails, or the time is over; negative: for ever.  Waits
// without the GIL.  nullopt: a signal handler raised an exception.
template <class Attempt>
auto call_waiting(double seconds, const Attempt& attempt)
    -> std::optional<decltype(attempt(Wait::never()))> {
  const auto try_once = [&](const Wait& wait) -> decltype(attempt(wait)) {
    try {
      return attempt(wait);
    } catch (const std::bad_alloc&) {  // must not pass through Python
      return make_error(ErrorCode::out_of_memory, "there is no memory for the message");
    }
  };
  auto result = try_once(Wait::never());
  const auto may_pass = [](const Error& error) {
    return is_over(error) || error.code == ErrorCode::peer_stopped;
  };
  if (result || !may_pass(result.error()) || seconds == 0) return result;
  const bool for_ever = seconds < 0 || seconds > 1e9;
  const auto end =
      for_ever
          ? Clock::time_point::max()
          : Clock::now() + duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  const bool is_main = ::getpid() == ::gettid();
  for (;;) {
    const auto now = Clock::now();
    const auto until = is_main && end - now > kBetweenSignals ? now + kBetweenSignals : end;
    Py_BEGIN_ALLOW_THREADS;
    result = try_once(for_ever && !is_main ? Wait() : Wait(until));
    Py_END_ALLOW_THREADS;
    if (result) return result;
    if (!may_pass(result.error())) return result;
    if (is_main && PyErr_CheckSignals() != 0) return std::nullopt;
    if (Clock::now() >= end) return result;
  }
}

// The sizes of the parts of a message, and where they lie in it.
struct Plan {
  std::vector<std::size_t> sizes;  // of the pickle and of the buffers
  std::vector<std::size_t> offsets;
  std::size_t total = 0;

  explicit Plan(std::vector<std::size_t> of_parts) : sizes(std::move(of_parts)) {
    total = sizes.size() == 1 ? kWord : (1 + sizes.size()) * kWord;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      if (i > 0) total = aligned(total);
      offsets.push_back(total);
      total += sizes[i];
    }
  }

  void write_header(std::byte* to) const {
    const std::uint64_t buffers = sizes.size() - 1;
    std::memcpy(to, &buffers, kWord);
    for (std::size_t i = 0; buffers > 0 && i < sizes.size(); ++i) {
      const std::uint64_t size = sizes[i];
      std::memcpy(to + (1 + i) * kWord, &size, kWord);
    }
  }

  // nullopt: no message of this module.
  static std::optional<Plan> read(std::span<const std::byte> message) {
    std::uint64_t buffers = 0;
    if (message.size() < kWord) return std::nullopt;
    std::memcpy(&buffers, message.data(), kWord);
    if (buffers == 0) return Plan({message.size() - kWord});
    if (buffers >= message.size() / kWord - 1) return std::nullopt;
    std::vector<std::size_t> sizes(buffers + 1);
    std::memcpy(sizes.data(), message.data() + kWord, sizes.size() * kWord);
    for (const std::size_t size : sizes)
      if (size > message.size()) return std::nullopt;
    Plan plan(std::move(sizes));
    return plan.total == message.size() ? std::optional(std::move(plan)) : std::nullopt;
  }
};

struct Free {
  void operator()(std::byte* memory) const { std::free(memory); }
};

// A received message.  Its memoryviews keep it.  A message with buffers is copied: a forked child
// must have its own, and objects that the program keeps must not take the channel's memory.
struct MessageObject {
  PyObject head;
  std::unique_ptr<std::byte, Free> copy;
  std::size_t size;
  Bytes bytes;

  std::span<std::byte> span() { return {copy ? copy.get() : bytes.data(), size}; }
};

struct ChannelObject {
  PyObject head;
  std::optional<Channel<Bytes>> channel;
  std::unordered_map<std::string, internal::TransferRow> rows;
};

PyTypeObject* message_type = nullptr;

MessageObject* as_message(PyObject* object) { return reinterpret_cast<MessageObject*>(object); }
ChannelObject* as_channel(PyObject* object) { return reinterpret_cast<ChannelObject*>(object); }

template <class T>
void deallocate(PyObject* object) {
  PyTypeObject* const type = Py_TYPE(object);
  std::destroy_at(reinterpret_cast<T*>(object));
  type->tp_free(object);
  Py_DECREF(type);
}

std::byte* memory_for(std::size_t size) {
  constexpr std::size_t kMapped = 32U << 20U;  // malloc() takes no more than this from a heap
  if (size < kMapped)
    return static_cast<std::byte*>(std::aligned_alloc(Bytes::kAlignment, aligned(size)));
  void* const memory = std::aligned_alloc(kHugePage, (size / kHugePage + 1) * kHugePage);
  if (memory != nullptr) ::madvise(memory, size / kHugePage * kHugePage, MADV_HUGEPAGE);
  return static_cast<std::byte*>(memory);
}

// Gives back each piece that it has copied, so that a large message never takes its size twice.
void move_out(Bytes& message, std::byte* to) {
  constexpr std::size_t kPiece = 16U << 20U;  // a block of this size keeps no memory anyway
  for (std::size_t at = 0; at < message.size(); at += kPiece) {
    const std::size_t bytes = std::min(kPiece, message.size() - at);
    std::memcpy(to + at, message.data() + at, bytes);
    if (bytes == kPiece) ::madvise(message.data() + at, bytes, MADV_REMOVE);
  }
}

PyObject* message_of(Bytes&& bytes, bool has_buffers) {
  PyObject* const object = message_type->tp_alloc(message_type, 0);
  if (object == nullptr) return nullptr;
  MessageObject& message = *as_message(object);
  new (&message.copy) std::unique_ptr<std::byte, Free>();
  new (&message.bytes) Bytes(std::move(bytes));
  message.size = message.bytes.size();
  if (!has_buffers) return object;
  message.copy.reset(memory_for(message.size));
  if (!message.copy) {
    Py_DECREF(object);
    return PyErr_NoMemory();
  }
  PyThreadState* const others = message.size >= kManyBytes ? PyEval_SaveThread() : nullptr;
  move_out(message.bytes, message.copy.get());
  if (others != nullptr) PyEval_RestoreThread(others);
  message.bytes = Bytes();
  return object;
}

int message_buffer(PyObject* object, Py_buffer* view, int flags) {
  const std::span<std::byte> bytes = as_message(object)->span();
  return PyBuffer_FillInfo(view, object, bytes.data(), static_cast<Py_ssize_t>(bytes.size()), 0,
                           flags);
}

// (pickle, [buffer, ...]), as views of the message.
PyObject* message_parts(PyObject* object, PyObject*) {
  const auto plan = Plan::read(as_message(object)->span());
  if (!plan) {
    return raise({ErrorCode::bad_encoding, 0,
                  "a message of this channel was not sent by a cowshed queue of Python"});
  }
  const Object whole(PyMemoryView_FromObject(object));
  Object pickle;
  Object buffers(PyList_New(0));
  for (std::size_t i = 0; whole && buffers && i < plan->sizes.size(); ++i) {
    const auto offset = static_cast<Py_ssize_t>(plan->offsets[i]);
    Object part(
        PySequence_GetSlice(whole.get(), offset, offset + static_cast<Py_ssize_t>(plan->sizes[i])));
    if (!part) return nullptr;
    if (i == 0) pickle = std::move(part);
    else if (PyList_Append(buffers.get(), part.get()) != 0) return nullptr;
  }
  if (!pickle) return nullptr;
  return PyTuple_Pack(2, pickle.get(), buffers.get());
}

PyObject* take_channel(PyTypeObject* type, Expected<Channel<Bytes>> channel) {
  if (!channel) return raise(channel.error());
  PyObject* const object = type->tp_alloc(type, 0);
  if (object == nullptr) return nullptr;
  new (&as_channel(object)->channel) std::optional<Channel<Bytes>>(*std::move(channel));
  new (&as_channel(object)->rows) std::unordered_map<std::string, internal::TransferRow>();
  return object;
}

// Channel(name, slots, memory)
PyObject* channel_new(PyTypeObject* type, PyObject* arguments, PyObject*) {
  const char* name = nullptr;
  Py_ssize_t slots = 0;
  unsigned long long memory = 0;
  if (!PyArg_ParseTuple(arguments, "snK", &name, &slots, &memory)) return nullptr;
  return take_channel(
      type, Channel<Bytes>::create(
                {.name = name, .slots = static_cast<std::size_t>(slots), .memory = memory}));
}

PyObject* channel_from_descriptors(PyObject* type, PyObject* arguments) {
  ChannelDescriptors descriptors;
  if (!PyArg_ParseTuple(arguments, "ii", &descriptors.segment, &descriptors.event)) return nullptr;
  return take_channel(reinterpret_cast<PyTypeObject*>(type),
                      Channel<Bytes>::from_descriptors(descriptors));
}

const internal::TransferRow& row_of(ChannelObject& self, const char* type) {
  const auto found = self.rows.find(type);
  if (found != self.rows.end()) return found->second;
  return self.rows.emplace(type, self.channel->internals().segment().row(type, TransferKind::value))
      .first->second;
}

Plan plan_of(const Buffers& parts) {
  std::vector<std::size_t> sizes;
  for (const Py_buffer& view : parts.views()) sizes.push_back(static_cast<std::size_t>(view.len));
  return Plan(std::move(sizes));
}

void write(const Buffers& parts, const Plan& plan, std::byte* to) {
  plan.write_header(to);
  for (std::size_t i = 0; i < plan.sizes.size(); ++i)
    std::memcpy(to + plan.offsets[i], parts.views()[i].buf, plan.sizes[i]);
}

PyObject* sent(const std::optional<Expected<void>>& result) {
  if (!result) return nullptr;
  if (*result) Py_RETURN_TRUE;
  if (is_over(result->error())) Py_RETURN_FALSE;
  return raise(result->error());
}

// send(parts, type, seconds) -> whether there was room in time.  parts: the pickle, and buffers.
PyObject* channel_send(PyObject* object, PyObject* arguments) {
  PyObject* parts = nullptr;
  const char* type = nullptr;
  double seconds = 0;
  if (!PyArg_ParseTuple(arguments, "O!sd", &PyList_Type, &parts, &type, &seconds)) return nullptr;
  if (PyList_GET_SIZE(parts) == 0) {
    PyErr_SetString(PyExc_ValueError, "a message has at least one part");
    return nullptr;
  }
  Buffers buffers;
  if (!buffers.add(parts, PyBUF_ANY_CONTIGUOUS)) return nullptr;
  ChannelObject& self = *as_channel(object);
  internal::ByteChannel& channel = self.channel->internals();
  const internal::TransferRow& row = row_of(self, type);
  const Plan plan = plan_of(buffers);
  if (plan.total <= Bytes::kSmall) {
    std::array<std::byte, Bytes::kSmall> small;
    write(buffers, plan, small.data());
    return sent(call_waiting(seconds, [&](const Wait& wait) {
      return channel.send(std::span<const std::byte>(small.data(), plan.total), wait, &row);
    }));
  }
  if (self.channel->closed()) return raise(channel.segment().closed_error().value());
  const auto begin = Clock::now();
  auto loan =
      call_waiting(seconds, [&](const Wait& wait) { return channel.loan(plan.total, wait); });
  if (!loan) return nullptr;
  if (!*loan) return is_over(loan->error()) ? Py_NewRef(Py_False) : raise(loan->error());
  Bytes message = **std::move(loan);
  if (plan.total >= kManyBytes) {
    Py_BEGIN_ALLOW_THREADS;
    write(buffers, plan, message.data());
    Py_END_ALLOW_THREADS;
  } else {
    write(buffers, plan, message.data());
  }
  const std::chrono::duration<double> took = Clock::now() - begin;
  const double left = seconds < 0 ? seconds : std::max(0.0, seconds - took.count());
  return sent(call_waiting(
      left, [&](const Wait& wait) { return channel.send(std::move(message), wait, &row); }));
}

// receive(seconds) -> bytes, a Message, or None if nothing came in time.
PyObject* channel_receive(PyObject* object, PyObject* argument) {
  const double seconds = PyFloat_AsDouble(argument);
  if (seconds == -1 && PyErr_Occurred() != nullptr) return nullptr;
  Channel<Bytes>& channel = *as_channel(object)->channel;
  auto received = call_waiting(seconds, [&](const Wait& wait) { return channel.receive(wait); });
  if (!received) return nullptr;
  if (!*received) {
    if (is_over(received->error())) Py_RETURN_NONE;
    return raise(received->error());
  }
  Bytes bytes = **std::move(received);
  std::uint64_t buffers = 1;
  if (bytes.size() >= kWord) std::memcpy(&buffers, bytes.data(), kWord);
  if (!bytes.in_channel() && buffers == 0) {
    return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(bytes.data() + kWord),
                                     static_cast<Py_ssize_t>(bytes.size() - kWord));
  }
  return message_of(std::move(bytes), buffers > 0);
}

PyObject* channel_close(PyObject* object, PyObject*) {
  as_channel(object)->channel->close();
  Py_RETURN_NONE;
}

PyObject* channel_closed(PyObject* object, PyObject*) {
  return PyBool_FromLong(as_channel(object)->channel->closed());
}

PyObject* channel_descriptor(PyObject* object, PyObject*) {
  const auto descriptor = as_channel(object)->channel->descriptor();
  return descriptor ? PyLong_FromLong(*descriptor) : raise(descriptor.error());
}

// Makes the descriptor unreadable if the channel is empty.
PyObject* channel_settle(PyObject* object, PyObject*) {
  internal::ChannelSegment& segment = as_channel(object)->channel->internals().segment();
  if (!segment.has_message() && !segment.closed() && segment.join(true)) {
    const Wait never = Wait::never();
    (void)internal::Waiting(segment, never, internal::Waiting::For::message).drain_event();
  }
  Py_RETURN_NONE;
}

PyObject* channel_descriptors(PyObject* object, PyObject*) {
  const ChannelDescriptors descriptors = as_channel(object)->channel->descriptors();
  return Py_BuildValue("ii", descriptors.segment, descriptors.event);
}

// (messages that wait, slots)
PyObject* channel_fill(PyObject* object, PyObject*) {
  Channel<Bytes>& channel = *as_channel(object)->channel;
  const ChannelStats stats = channel.stats();
  return Py_BuildValue("KK", stats.sent - std::min(stats.sent, stats.received),
                       static_cast<unsigned long long>(channel.options().slots));
}

PyObject* channel_name(PyObject* object, void*) {
  return PyUnicode_FromString(as_channel(object)->channel->name().c_str());
}

PyMethodDef message_methods[] = {{"parts", message_parts, METH_NOARGS, nullptr},
                                 {nullptr, nullptr, 0, nullptr}};
PyType_Slot message_slots[] = {{Py_tp_dealloc, reinterpret_cast<void*>(deallocate<MessageObject>)},
                               {Py_tp_methods, message_methods},
                               {Py_bf_getbuffer, reinterpret_cast<void*>(message_buffer)},
                               {0, nullptr}};
PyType_Spec message_spec = {"cowshed._cowshed.Message", sizeof(MessageObject), 0,
                            Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, message_slots};

PyMethodDef channel_methods[] = {
    {"from_descriptors", channel_from_descriptors, METH_VARARGS | METH_CLASS, nullptr},
    {"send", channel_send, METH_VARARGS, nullptr},
    {"receive", channel_receive, METH_O, nullptr},
    {"close", channel_close, METH_NOARGS, nullptr},
    {"closed", channel_closed, METH_NOARGS, nullptr},
    {"descriptor", channel_descriptor, METH_NOARGS, nullptr},
    {"settle", channel_settle, METH_NOARGS, nullptr},
    {"descriptors", channel_descriptors, METH_NOARGS, nullptr},
    {"fill", channel_fill, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr}};
PyGetSetDef channel_properties[] = {{"name", channel_name, nullptr, nullptr, nullptr},
                                    {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyType_Slot channel_slots[] = {{Py_tp_new, reinterpret_cast<void*>(channel_new)},
                               {Py_tp_dealloc, reinterpret_cast<void*>(deallocate<ChannelObject>)},
                               {Py_tp_methods, channel_methods},
                               {Py_tp_getset, channel_properties},
                               {0, nullptr}};
PyType_Spec channel_spec = {"cowshed._cowshed.Channel", sizeof(ChannelObject), 0,
                            Py_TPFLAGS_DEFAULT, channel_slots};

}  // namespace

int add_channel_types(PyObject* module) {
  message_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&message_spec));
  const Object channel(PyType_FromSpec(&channel_spec));
  if (message_type == nullptr || !channel) return -1;
  return PyModule_AddObjectRef(module, "Channel", channel.get());
}

}  // namespace cowshed::python
