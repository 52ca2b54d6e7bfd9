#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace cowshed::cowtop {

// Copied pages as a tree of functions, from the outermost to the innermost, for a flame graph.  It
// stays small if a million stacks are similar.
class CopyTree {
 public:
  struct Node {
    std::uint32_t parent = 0;  // an earlier node; the root is first, and its own parent
    std::uint32_t name = 0;    // in names()
    std::uint64_t pages = 0;   // copied by the stacks that end here
  };

  CopyTree();

  // Adds pages to a stack of names separated by ';'.  Returns its last node.
  std::uint32_t add(std::string_view folded, std::uint64_t pages);

  // Removes the smallest branches if there are more than `most` nodes.  The pages of a removed
  // branch move to a node "[smaller]", so the sum stays.  Returns the new index of each node.
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
