#pragma once

#include <algorithm>

#include <cowshed/tools/search/package.h>

namespace cowshed::search {

// Everything that is known, to be looked up.  Built by IndexBuilder; const from then on.
template <class Storage>
struct Index {
  using allocator_type = Allocator;
  template <class T>
  using Ref = typename Storage::template Ref<T>;
  using PackageRef = Ref<Package<Storage>>;

  explicit Index(const Allocator& memory)
      : records(memory), by_name(memory), by_word(memory), maintainers(memory), sections(memory) {}
  Index(const Index&) = delete;
  Index& operator=(const Index&) = delete;

  // Packages depend on each other in circles, and name the groups that name them: counted
  // references would keep those alive for ever.  The index is their owner and takes the circles
  // apart.
  ~Index() {
    for (const PackageRef& package : records) {
      package->depends.clear();
      package->maintainer.reset();
      package->section.reset();
    }
  }

  std::pmr::vector<PackageRef> records;          // in the order of the lists
  ByText<PackageRef> by_name;                    // the first where lists repeat a name
  ByText<std::pmr::vector<PackageRef>> by_word;  // word of name, description or tags
  ByText<Ref<Group<Storage>>> maintainers;
  ByText<Ref<Group<Storage>>> sections;
};

// Null when it is not there.
template <class Value>
const Value* look_up(const ByText<Value>& map, std::string_view key) {
  const auto found = map.find(key);
  return found == map.end() ? nullptr : &found->second;
}

}  // namespace cowshed::search
