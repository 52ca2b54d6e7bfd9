#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "key_hash.h"
#include "sharing_entries.h"

namespace cowshed::bench {

// All entries, held in one of the ways that `sharing` compares.  Forked processes may use it.
class Dictionary {
 public:
  Dictionary() = default;
  virtual ~Dictionary() = default;
  Dictionary(const Dictionary&) = delete;
  Dictionary& operator=(const Dictionary&) = delete;

  // The sum of the digests of what is found; throws std::runtime_error where a key is missing.
  virtual std::uint64_t look_up(Keys keys, std::size_t look_ups) const = 0;
};

// `way` is "heap", "arena", "boost" or "buffer".
std::unique_ptr<Dictionary> make_dictionary(const std::string& way, std::size_t entries);
std::unique_ptr<Dictionary> make_boost_dictionary(std::size_t entries);
std::unique_ptr<Dictionary> make_buffer_dictionary(std::size_t entries);

template <class Strings, class Numbers>
struct Record {
  Strings title;
  Numbers links;
  std::uint64_t weight;
};

// A map of strings to records that others may point to as well.  `Store` has the types, and makes
// their objects; seal() is called when all are there.
template <class Store>
class ObjectDictionary final : public Dictionary {
 public:
  explicit ObjectDictionary(std::size_t entries) : store_(entries), map_(store_.make_map()) {
    map_->reserve(entries);
    for (std::size_t i = 0; i < entries; ++i) {
      const Entry entry = make_entry(i);
      map_->emplace(store_.make_string(entry.key), store_.make_record(entry));
    }
    store_.seal();
  }

  std::uint64_t look_up(Keys keys, std::size_t look_ups) const override {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < look_ups; ++i) {
      const auto found = Store::find(*map_, keys.next());
      if (found == map_->end()) throw std::runtime_error("a key is missing");
      const auto record = found->second;  // a pointer of its own, as who keeps a result has
      sum += digest({record->title.data(), record->title.size()},
                    {record->links.data(), record->links.size()}, record->weight);
    }
    return sum;
  }

 private:
  Store store_;
  typename Store::MapPointer map_;
};

}  // namespace cowshed::bench
