#pragma once

#include <algorithm>
#include <bit>
#include <unordered_map>
#include <vector>

#include <cowshed/tools/search/index.h>

namespace cowshed::search {

constexpr std::size_t kBest = 10;

template <class Storage>
using Found = std::vector<typename Index<Storage>::PackageRef>;

// A total order, so that answers do not depend on where objects lie: more points first, then by
// name, then by version.
template <class Storage>
bool ranks_before(std::uint64_t left_points, const Package<Storage>& left,
                  std::uint64_t right_points, const Package<Storage>& right) {
  if (left_points != right_points) {
    return left_points > right_points;
  }
  const int order = left.name.compare(right.name);
  return order != 0 ? order < 0 : left.version < right.version;
}

// Sorts the best to the front and drops the others.
template <class Storage, class Points>
void keep_best(Found<Storage>& found, std::size_t count, const Points& points) {
  const auto middle = found.begin() + static_cast<std::ptrdiff_t>(std::min(count, found.size()));
  std::partial_sort(found.begin(), middle, found.end(), [&](const auto& left, const auto& right) {
    return ranks_before(points(*left), *left, points(*right), *right);
  });
  found.erase(middle, found.end());
}

// Every package that has one of the words, the best `count` first: rare words weigh more, and words
// of the name twice.  `matches` is set to how many there were.
template <class Storage>
Found<Storage> search_words(const Index<Storage>& index, const std::vector<std::string>& words,
                            std::size_t count, std::size_t& matches) {
  Found<Storage> found;
  std::unordered_map<const Package<Storage>*, std::uint64_t> points;
  for (const std::string& word : words) {
    const auto* packages = look_up(index.by_word, word);
    if (packages == nullptr) {
      continue;
    }
    const auto rarity =
        static_cast<std::uint64_t>(std::bit_width(index.records.size() / packages->size()));
    for (const auto& package : *packages) {
      const auto [place, is_new] = points.try_emplace(package.get(), 0);
      place->second += package->name.find(word) == String::npos ? rarity : 2 * rarity;
      if (is_new) {
        found.push_back(package);
      }
    }
  }
  matches = found.size();
  keep_best<Storage>(found, count, [&](const auto& package) { return points.at(&package); });
  return found;
}

}  // namespace cowshed::search
