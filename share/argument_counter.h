#pragma once

#include <cstdint>
#include <string_view>

#include <cowshed/share/codec.h>
#include <cowshed/share/ref.h>
#include <cowshed/share/transfer_counter.h>
#include <cowshed/share/type_tree.h>

namespace cowshed::internal {

// Counts the arguments of one start() of workers: see transfer_report.h.
class ArgumentCounter {
 public:
  ArgumentCounter(std::string_view name, int workers)
      : counter_("launch", name), workers_(static_cast<std::uint64_t>(workers)) {}

  // What `encode` puts, for each worker.
  template <class T, class Encode>
  void by_value(Encoder& to, const Encode& encode) const {
    const TransferRow row = counter_.row(type_name<T>(), TransferKind::value);
    const std::uint64_t before = to.written();
    TypeTree tree;
    const bool looks = row.wants_paths();
    to.count_into(looks ? &tree : nullptr);
    encode();
    to.count_into(nullptr);
    row.add(workers_, (to.written() - before) * workers_, workers_);
    if (looks) {
      row.add_paths(tree.paths());
    }
  }
  template <class T>
  void by_reference(std::uint64_t bytes) const {
    add(type_name<T>(), TransferKind::reference, bytes);
  }
  template <class T>
  void inherited() const {
    // A forked worker may be given a pointer.
    add(type_name<T>(), TransferKind::inherited, sizeof(T));  // NOLINT(bugprone-sizeof-expression)
  }

 private:
  void add(std::string_view type, TransferKind kind, std::uint64_t bytes) const {
    counter_.row(type, kind).add(workers_, bytes * workers_, workers_);
  }

  TransferCounter counter_;
  std::uint64_t workers_;
};

// Of the object that a Ref refers to.
template <class T>
std::uint64_t bytes_of(const T&) {
  return sizeof(T);
}
template <class T>
std::uint64_t bytes_of(const std::span<const T>& array) {
  return array.size_bytes();
}

}  // namespace cowshed::internal
