#include "sharing_dictionary.h"

#include <memory>
#include <optional>
#include <stdexcept>
#include <unordered_map>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/arena_allocator.h>
#include <cowshed/share/immortal_ptr.h>

#include "got.h"

namespace cowshed::bench {
namespace {

class HeapStore {
 public:
  using Entries = Record<std::string, std::vector<std::uint32_t>>;
  using Map = std::unordered_map<std::string, std::shared_ptr<const Entries>, KeyHash, KeyEqual>;
  using MapPointer = std::unique_ptr<Map>;

  explicit HeapStore(std::size_t) {}
  static MapPointer make_map() { return std::make_unique<Map>(); }
  static std::string make_string(const std::string& text) { return text; }
  static std::shared_ptr<const Entries> make_record(const Entry& entry) {
    return std::make_shared<const Entries>(Entries{entry.title, entry.links, entry.weight});
  }
  static auto find(const Map& map, std::string_view key) { return map.find(key); }
  void seal() {}
};

// The same types with the arena's allocator, and pointers that count nothing.
class ArenaStore {
 public:
  using String = std::basic_string<char, std::char_traits<char>, ArenaAllocator<char>>;
  using Entries = Record<String, std::vector<std::uint32_t, ArenaAllocator<std::uint32_t>>>;
  using Pointer = ImmortalPtr<const Entries>;
  using Map = std::unordered_map<String, Pointer, KeyHash, KeyEqual,
                                 ArenaAllocator<std::pair<const String, Pointer>>>;
  using MapPointer = Map*;  // nobody destroys what is frozen

  explicit ArenaStore(std::size_t entries)
      : arena_(got(Arena::create({.name = "sharing", .capacity = entries * 1024 + 64_MiB}))),
        filling_(std::in_place, arena_) {}
  MapPointer make_map() { return got(arena_.make<Map>()); }
  static String make_string(const std::string& text) { return {text.data(), text.size()}; }
  Pointer make_record(const Entry& entry) {
    return Pointer(got(arena_.make<Entries>(Entries{
        make_string(entry.title), {entry.links.begin(), entry.links.end()}, entry.weight})));
  }
  static auto find(const Map& map, std::string_view key) { return map.find(key); }
  void seal() {
    filling_.reset();
    got(arena_.freeze());
  }

 private:
  Arena arena_;
  std::optional<UseArena> filling_;
};

}  // namespace

std::unique_ptr<Dictionary> make_dictionary(const std::string& way, std::size_t entries) {
  if (way == "heap") return std::make_unique<ObjectDictionary<HeapStore>>(entries);
  if (way == "arena") return std::make_unique<ObjectDictionary<ArenaStore>>(entries);
  if (way == "boost") return make_boost_dictionary(entries);
  if (way == "buffer") return make_buffer_dictionary(entries);
  throw std::runtime_error("there is no way '" + way + "' to hold a dictionary");
}

}  // namespace cowshed::bench
