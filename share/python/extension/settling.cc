// Settling the heap, with pymalloc's arenas.
#include <Python.h>
#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <memory_resource>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include <cowshed/base/arch/arch.h>
#include <cowshed/base/size_literals.h>
#include <cowshed/base/try.h>
#include <cowshed/share/python/extension/buffers.h>
#include <cowshed/share/python/extension/errors.h>
#include <cowshed/share/python/extension/freezing/object.h>
#include <cowshed/share/python/extension/methods.h>
#include <cowshed/share/settle.h>
#include <cowshed/share/settle/mappings.h>
#include <cowshed/share/settle/pages.h>
#include <cowshed/share/settle/plan.h>

namespace cowshed::python {
namespace {

using namespace size_literals;
using arch::kPage;
using settling::Range;
using Memory = std::vector<std::span<const std::byte>>;

constexpr std::size_t kPool = 16_KiB;  // POOL_SIZE of pycore_obmalloc.h

// struct pool_header, from Python 3.10 to 3.15.
struct PoolHeader {
  std::uint32_t count;
  std::uint32_t padding;
  std::uint64_t free_block;
  std::uint64_t next;
  std::uint64_t previous;
  std::uint32_t arena;
  std::uint32_t size_index;
  std::uint32_t next_offset;
  std::uint32_t last_offset;

  bool is_at(std::uintptr_t pool) const {
    constexpr std::size_t kUnit = 16;
    constexpr std::size_t kLargest = 512;
    constexpr std::uint32_t kNoIndex = 0xffff;  // of a free pool
    if (last_offset >= kPool || last_offset % kUnit != 0 || last_offset < kPool - kLargest)
      return false;
    const std::size_t size = kPool - last_offset;
    const auto is_block = [size](std::uint64_t offset) {
      return offset >= sizeof(PoolHeader) && offset <= kPool &&
             (offset - sizeof(PoolHeader)) % size == 0;
    };
    return (size_index == size / kUnit - 1 || (size_index == kNoIndex && count == 0)) &&
           count <= (kPool - sizeof(PoolHeader)) / size && is_block(next_offset) &&
           (free_block == 0 || is_block(free_block - pool));
  }
};

// Finds pymalloc's memory by the headers of its pools.  Pages around them that nobody has written
// belong to it or to nobody.
class PoolFinder {
 public:
  explicit PoolFinder(const settling::OwnPages& pages) : pages_(pages) {}

  void search(const settling::Mapping& mapping) {
    // Others reserve much more than they use.
    constexpr std::size_t kMostToSearch = 1_GiB;
    if (!mapping.is_anonymous || !mapping.name.empty() || !mapping.obstacle.empty() ||
        mapping.own == 0 || mapping.range.size() > kMostToSearch + 16 * mapping.resident) {
      return;
    }
    Range run;
    const std::uintptr_t first = (mapping.range.begin + kPool - 1) / kPool * kPool;
    for (std::uintptr_t pool = first; pool + kPool <= mapping.range.end; pool += kPool) {
      std::array<std::uint64_t, kPool / kPage> there;
      if (pages_.look(pool, there) != 0) break;
      if (there[0] != 0 && is_pool(pool)) {
        if (run.size() == 0) run.begin = pool;
        run.end = pool + kPool;
      } else if (std::ranges::any_of(there, [](std::uint64_t page) { return page != 0; })) {
        end(run);
      }
    }
    end(run);
  }

  // In ranges as settle() divides a heap: each gets a memfd.
  Memory ranges() const {
    std::size_t total = 0;
    for (const Range& run : runs_) total += run.size();
    const std::size_t most = settling::file_bytes(total);
    Memory ranges;
    for (Range run : runs_)
      for (; run.size() > 0; run.begin += std::min(most, run.size()))
        ranges.emplace_back(reinterpret_cast<const std::byte*>(run.begin),
                            std::min(most, run.size()));
    return ranges;
  }

 private:
  bool is_pool(std::uintptr_t address) const {
    std::array<std::uint64_t, sizeof(PoolHeader) / sizeof(std::uint64_t)> words;
    return pages_.peek(address, words) && std::bit_cast<PoolHeader>(words).is_at(address);
  }

  void end(Range& run) {
    constexpr std::size_t kLeast = 256_KiB;  // less is not worth a mapping
    if (run.size() >= kLeast) runs_.push_back(run);
    run = {};
  }

  const settling::OwnPages& pages_;
  std::vector<Range> runs_;
};

Expected<Memory> find_pools() {
  settling::PlanMemory memory;
  std::pmr::monotonic_buffer_resource buffer(1_MiB, &memory);
  TRY(const settling::Mappings mappings, settling::private_mappings(&buffer));
  TRY(const settling::OwnPages pages, settling::OwnPages::open());
  PoolFinder finder(pages);
  for (const settling::Mapping& mapping : mappings) finder.search(mapping);
  return finder.ranges();
}

Memory memory_of(const Buffers& buffers) {
  Memory memory;
  for (const Py_buffer& view : buffers.views())
    memory.emplace_back(static_cast<const std::byte*>(view.buf),
                        static_cast<std::size_t>(view.len));
  return memory;
}

const char* name_of(SettledKind kind) {
  switch (kind) {
    case SettledKind::main_heap: return "malloc's main heap";
    case SettledKind::thread_heap: return "malloc's heaps of threads";
    case SettledKind::large_blocks: return "malloc's large blocks";
    case SettledKind::named: return "pymalloc's arenas";
  }
  return "";
}

// Adds to dict[key].
bool add_bytes(PyObject* dict, const char* key, std::size_t bytes) {
  const Object name(PyUnicode_FromString(key));
  PyObject* const before = name ? PyDict_GetItemWithError(dict, name.get()) : nullptr;
  const Object sum(PyLong_FromSize_t(bytes + (before ? PyLong_AsSize_t(before) : 0)));
  return !PyErr_Occurred() && PyDict_SetItem(dict, name.get(), sum.get()) == 0;
}

// Puts this module's names of the options into a message of the C++ library.
std::string in_python(std::string text) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kNames = {{
      {".threads = OtherThreads::stop", "threads=\"stop\""},
      {".stop_timeout", "stop_timeout"},
      {".io_is_at_rest", "io_is_at_rest=True"},
      {".leave", "leave"},
  }};
  for (const auto& [theirs, ours] : kNames)
    if (const auto at = text.find(theirs); at != text.npos) text.replace(at, theirs.size(), ours);
  return text;
}

double seconds(std::chrono::nanoseconds time) {
  return std::chrono::duration<double>(time).count();
}

// settle(leave, stop, stop_timeout, io_is_at_rest, keep_in_core_dumps, huge_pages, time_fork)
PyObject* settle_heap(PyObject*, PyObject* arguments) {
  PyObject* leave = nullptr;
  int stop = 0;
  double timeout = 0;
  int io_is_at_rest = 0;
  int keep_in_core_dumps = 0;
  int huge_pages = 0;
  int time_fork = 0;
  if (!PyArg_ParseTuple(arguments, "O!pdpppp", &PyList_Type, &leave, &stop, &timeout,
                        &io_is_at_rest, &keep_in_core_dumps, &huge_pages, &time_fork)) {
    return nullptr;
  }
  try {
    Buffers left;
    if (!left.add(leave, PyBUF_SIMPLE)) return nullptr;
    auto pools = find_pools();
    if (!pools) return raise(pools.error());
    const SettleOptions options = {
        .also = *std::move(pools),
        .leave = memory_of(left),
        .threads = stop != 0 ? OtherThreads::stop : OtherThreads::refuse,
        .stop_timeout = std::chrono::milliseconds(std::llround(timeout * 1000)),
        .io_is_at_rest = io_is_at_rest != 0,
        .keep_in_core_dumps = keep_in_core_dumps != 0,
        .huge_pages = huge_pages != 0,
        .time_fork = time_fork != 0};
    // With the GIL: nobody frees an arena meanwhile.
    auto settled = settle(options);
    if (!settled) {
      settled.error().message = in_python(settled.error().message);
      return raise(settled.error());
    }
    const Object by_kind(PyDict_New());
    const Object by_reason(PyDict_New());
    if (!by_kind || !by_reason) return nullptr;
    for (const MovedMemory& moved : settled->moved)
      if (!add_bytes(by_kind.get(), name_of(moved.kind), moved.memory.size())) return nullptr;
    for (const LeftMemory& each : settled->left)
      if (!add_bytes(by_reason.get(), in_python(each.reason).c_str(), each.memory.size()))
        return nullptr;
    const auto fork_seconds = [&](const auto& time) {
      return time ? PyFloat_FromDouble(seconds(*time)) : Py_NewRef(Py_None);
    };
    return Py_BuildValue("OOnnnddnnNN", by_kind.get(), by_reason.get(), settled->moved_bytes,
                         settled->copied_bytes, settled->huge_page_bytes, seconds(settled->time),
                         seconds(settled->longest_pause), settled->page_tables_before,
                         settled->page_tables_after, fork_seconds(settled->fork_before),
                         fork_seconds(settled->fork_after));
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
}

// collapse_heap(most_added, cpu_share).  Without the GIL: other threads run on.
PyObject* collapse(PyObject*, PyObject* arguments) {
  CollapseOptions options;
  if (!PyArg_ParseTuple(arguments, "dd", &options.most_added, &options.cpu_share)) return nullptr;
  Expected<Collapsed> collapsed;
  Py_BEGIN_ALLOW_THREADS collapsed = collapse_heap(options);
  Py_END_ALLOW_THREADS if (!collapsed) return raise(collapsed.error());
  const Object by_reason(PyDict_New());
  if (!by_reason) return nullptr;
  for (std::size_t i = 0; i < kSmallPagesReasons; ++i)
    if (collapsed->left[i] != 0 &&
        !add_bytes(by_reason.get(), kSmallPagesNames[i], collapsed->left[i]))
      return nullptr;
  return Py_BuildValue("OKKKKKKd", by_reason.get(), collapsed->private_bytes,
                       collapsed->huge_bytes_before, collapsed->huge_bytes_after,
                       collapsed->added_bytes, collapsed->page_tables_before,
                       collapsed->page_tables_after, seconds(collapsed->time));
}

}  // namespace

PyMethodDef settling_methods[] = {{"settle", settle_heap, METH_VARARGS, nullptr},
                                  {"collapse_heap", collapse, METH_VARARGS, nullptr},
                                  {nullptr, nullptr, 0, nullptr}};

}  // namespace cowshed::python
