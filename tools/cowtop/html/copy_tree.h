#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace cowshed::cowtop {

// Copied pages by stack, as a tree of functions from the outermost in: what a flame graph draws,
// and small where a million stacks are much alike.
class CopyTree {
 public:
  struct Node {
    std::uint32_t parent = 0;  // an earlier one; the first is the root, and its own
    std::uint32_t name = 0;    // in names()
    std::uint64_t pages = 0;   // copied by the stacks that end here
  };

  CopyTree();

  // Adds to a stack of names with a ';' between each two.  Returns the node that it ends at.
  std::uint32_t add(std::string_view folded, std::uint64_t pages);

  // Leaves away the smallest branches where there are more than `most` nodes: what is cut off a
  // node copied is then that of a "[smaller]" below it.  Nothing of the sum is lost.  Returns for
  // each node what has become of it.
  std::vector<std::uint32_t> prune(std::size_t most);

  const std::vector<Node>& nodes() const { return nodes_; }
  const std::deque<std::string>& names() const { return names_; }

 private:
  std::uint32_t name_of(std::string_view name);
  std::uint32_t child_of(std::uint32_t parent, std::uint32_t name);

  std::vector<Node> nodes_;
  std::deque<std::string> names_;
  std::unordered_map<std::string_view, std::uint32_t> known_names_;  // into names_
  std::unordered_map<std::uint64_t, std::uint32_t> children_;        // by parent and name
};

}  // namespace cowshed::cowtop
