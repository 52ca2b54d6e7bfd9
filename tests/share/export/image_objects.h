#pragma once

#include <cstdint>
#include <map>
#include <memory_resource>
#include <span>
#include <string>
#include <unistd.h>
#include <unordered_map>
#include <utility>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/arena_allocator.h>
#include <cowshed/share/ref.h>

// What image_test and arena_transfer_test give to the program `reader`.
namespace cowshed::test {

struct Node {
  const Node* next;
  std::uint64_t value;
};

using Text = std::basic_string<char, std::char_traits<char>, ArenaAllocator<char>>;
using Words = std::map<Text, std::uint64_t, std::less<>,
                       ArenaAllocator<std::pair<const Text, std::uint64_t>>>;
using Table = std::unordered_map<
    std::uint64_t, std::vector<Text, ArenaAllocator<Text>>, std::hash<std::uint64_t>,
    std::equal_to<>,
    ArenaAllocator<std::pair<const std::uint64_t, std::vector<Text, ArenaAllocator<Text>>>>>;
using PmrNumbers = std::pmr::vector<std::uint64_t>;

// Linked ones of the values 1 to `count`; the last.
inline const Node* make_nodes(Arena& arena, std::uint64_t count) {
  const Node* last = nullptr;
  for (std::uint64_t i = 1; i <= count; ++i) last = arena.make<Node>(Node{last, i}).value();
  return last;
}
inline std::uint64_t sum_of(const Node* node) {
  std::uint64_t sum = 0;
  for (; node != nullptr; node = node->next) sum += node->value;
  return sum;
}
inline std::uint64_t sum_of(const Words& words) {
  std::uint64_t sum = 0;
  for (const auto& [word, value] : words) sum += word.size() * value;
  return sum;
}
inline std::uint64_t sum_of(const Table& table) {
  std::uint64_t sum = 0;
  for (const auto& [key, texts] : table)
    for (const Text& text : texts) sum += key * text.size();
  return sum;
}

// Follows the arenas.
struct Sent {
  Ref<Node> nodes;
  Ref<Words> words;
  Ref<std::span<const std::uint64_t>> array;
  Ref<PmrNumbers> pmr;
  Ref<Node> withdrawn;
  Ref<Node> open;
  Ref<Words> wrong;
};

template <class T>
bool write_bytes(int fd, const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  return write(fd, &value, sizeof value) == static_cast<ssize_t>(sizeof value);
}

template <class T>
T read_bytes(int fd) {
  T value{};
  return read(fd, static_cast<void*>(&value), sizeof value) == static_cast<ssize_t>(sizeof value)
             ? value
             : T{};
}

}  // namespace cowshed::test
