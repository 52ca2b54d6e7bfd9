#include <boost/interprocess/allocators/allocator.hpp>
#include <boost/interprocess/anonymous_shared_memory.hpp>
#include <boost/interprocess/containers/string.hpp>
#include <boost/interprocess/containers/vector.hpp>
#include <boost/interprocess/managed_external_buffer.hpp>
#include <boost/unordered_map.hpp>
#include <utility>

#include "sharing_dictionary.h"

namespace cowshed::bench {
namespace {

namespace interprocess = boost::interprocess;

// Offset pointers throughout: they mean the same wherever a process maps the memory.
class BoostStore {
 public:
  using Segment = interprocess::managed_external_buffer;
  template <class T>
  using Allocator = interprocess::allocator<T, Segment::segment_manager>;
  using String = interprocess::basic_string<char, std::char_traits<char>, Allocator<char>>;
  using Numbers = interprocess::vector<std::uint32_t, Allocator<std::uint32_t>>;
  using Entries = Record<String, Numbers>;
  using Pointer = interprocess::offset_ptr<const Entries>;
  using Map = boost::unordered_map<String, Pointer, KeyHash, KeyEqual,
                                   Allocator<std::pair<const String, Pointer>>>;
  using MapPointer = Map*;

  explicit BoostStore(std::size_t entries)
      : memory_(interprocess::anonymous_shared_memory(entries * 1024 + (std::size_t{1} << 20U))),
        segment_(interprocess::create_only, memory_.get_address(), memory_.get_size()) {}

  MapPointer make_map() {
    return segment_.construct<Map>("dictionary")(0, KeyHash(), KeyEqual(), allocator<char>());
  }
  String make_string(const std::string& text) {
    return {text.data(), text.size(), allocator<char>()};
  }
  Pointer make_record(const Entry& entry) {
    return segment_.construct<Entries>(interprocess::anonymous_instance)(Entries{
        make_string(entry.title),
        Numbers(entry.links.begin(), entry.links.end(), allocator<std::uint32_t>()), entry.weight});
  }
  static auto find(const Map& map, std::string_view key) {
    return map.find(key, KeyHash(), KeyEqual());
  }
  void seal() {}

 private:
  template <class T>
  Allocator<T> allocator() {
    return Allocator<T>(segment_.get_segment_manager());
  }

  interprocess::mapped_region memory_;
  Segment segment_;
};

}  // namespace

std::unique_ptr<Dictionary> make_boost_dictionary(std::size_t entries) {
  return std::make_unique<ObjectDictionary<BoostStore>>(entries);
}

}  // namespace cowshed::bench
