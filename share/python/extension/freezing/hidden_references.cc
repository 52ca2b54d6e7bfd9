#include <Python.h>
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <sys/uio.h>
#include <unistd.h>

#include <cowshed/base/arch/arch.h>
#include <cowshed/share/python/extension/freezing/hidden_references.h>
#include <cowshed/share/python/extension/freezing/immortal.h>

namespace cowshed::python {
namespace {

constexpr std::uintptr_t kWordBytes = sizeof(void*);
using Words = std::array<std::uintptr_t, 2>;  // an object begins with its count and its type

// Reads memory that may not be there.
template <class T>
bool read_safely(const void* address, T& into) {
  iovec local = {&into, sizeof into};
  iovec remote = {const_cast<void*>(address), sizeof into};
  return ::process_vm_readv(::getpid(), &local, 1, &remote, 1, 0) ==
         static_cast<ssize_t>(sizeof into);
}

bool read_words(std::uintptr_t address, Words& into) {
  constexpr std::uintptr_t kFirst = 1 << 16;
  if (address % kWordBytes != 0 || address < kFirst || address >= arch::kEndOfAddresses)
    return false;
  return read_safely(reinterpret_cast<const void*>(address), into);
}

bool is_frozen(const Words& words) {
  PyObject copy;
  static_assert(sizeof copy == sizeof words);
  std::memcpy(&copy, words.data(), sizeof copy);
  return is_immortal(&copy);
}

// All types in use are frozen.
bool is_type(std::uintptr_t address) {
  const auto base = reinterpret_cast<std::uintptr_t>(&PyType_Type);
  Words words;
  if (!read_words(address, words) || !is_frozen(words)) return false;
  if (words[1] == base) return true;
  Words meta;
  return read_words(words[1], meta) && is_frozen(meta) && meta[1] == base &&
         PyType_Check(reinterpret_cast<PyObject*>(address));
}

// A freed object has its type, but the address of the next free one instead of a count.
bool is_count(std::uintptr_t word) {
  constexpr std::uintptr_t kMost = 1 << 30;
  constexpr std::uintptr_t kFlags = std::uintptr_t{0xffff} << 48;  // from 3.14
  const std::uintptr_t count = word & ~kFlags;
  return count != 0 && count < kMost;
}

bool is_hidden(std::uintptr_t address, const Words& words,
               const std::unordered_set<PyObject*>& left) {
  if (is_frozen(words) || !is_count(words[0]) || !is_type(words[1])) return false;
  auto* const object = reinterpret_cast<PyObject*>(address);
  return !left.contains(object) && !(PyObject_IS_GC(object) && PyObject_GC_IsTracked(object));
}

}  // namespace

bool has_hidden_references(PyObject* object, const std::unordered_set<PyObject*>& left) {
  constexpr Py_ssize_t kMostBytes = 4096;
  const Py_ssize_t bytes = std::min(Py_TYPE(object)->tp_basicsize, kMostBytes);
  for (auto offset = static_cast<Py_ssize_t>(sizeof(PyObject));
       offset + static_cast<Py_ssize_t>(kWordBytes) <= bytes; offset += kWordBytes) {
    std::uintptr_t word = 0;
    std::memcpy(&word, reinterpret_cast<const char*>(object) + offset, sizeof word);
    Words block;
    if (!read_words(word, block)) continue;
    if (is_hidden(word, block, left)) return true;
    if (is_type(block[1])) continue;  // an object, which was looked into
    for (const std::uintptr_t inner : block)
      if (Words words; read_words(inner, words) && is_hidden(inner, words, left)) return true;
  }
  return false;
}

}  // namespace cowshed::python
