#include <span>

// The compiler writes the type's name as it first saw it: in this file with its default argument.
using SpelledOut = std::span<const int, std::dynamic_extent>;
static_assert(sizeof(SpelledOut) == 16);

#include <cowshed/share/registry.h>

#include "registry_other_unit.h"

namespace cowshed::test {

std::string spelled_elsewhere() { return std::string(type_name<std::span<const int>>()); }

Ref<std::span<const int>> publish_span_elsewhere(std::string_view name,
                                                 std::span<const int> numbers) {
  return publish(name, numbers).value();
}

std::size_t size_elsewhere(const Ref<std::span<const int>>& ref) {
  const auto* span = ref.try_get();
  return span == nullptr ? 0 : span->size();
}

}  // namespace cowshed::test
