#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include <cowshed/share/ref.h>

// A source file that spells types otherwise than registry_test.cc does.
namespace cowshed::test {

Ref<std::span<const int>> publish_span_elsewhere(std::string_view name,
                                                 std::span<const int> numbers);
std::size_t size_elsewhere(const Ref<std::span<const int>>& ref);  // 0: it is refused
std::string spelled_elsewhere();                                   // that type

}  // namespace cowshed::test
