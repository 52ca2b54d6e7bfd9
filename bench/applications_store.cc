#include "applications_store.h"

#include <algorithm>
#include <malloc.h>
#include <stdexcept>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <cowshed/base/size_literals.h>
#include <cowshed/share/arena.h>
#include <cowshed/share/arena_allocator.h>

#include "got.h"
#include "key_hash.h"

namespace cowshed::bench {
namespace {

using namespace size_literals;

constexpr std::size_t kMostOfRecord = 1_KiB;  // in the arena, of both its versions

template <class String>
struct StoredValue {
  std::uint64_t version;
  String text;
};

using HeapTable = std::unordered_map<std::string, StoredValue<std::string>, KeyHash, KeyEqual>;

class HeapRecords final : public RecordStore {
 public:
  explicit HeapRecords(const RecordSet& set) {
    table_.reserve(set.count);
    for (std::uint64_t i = 0; i < set.count; ++i) {
      table_.emplace(record_key(i), StoredValue<std::string>{0, record_text(i, 0)});
    }
  }

  void update(std::uint64_t number) override {
    auto& value = table_.at(record_key(number));
    ++value.version;
    value.text = record_text(number, value.version);
  }
  void prepare_fork() override {}
  std::uint64_t write_all() const override {
    RecordWriter writer;
    for (const auto& [key, value] : table_) writer.add(key, value.version, value.text);
    return writer.finish();
  }

 private:
  HeapTable table_;
};

class ArenaRecords final : public RecordStore {
 public:
  explicit ArenaRecords(const RecordSet& set)
      : arena_(got(
            Arena::create({.name = "snapshot", .capacity = set.count * kMostOfRecord + 64_MiB}))) {
    {
      const UseArena use(arena_);
      auto* table = got(arena_.make<FrozenTable>());
      table->reserve(set.count);
      for (std::uint64_t i = 0; i < set.count; ++i)
        put(*table, record_key(i), 0, record_text(i, 0));
      frozen_.push_back(table);
    }
    got(arena_.freeze());
  }

  void update(std::uint64_t number) override {
    std::string key = record_key(number);
    const std::uint64_t version = version_of(key) + 1;
    fresh_.insert_or_assign(std::move(key),
                            StoredValue<std::string>{version, record_text(number, version)});
  }

  // What the old table's memory is good for, the child would share and each write copy.
  void prepare_fork() override {
    got(arena_.thaw());
    {
      const UseArena use(arena_);
      auto* table = got(arena_.make<FrozenTable>());
      table->reserve(fresh_.size());
      for (const auto& [key, value] : fresh_) put(*table, key, value.version, value.text);
      frozen_.push_back(table);
    }
    got(arena_.refreeze());
    HeapTable().swap(fresh_);
    malloc_trim(0);
  }

  std::uint64_t write_all() const override {
    RecordWriter writer;
    for (const auto& [key, value] : fresh_) writer.add(key, value.version, value.text);
    for (std::size_t i = frozen_.size(); i-- > 0;) {
      for (const auto& [key, value] : *frozen_[i]) {
        if (!is_newer(key, i + 1)) writer.add(key, value.version, value.text);
      }
    }
    return writer.finish();
  }

 private:
  using String = std::basic_string<char, std::char_traits<char>, ArenaAllocator<char>>;
  using FrozenTable =
      std::unordered_map<String, StoredValue<String>, KeyHash, KeyEqual,
                         ArenaAllocator<std::pair<const String, StoredValue<String>>>>;

  static void put(FrozenTable& table, std::string_view key, std::uint64_t version,
                  std::string_view text) {
    table.emplace(String(key), StoredValue<String>{version, String(text)});
  }

  std::uint64_t version_of(std::string_view key) const {
    if (const auto found = fresh_.find(key); found != fresh_.end()) return found->second.version;
    for (std::size_t i = frozen_.size(); i-- > 0;) {
      const auto found = frozen_[i]->find(key);
      if (found != frozen_[i]->end()) return found->second.version;
    }
    throw std::runtime_error("a key is missing");
  }

  // Whether the key is in a later table than those before `begin`.
  bool is_newer(std::string_view key, std::size_t begin) const {
    return fresh_.contains(key) ||
           std::any_of(frozen_.begin() + static_cast<std::ptrdiff_t>(begin), frozen_.end(),
                       [&](const FrozenTable* table) { return table->contains(key); });
  }

  Arena arena_;
  std::vector<const FrozenTable*> frozen_;  // the oldest first
  HeapTable fresh_;
};

}  // namespace

std::unique_ptr<RecordStore> make_record_store(const std::string& way, const RecordSet& set) {
  if (way == "arena") return std::make_unique<ArenaRecords>(set);
  return std::make_unique<HeapRecords>(set);
}

}  // namespace cowshed::bench
