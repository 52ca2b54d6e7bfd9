#pragma once

#include <cstddef>

// Sizes in bytes, such as 64_GiB.  Outside namespace cowshed write
// `using namespace cowshed::size_literals`.
namespace cowshed {
inline namespace size_literals {

constexpr std::size_t operator""_KiB(unsigned long long count) { return count << 10U; }
constexpr std::size_t operator""_MiB(unsigned long long count) { return count << 20U; }
constexpr std::size_t operator""_GiB(unsigned long long count) { return count << 30U; }

}  // namespace size_literals
}  // namespace cowshed
