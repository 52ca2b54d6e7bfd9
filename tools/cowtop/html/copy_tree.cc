#include <algorithm>
#include <functional>
#include <utility>

#include <cowshed/tools/cowtop/html/copy_tree.h>

namespace cowshed::cowtop {
namespace {

constexpr unsigned kNameBits = 32;

// Returns the pages of each node, with those of all nodes below it.
std::vector<std::uint64_t> totals_of(const std::vector<CopyTree::Node>& nodes) {
  std::vector<std::uint64_t> totals;
  totals.reserve(nodes.size());
  for (const CopyTree::Node& node : nodes) totals.push_back(node.pages);
  for (std::size_t i = nodes.size(); i-- > 1;) totals[nodes[i].parent] += totals[i];
  return totals;
}

// Returns a limit that at most `most` of the totals exceed.
std::uint64_t limit_of(std::vector<std::uint64_t> totals, std::size_t most) {
  const auto at = totals.begin() + static_cast<std::ptrdiff_t>(most);
  std::nth_element(totals.begin(), at, totals.end(), std::greater<>());
  return *at;
}

}  // namespace

CopyTree::CopyTree() : nodes_(1) { name_of(""); }

std::uint32_t CopyTree::name_of(std::string_view name) {
  const auto found = known_names_.find(name);
  if (found != known_names_.end()) return found->second;
  const auto number = static_cast<std::uint32_t>(names_.size());
  known_names_.emplace(names_.emplace_back(name), number);
  return number;
}

std::uint32_t CopyTree::child_of(std::uint32_t parent, std::uint32_t name) {
  const std::uint64_t key = std::uint64_t{parent} << kNameBits | name;
  const auto [found, is_new] = children_.try_emplace(key, nodes_.size());
  if (is_new) nodes_.push_back({parent, name, 0});
  return found->second;
}

std::uint32_t CopyTree::add(std::string_view folded, std::uint64_t pages) {
  std::uint32_t node = 0;
  while (!folded.empty()) {
    const std::size_t end = std::min(folded.find(';'), folded.size());
    node = child_of(node, name_of(folded.substr(0, end)));
    folded.remove_prefix(std::min(end + 1, folded.size()));
  }
  nodes_[node].pages += pages;
  return node;
}

std::vector<std::uint32_t> CopyTree::prune(std::size_t most) {
  const std::vector<std::uint64_t> totals = totals_of(nodes_);
  const bool fits = nodes_.size() <= most;
  const std::uint64_t limit = fits ? 0 : limit_of(totals, most);
  const std::vector<Node> whole = std::exchange(nodes_, std::vector<Node>(1));
  nodes_[0].pages = whole[0].pages;
  children_.clear();
  const std::uint32_t smaller = name_of("[smaller]");
  std::vector<std::uint32_t> became(whole.size());
  std::vector<bool> is_kept(whole.size(), true);
  for (std::uint32_t i = 1; i < whole.size(); ++i) {
    const Node& node = whole[i];
    is_kept[i] = is_kept[node.parent] && (fits || totals[i] > limit);
    became[i] = is_kept[i]             ? child_of(became[node.parent], node.name)
                : is_kept[node.parent] ? child_of(became[node.parent], smaller)
                                       : became[node.parent];
    nodes_[became[i]].pages += node.pages;
  }
  return became;
}

}  // namespace cowshed::cowtop
