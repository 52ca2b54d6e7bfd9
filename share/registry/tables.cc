#include <algorithm>
#include <utility>

#include <cowshed/share/arena/table.h>
#include <cowshed/share/jemalloc/outside_scope.h>
#include <cowshed/share/os/huge_pages.h>
#include <cowshed/share/process/fork_handlers.h>
#include <cowshed/share/process/published_layout.h>
#include <cowshed/share/process/tree.h>
#include <cowshed/share/registry/tables.h>

namespace cowshed {

using namespace internal;

std::array<PublishedSlot, kMaxPublished> internal::published_slots;
[[gnu::constructor(101)]] static void keep_slots_small() {
  keep_in_small_pages(published_slots.data(), sizeof published_slots);
}

namespace registry {

std::uint32_t live_count = 0;
std::array<std::uint32_t, kMaxPublished> newest{};

namespace {

struct Tables {
  Records records;
  std::unordered_multimap<std::string_view, Record*> names;
};

// Never destroyed, and never allocated in an arena.
Tables& tables() {
  static auto& made = []() -> Tables& {
    const OutsideScope outside;
    return *new Tables;
  }();
  return made;
}

// Makes a record lost: no reference finds it, and the layout no longer shows it.
void hide(Record& record) {
  if (!record.live) return;
  PublishedSlot& slot = published_slots[bits_of(record).slot()];
  if (record.rtti != nullptr && slot.stamp == stamp_of(bits_of(record), *record.rtti)) {
    slot.stamp.store(0, std::memory_order_release);
    slot.object.store(nullptr, std::memory_order_relaxed);
  }
  if (record.arena != nullptr) layout::clear_object(record.layout_index);
  record.live = false;
  --live_count;
}

void show_in_layout(Record& record) {
  if (record.arena == nullptr) return;
  const Object& object = record.object;
  layout::Object shown{};
  shown.address = object.address;
  shown.bytes = object.bytes;
  shown.alignment = static_cast<std::uint32_t>(object.alignment);
  shown.arena = show_arena_locked(*record.arena);
  shown.generation = object.generation;
  shown.publisher = static_cast<std::uint32_t>(object.publisher);
  layout::set_text(shown.name, object.name);
  layout::set_text(shown.type, object.type);
  record.layout_index = layout::put_object(shown);
}

void release_all_in(const ArenaCore& arena) {
  const std::lock_guard lock(process_tree::mutex());
  for (auto record = records().begin(); record != records().end();)
    record = record->second.arena == &arena ? release(record) : std::next(record);
}

// In a forked child, objects in arenas that it did not inherit are lost.
void hide_not_inherited() {
  for (auto& [generation, record] : records()) {
    const auto* address = reinterpret_cast<const void*>(record.object.address);
    if (record.live && record.arena != nullptr && !record.arena->holds(address)) hide(record);
  }
}

void observe_arenas_and_forks() {
  static constexpr fork_handlers::Handlers kHandlers = {[] {}, [] {}, &hide_not_inherited};
  fork_handlers::enter(fork_handlers::Rank::registry, kHandlers);
  arena_end_observer = &release_all_in;
}

Record* find_name(std::string_view name, bool live) {
  const auto [first, last] = tables().names.equal_range(name);
  const auto found =
      std::find_if(first, last, [&](const auto& entry) { return entry.second->live == live; });
  return found == last ? nullptr : found->second;
}

}  // namespace

Records& records() { return tables().records; }

Record* find_record(RefBits bits) {
  const auto found = records().find(bits.generation());
  return found == records().end() || bits_of(found->second) != bits ? nullptr : &found->second;
}

Record* find_live(std::string_view name) { return find_name(name, true); }

Record* find_lost(std::string_view name) { return find_name(name, false); }

Record& enter(Record entered) {
  const OutsideScope outside;
  observe_arenas_and_forks();
  const std::uint32_t generation = entered.object.generation;
  const bool shown = std::exchange(entered.live, false);  // lost if an allocation fails below
  if (const auto lost = records().find(generation); lost != records().end()) release(lost);
  Record& record = records().emplace(generation, std::move(entered)).first->second;
  if (!record.object.name.empty()) tables().names.emplace(record.object.name, &record);
  std::uint32_t& newest_here = newest[generation % kMaxPublished];
  newest_here = std::max(newest_here, generation);
  if (shown) {
    record.live = true;
    ++live_count;
    show_in_layout(record);
  }
  return record;
}

Records::iterator release(Records::iterator record) {
  hide(record->second);
  const auto [first, last] = tables().names.equal_range(record->second.object.name);
  const auto name =
      std::find_if(first, last, [&](const auto& entry) { return entry.second == &record->second; });
  if (name != last) tables().names.erase(name);
  return records().erase(record);
}

const void* fill_slot(Record& record, const TypeInfo& type) {
  const void* object = reinterpret_cast<const void*>(record.object.address);
  if (record.rtti == nullptr) {
    record.rtti = type.rtti;
    if (record.object.array) type.make_span(record.span.data(), object, record.object.bytes);
  }
  if (record.object.array) object = record.span.data();
  PublishedSlot& slot = published_slots[bits_of(record).slot()];
  if (slot.stamp == 0) {
    slot.object.store(object, std::memory_order_relaxed);
    slot.stamp.store(stamp_of(bits_of(record), *record.rtti), std::memory_order_release);
  }
  return object;
}

std::uint64_t tree_bits() {
  const std::uint64_t id = process_tree::id();
  return id >> 32U << 16U | (id & 0xffffU);  // what is random, and of the rest what differs most
}

RefBits bits_of(const Record& record) {
  return {tree_bits(), record.object.generation, record.object.address};
}

std::uint64_t fingerprint_of(const TypeInfo& type) {
  return hash_type(type.rtti->name(), type.size, type.alignment);
}

// Compares std::type_info by value: each shared library may have its own for one type.
bool has_type(const Record& record, const TypeInfo& type) {
  return record.rtti != nullptr ? *record.rtti == *type.rtti
                                : record.object.fingerprint == fingerprint_of(type) &&
                                      record.object.array == (type.make_span != nullptr);
}

bool has_foreign_code(const Record& record) {
  return record.object.code != 0 && !record.object.spawn_safe;
}

tl::unexpected<Error> full_error() {
  return make_error(ErrorCode::invalid_argument,
                    "a process has at most 65536 published objects; withdraw() some");
}

Expected<std::uint32_t> take_generation() {
  if (live_count == kMaxPublished) return full_error();
  for (;;) {
    const std::uint32_t generation = process_tree::take_generation();
    if (generation != 0 && published_slots[generation % kMaxPublished].stamp == 0)
      return generation;
  }
}

}  // namespace registry
}  // namespace cowshed
