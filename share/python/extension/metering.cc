// How much of the shared memory this process has copied, and what it has sent.
#include <Python.h>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <optional>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/base/pagemap.h>
#include <cowshed/cow/meter.h>
#include <cowshed/cow/page_ranges.h>
#include <cowshed/share/accounting/counter.h>
#include <cowshed/share/python/extension/errors.h>
#include <cowshed/share/python/extension/freezing/object.h>
#include <cowshed/share/python/extension/methods.h>
#include <cowshed/share/settle/mappings.h>

namespace cowshed::python {
namespace {

using cow::PageRange;

// The pages that the process which froze had then, and its PID.
struct FrozenPages {
  cow::PageRanges pages;
  pid_t of = 0;
};
FrozenPages frozen_pages;

FileDescriptor open_pagemap(pid_t pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/pagemap";
  return FileDescriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
}

// A settled page that nobody has written since is in no page table of this process.
void note_settled_pages(const settling::Range& range) {
  std::vector<unsigned char> is_there(range.size() / arch::kPage);
  if (::mincore(reinterpret_cast<void*>(range.begin), range.size(), is_there.data()) != 0) return;
  for (std::size_t page = 0; page < is_there.size(); ++page) {
    const std::uintptr_t address = range.begin + page * arch::kPage;
    if ((is_there[page] & 1U) != 0) frozen_pages.pages.append({address, address + arch::kPage});
  }
}

PyObject* note_pages(PyObject*, PyObject*) {
  std::vector<std::pair<settling::Range, bool>> mappings;  // and whether it is settled
  std::array<char, 8192> buffer;
  settling::visit_maps(buffer, [&](const settling::MapsLine& line) {
    if (line.permissions.ends_with('p')) mappings.emplace_back(line.range, line.is_settled());
  });
  const FileDescriptor pagemap = open_pagemap(::getpid());
  frozen_pages = {{}, ::getpid()};
  const auto note = [](std::uint64_t begin, std::uint64_t end) {
    frozen_pages.pages.append({begin, end});
  };
  for (const auto& [range, is_settled] : mappings)
    if (is_settled) note_settled_pages(range);
    else
      internal::visit_anonymous_ranges(pagemap.get(), range.begin, range.end,
                                       internal::Anonymous::resident, note);
  Py_RETURN_NONE;
}

// copied(pid): 0 for this process.
PyObject* copied(PyObject*, PyObject* argument) {
  const long number = PyLong_AsLong(argument);
  if (number == -1 && PyErr_Occurred() != nullptr) return nullptr;
  const pid_t pid = number == 0 ? ::getpid() : static_cast<pid_t>(number);
  if (frozen_pages.of == 0 || frozen_pages.of == pid) {
    PyErr_SetString(PyExc_RuntimeError,
                    "cowshed.copied() is for a process that was forked after cowshed.freeze()");
    return nullptr;
  }
  const FileDescriptor pagemap = open_pagemap(pid);
  std::uint64_t bytes = 0;
  int error = pagemap.get() < 0 ? errno : 0;
  for (const PageRange& range : frozen_pages.pages.ranges()) {
    if (error != 0) break;
    error = internal::visit_anonymous_pages(
        pagemap.get(), range.begin, range.end,
        [&](std::uint64_t begin, std::uint64_t end, internal::AnonymousPage kind) {
          if (kind == internal::AnonymousPage::own) bytes += end - begin;
        });
  }
  if (error != 0) return raise({ErrorCode::system_call, error, "read the process's pagemap"});
  return PyLong_FromUnsignedLongLong(bytes);
}

constexpr const char* kMeter = "cowshed.Meter";

cow::Meter* meter_of(PyObject* capsule) {
  return static_cast<cow::Meter*>(PyCapsule_GetPointer(capsule, kMeter));
}

// begin_meter(pid): 0 for this process.
PyObject* begin_meter(PyObject*, PyObject* argument) {
  const long pid = PyLong_AsLong(argument);
  if (pid == -1 && PyErr_Occurred() != nullptr) return nullptr;
  auto meter = pid == 0 ? cow::Meter::begin() : cow::Meter::begin(static_cast<pid_t>(pid));
  if (!meter) return raise(meter.error());
  auto owned = std::make_unique<cow::Meter>(*std::move(meter));
  PyObject* const capsule =
      PyCapsule_New(owned.get(), kMeter, [](PyObject* object) { delete meter_of(object); });
  if (capsule != nullptr) (void)owned.release();
  return capsule;
}

// end_meter(meter) -> (bytes, at least, at most, text)
PyObject* end_meter(PyObject*, PyObject* capsule) {
  cow::Meter* const meter = meter_of(capsule);
  if (meter == nullptr) return nullptr;
  if (const auto ended = meter->end(); !ended) return raise(ended.error());
  const cow::MeterResult& result = meter->copied().value();
  return Py_BuildValue("KKKs", result.bytes(), result.at_least_bytes(), result.at_most_bytes(),
                       to_text(result).c_str());
}

// [(channel, type, messages, bytes), ...] since this process began.
PyObject* sent(PyObject*, PyObject*) {
  Object rows(PyList_New(0));
  for (const auto& [what, count] : internal::counted_transfers()) {
    if (TransferKind{what.kind} == TransferKind::inherited) continue;
    const auto size_of = [](const auto& text) {  // a text that fills its field has no final 0
      return static_cast<Py_ssize_t>(strnlen(text, sizeof text));
    };
    const Object row(Py_BuildValue("s#s#KK", what.name, size_of(what.name), what.type,
                                   size_of(what.type), count.messages, count.bytes));
    if (!rows || !row || PyList_Append(rows.get(), row.get()) != 0) return nullptr;
  }
  return rows.release();
}

}  // namespace

PyMethodDef metering_methods[] = {{"note_pages", note_pages, METH_NOARGS, nullptr},
                                  {"copied", copied, METH_O, nullptr},
                                  {"begin_meter", begin_meter, METH_O, nullptr},
                                  {"end_meter", end_meter, METH_O, nullptr},
                                  {"sent", sent, METH_NOARGS, nullptr},
                                  {nullptr, nullptr, 0, nullptr}};

}  // namespace cowshed::python
