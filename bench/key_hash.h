#pragma once

#include <cstddef>
#include <functional>
#include <string_view>

namespace cowshed::bench {

// Of the keys of all that is compared, so that none wins by its hash.
struct KeyHash {
  using is_transparent = void;
  template <class String>
  std::size_t operator()(const String& key) const {
    return std::hash<std::string_view>{}(std::string_view(key.data(), key.size()));
  }
};

struct KeyEqual {
  using is_transparent = void;
  template <class Left, class Right>
  bool operator()(const Left& left, const Right& right) const {
    return std::string_view(left.data(), left.size()) ==
           std::string_view(right.data(), right.size());
  }
};

}  // namespace cowshed::bench
