#pragma once

#include <cstdint>
#include <functional>
#include <memory_resource>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

// The objects of the index, written as for any program: pmr containers that take their memory from
// whoever makes the object.
namespace cowshed::search {

using Allocator = std::pmr::polymorphic_allocator<>;
using String = std::pmr::string;

struct TextHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const noexcept {
    return std::hash<std::string_view>{}(text);
  }
};

template <class Value>
using ByText = std::pmr::unordered_map<String, Value, TextHash, std::equal_to<>>;

template <class Storage>
struct Group;

template <class Storage>
struct Package {
  using allocator_type = Allocator;
  template <class T>
  using Ref = typename Storage::template Ref<T>;

  explicit Package(const Allocator& memory)
      : name(memory), version(memory), description(memory), more(memory), depends(memory) {}

  String name;
  String version;
  String description;
  std::uint64_t installed_kib = 0;
  std::uint64_t wanted_by = 0;  // how many others depend on it
  ByText<String> more;          // every other field, as in the list
  Ref<Group<Storage>> maintainer;
  Ref<Group<Storage>> section;
  std::pmr::vector<Ref<Package>> depends;  // those that the lists have; of alternatives, the first
};

// What has the same maintainer, or the same section.
template <class Storage>
struct Group {
  using allocator_type = Allocator;

  Group(std::string_view group_name, const Allocator& memory)
      : name(group_name, memory), members(memory) {}

  String name;
  std::pmr::vector<typename Storage::template Ref<Package<Storage>>> members;
};

}  // namespace cowshed::search
