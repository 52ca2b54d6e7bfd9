#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <cowshed/share/transfer_counter.h>

namespace cowshed {

// A type's name for people: without std::, default allocators, comparisons and the like, and
// "string" for what it is; `compiler_name` as type_name<T>() gives it.  What it cannot read stays
// as it is.
std::string readable_type(std::string_view compiler_name);

namespace internal {

// Counts objects and bytes by type path while something is serialised.  A type inside itself counts
// where it was first met, so that a list of any length has one path.  Not thread-safe.
class TypeTree {
 public:
  TypeTree();
  TypeTree(const TypeTree&) = delete;
  TypeTree& operator=(const TypeTree&) = delete;
  ~TypeTree();

  // From here, `written` bytes from the beginning, to its leave() it is this type's bytes.  `type`
  // is type_name<T>(), which lives for ever.
  void enter(std::string_view type, std::uint64_t written) { enter(type, written, 1); }
  void leave(std::uint64_t written);

  // Of the bytes from here on, as many objects of a type that are written in one piece.
  void add(std::string_view type, std::uint64_t objects, std::uint64_t bytes,
           std::uint64_t written);

  // Largest first.
  std::vector<TypePath> paths() const;

 private:
  struct Node;
  void enter(std::string_view type, std::uint64_t written, std::uint64_t objects);

  std::unique_ptr<Node> root_;
  std::vector<Node*> open_;  // what was entered and not left
  std::uint64_t counted_ = 0;
};

}  // namespace internal
}  // namespace cowshed
