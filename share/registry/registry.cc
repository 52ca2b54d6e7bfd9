#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <iterator>
#include <span>
#include <string>
#include <unistd.h>
#include <unordered_map>
#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/share/arena/table.h>
#include <cowshed/share/jemalloc/outside_scope.h>
#include <cowshed/share/os/code_id.h>
#include <cowshed/share/process/fork_handlers.h>
#include <cowshed/share/process/published_layout.h>
#include <cowshed/share/process/tree.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/registry/objects.h>

namespace cowshed {

std::array<internal::PublishedSlot, internal::kMaxPublished> internal::published_slots;

namespace {

using internal::kMaxPublished;
using internal::published_slots;
using internal::RefBits;
using internal::TypeInfo;

// What a reference's user does not need for a look-up that succeeds.
struct Record {
  bool live = true;  // else not inherited
  std::uint32_t generation = 0;
  std::uint32_t layout_index = 0;  // while live
  pid_t publisher = 0;
  const ArenaCore* arena = nullptr;  // null: in none of this process
  const void* address = nullptr;
  std::size_t bytes = 0;
  std::string name;
  const std::type_info* rtti = nullptr;  // null: of another process, and not asked for here
  std::uint64_t fingerprint = 0;         // of the type, for every program
  std::size_t type_size = 0;
  std::size_t alignment = 0;
  bool spawn_safe = false;
  bool array = false;
  std::uint64_t foreign_code = 0;  // code_id() of where its code is; 0: here
  std::string type;                // of another process: may be cut off
  std::string lost_arena;          // where `arena` would be if it were here
  alignas(std::span<const char>) std::array<std::byte, sizeof(std::span<const char>)> span{};
};

struct Publications {
  std::unordered_map<std::uint32_t, Record> records;  // by generation
  std::unordered_multimap<std::string_view, Record*> names;
};

// Under the mutex, which is held over forks; what it has is never in an arena.
Publications& all() {
  static auto& publications = []() -> Publications& {
    const OutsideScope outside;
    return *new Publications;
  }();
  return publications;
}
using Place = decltype(Publications::records)::iterator;

std::uint32_t live_count = 0;
// The last generation that was ever known here, by slot.
std::array<std::uint32_t, kMaxPublished> newest{};
std::uint32_t joined_at = 0;  // the last publication of the tree when this process became a member

RefBits bits_of(const Record& record) {
  return {process_tree::id(), record.generation, record.generation % kMaxPublished};
}

Record* find_name(std::string_view name, bool live) {
  const auto [first, last] = all().names.equal_range(name);
  const auto found =
      std::find_if(first, last, [&](const auto& entry) { return entry.second->live == live; });
  return found == last ? nullptr : found->second;
}

Record* find_record(const RefBits& bits) {
  const auto found = all().records.find(bits.generation);
  return found == all().records.end() || bits_of(found->second) != bits ? nullptr : &found->second;
}

std::string quoted(const Record& record) {
  return record.name.empty() ? "the object without a name" : "'" + record.name + "'";
}

Error error_of(ErrorCode code, std::string message) { return {code, 0, std::move(message)}; }

Error wrong_type(const Record& record, const TypeInfo& asked) {
  return error_of(ErrorCode::wrong_type, quoted(record) + " was published as " + record.type +
                                             " (" + std::to_string(record.type_size) +
                                             " bytes), not as " + std::string(asked.name) + " (" +
                                             std::to_string(asked.size) + " bytes)");
}

// No reference finds it any more.
void hide(Record& record) {
  if (!record.live) return;
  internal::PublishedSlot& slot = published_slots[bits_of(record).slot];
  if (record.rtti != nullptr && slot.stamp == stamp_of(bits_of(record), *record.rtti)) {
    slot.stamp.store(0, std::memory_order_release);
    slot.object.store(nullptr, std::memory_order_relaxed);
  }
  layout::clear_object(record.layout_index);
  record.live = false;
  --live_count;
}

// Returns the next one.
Place release(Place place) {
  hide(place->second);
  const auto [first, last] = all().names.equal_range(place->second.name);
  const auto name =
      std::find_if(first, last, [&](const auto& entry) { return entry.second == &place->second; });
  if (name != last) all().names.erase(name);
  return all().records.erase(place);
}

void release_all_in(const ArenaCore& arena) {
  const std::lock_guard lock(process_tree::mutex());
  auto& records = all().records;
  for (auto place = records.begin(); place != records.end();)
    place = place->second.arena == &arena ? release(place) : std::next(place);
}

// In a forked child: what lies in arenas that it did not inherit is gone.
void disown_not_inherited() {
  for (auto& [generation, record] : all().records)
    if (record.live && !record.arena->holds(record.address)) hide(record);
}

// Arenas and forks tell the registry from its first entry on.
void observe() {
  static constexpr fork_handlers::Handlers kHandlers = {[] {}, [] {}, &disown_not_inherited};
  fork_handlers::enter(fork_handlers::Rank::registry, kHandlers);
  arena_end_observer = &release_all_in;
}

Record& enter(Record entered) {
  const OutsideScope outside;
  observe();
  const std::uint32_t generation = entered.generation;
  const bool live = std::exchange(entered.live, false);  // until there is memory for all of it
  if (const auto before = all().records.find(generation); before != all().records.end())
    release(before);  // of what this process did not inherit
  Record& record = all().records.emplace(generation, std::move(entered)).first->second;
  if (!record.name.empty()) all().names.emplace(record.name, &record);
  std::uint32_t& newest_here = newest[generation % kMaxPublished];
  newest_here = std::max(newest_here, generation);
  if (live) {
    record.live = true;
    ++live_count;
    layout::Object shown;
    shown.address = reinterpret_cast<std::uintptr_t>(record.address);
    shown.bytes = record.bytes;
    shown.alignment = static_cast<std::uint32_t>(record.alignment);
    shown.arena = show_arena_locked(*record.arena);
    shown.generation = record.generation;
    shown.publisher = static_cast<std::uint32_t>(record.publisher);
    layout::set_text(shown.name, record.name);
    layout::set_text(shown.type, record.type);
    record.layout_index = layout::put_object(shown);
  }
  return record;
}

Error full() {
  return error_of(ErrorCode::invalid_argument,
                  "a process has at most 65536 published objects; withdraw() some");
}

// A generation whose slot is free here.  No other process of the tree gets the same one, and with
// it hardly the same slot.
Expected<std::uint32_t> take_generation() {
  if (live_count == kMaxPublished) return tl::make_unexpected(full());
  for (;;) {
    const std::uint32_t generation = process_tree::take_generation();
    if (generation != 0 && published_slots[generation % kMaxPublished].stamp == 0)
      return generation;
  }
}

// Lets references find it; where the slot is another's, resolve() does, each time.
const void* show(Record& record, const TypeInfo& type) {
  if (record.rtti == nullptr) {
    record.rtti = type.rtti;
    if (record.array) type.make_span(record.span.data(), record.address, record.bytes);
  }
  const void* object = record.array ? record.span.data() : record.address;
  internal::PublishedSlot& slot = published_slots[bits_of(record).slot];
  if (slot.stamp == 0) {
    slot.object.store(object, std::memory_order_relaxed);
    slot.stamp.store(stamp_of(bits_of(record), *record.rtti), std::memory_order_release);
  }
  return object;
}

std::uint64_t fingerprint_of(const TypeInfo& type) {
  return hash_type(type.rtti->name(), type.size, type.alignment);
}

// Two std::type_info of one type are equal also where shared libraries have one each.
bool has_type(const Record& record, const TypeInfo& type) {
  return record.rtti != nullptr ? *record.rtti == *type.rtti
                                : record.fingerprint == fingerprint_of(type) &&
                                      record.array == (type.make_span != nullptr);
}

bool has_foreign_code(const Record& record) {
  return record.foreign_code != 0 && !record.spawn_safe;
}

Error not_spawn_safe(const Record& record) {
  return error_of(ErrorCode::not_spawn_safe,
                  quoted(record) + " is a " + record.type +
                      ", which may hold pointers to code, and it was made in another program, or "
                      "in this one at other addresses; make it of trivially copyable types and "
                      "containers with ArenaAllocator, or specialise cowshed::spawn_safe");
}

Error not_inherited(const Record& record) {
  if (record.arena != nullptr) return record.arena->not_inherited_error().value();
  return error_of(ErrorCode::not_inherited,
                  "arena '" + record.lost_arena +
                      "' was not frozen when this process was started; freeze() it before that");
}

bool is_good(const Record* record, const TypeInfo& type) {
  return record != nullptr && record->live && has_type(*record, type);
}

}  // namespace

Expected<RefBits> internal::publish(const std::string_view* name, const Publication& publication) {
  const auto& [address, bytes, alignment, type, spawn_safe] = publication;
  const std::string who = name == nullptr ? "the object" : "'" + std::string(*name) + "'";
  if (name != nullptr &&
      (name->empty() || name->size() > 63 || name->find('\0') != std::string_view::npos)) {
    return make_error(ErrorCode::invalid_argument, who + ": a name has 1 to 63 characters");
  }
  const ArenaCore* arena = find_arena(address);
  if (arena == nullptr || arena->end() - reinterpret_cast<std::uintptr_t>(address) < bytes) {
    return make_error(ErrorCode::not_in_arena,
                      who + " does not lie in an arena; make it with Arena::make()");
  }
  if (!arena->holds(address)) return arena->not_inherited_error();
  const std::lock_guard lock(process_tree::mutex());
  if (name != nullptr && find_name(*name, true) != nullptr) {
    return make_error(ErrorCode::invalid_argument,
                      who + " is published already; withdraw() it first, or use another name");
  }
  const OutsideScope outside;
  Record entered;
  TRY(entered.generation, take_generation());
  entered.publisher = getpid();
  entered.arena = arena;
  entered.address = address;
  entered.bytes = bytes;
  entered.name = name == nullptr ? "" : *name;
  entered.fingerprint = fingerprint_of(type);
  entered.type_size = type.size;
  entered.alignment = alignment;
  entered.spawn_safe = spawn_safe;
  entered.array = type.make_span != nullptr;
  entered.type = type.name;
  Record& record = enter(std::move(entered));
  show(record, type);
  return bits_of(record);
}

Expected<RefBits> internal::find(std::string_view name, const TypeInfo& type) {
  const std::lock_guard lock(process_tree::mutex());
  Record* record = name.empty() ? nullptr : find_name(name, true);
  if (record == nullptr) {
    if (const Record* lost = find_name(name, false))
      return tl::make_unexpected(not_inherited(*lost));
    return make_error(ErrorCode::not_published,
                      "nothing named '" + std::string(name) +
                          "' is published in this process; publish it before the process is "
                          "started, or send its arena");
  }
  if (!has_type(*record, type)) return tl::make_unexpected(wrong_type(*record, type));
  if (has_foreign_code(*record)) return tl::make_unexpected(not_spawn_safe(*record));
  if (record->rtti == nullptr) show(*record, type);
  return bits_of(*record);
}

const void* internal::resolve(const RefBits& bits, const TypeInfo& type) noexcept {
  if (bits == RefBits{}) return nullptr;
  const std::lock_guard lock(process_tree::mutex());
  Record* record = find_record(bits);
  return is_good(record, type) && !has_foreign_code(*record) ? show(*record, type) : nullptr;
}

Error internal::explain(const RefBits& bits, const TypeInfo& type) {
  if (bits == RefBits{}) {
    return error_of(ErrorCode::null_reference,
                    "this reference refers to nothing; take one from publish() or find()");
  }
  const std::lock_guard lock(process_tree::mutex());
  if (bits.tree != process_tree::id() || bits.slot != bits.generation % kMaxPublished) {
    return error_of(ErrorCode::wrong_process_tree,
                    "this reference was made in another process tree; it is good only where its "
                    "object was published and in what was started from there");
  }
  const Record* record = find_record(bits);
  if (record == nullptr && newest[bits.slot] < bits.generation && bits.generation <= joined_at) {
    return error_of(ErrorCode::released,
                    "the object was withdrawn, or its arena destroyed, before this process was "
                    "started");
  }
  if (record == nullptr && newest[bits.slot] < bits.generation) {
    return error_of(ErrorCode::published_too_late,
                    "the object was published after this process was started, or in a process that "
                    "this one does not descend from; publish it before that, or send its arena");
  }
  if (record == nullptr)
    return error_of(ErrorCode::released, "the object was withdrawn, or its arena destroyed");
  if (!record->live) {
    return error_of(ErrorCode::not_inherited,
                    quoted(*record) + ": " + not_inherited(*record).message);
  }
  return has_type(*record, type) ? not_spawn_safe(*record) : wrong_type(*record, type);
}

Expected<void> internal::withdraw(const RefBits& bits, const TypeInfo& type) {
  {
    const std::lock_guard lock(process_tree::mutex());
    if (is_good(find_record(bits), type)) {
      release(all().records.find(bits.generation));
      return {};
    }
  }
  return tl::make_unexpected(explain(bits, type));
}

std::string internal::describe(const RefBits& bits, std::string_view type) {
  const std::string head = "Ref<" + std::string(type) + ">(";
  if (bits == RefBits{}) return head + "nothing)";
  std::array<char, 17> of_tree{};
  std::snprintf(of_tree.data(), of_tree.size(), "%016lx", bits.tree);
  return head + "slot " + std::to_string(bits.slot) + ", generation " +
         std::to_string(bits.generation) + ", tree " + of_tree.data() + ")";
}

std::vector<Published> published() {
  const std::lock_guard lock(process_tree::mutex());
  std::vector<Published> result;
  for (const auto& [generation, record] : all().records) {
    if (record.live) {
      result.push_back({record.name, record.type, record.bytes, record.arena->name(), generation,
                        record.publisher});
    }
  }
  return result;
}

Expected<void> registry::join_tree(std::uint64_t id, FileDescriptor memfd,
                                   std::uint32_t last_generation, const std::string& who) {
  const auto cores = all_cores();
  const std::lock_guard lock(process_tree::mutex());
  if (process_tree::id() == id) {
    process_tree::know_generation(last_generation);
    return {};
  }
  const bool has_own = std::any_of(cores.begin(), cores.end(), [](const ArenaCore* core) {
    return core->state() != ArenaState::vacant;
  });
  if (has_own) {
    return make_error(ErrorCode::wrong_process_tree,
                      who +
                          " is of another process tree than the arenas that this process has; "
                          "receive before you create any, or save_image() there");
  }
  auto joined = process_tree::join(std::move(memfd), id, who);
  if (joined) {
    joined_at = last_generation;
    process_tree::know_generation(last_generation);
    layout::create();
  }
  return joined;
}

std::vector<registry::Object> registry::objects_in(const ArenaCore& arena) {
  const std::lock_guard lock(process_tree::mutex());
  const std::uint64_t here = code_id();
  std::vector<Object> result;
  for (const auto& [generation, record] : all().records) {
    if (record.arena == &arena) {
      result.push_back({record.name, record.type, record.fingerprint, record.type_size,
                        reinterpret_cast<std::uintptr_t>(record.address), record.bytes,
                        record.alignment, record.array, record.spawn_safe,
                        record.foreign_code == 0 ? here : record.foreign_code, generation,
                        record.publisher});
    }
  }
  return result;
}

Expected<void> registry::publish_foreign(const std::vector<Publication>& publications,
                                         const std::string& advice) {
  const OutsideScope outside;
  const std::uint64_t here = code_id();
  const std::lock_guard lock(process_tree::mutex());
  std::vector<std::uint32_t> entered;
  const auto undo = [&](Error error) {
    for (const std::uint32_t generation : entered) release(all().records.find(generation));
    return tl::make_unexpected(std::move(error));
  };
  for (const auto& [arena, objects] : publications) {
    for (const Object& object : objects) {
      if (const Record* other = object.name.empty() ? nullptr : find_name(object.name, true)) {
        return undo(error_of(ErrorCode::invalid_argument,
                             "'" + object.name + "' is published already, in arena '" +
                                 other->arena->name() + "'; " + advice));
      }
      const auto known = all().records.find(object.generation);
      if (live_count == kMaxPublished || (known != all().records.end() && known->second.live))
        return undo(full());
      Record record;
      record.generation = object.generation;
      record.publisher = object.publisher;
      if (object.generation == 0) {
        const auto generation = take_generation();
        if (!generation) return undo(generation.error());
        record.generation = *generation;
        record.publisher = getpid();
      }
      record.arena = arena;
      record.address = reinterpret_cast<const void*>(object.address);
      record.bytes = object.bytes;
      record.name = object.name;
      record.fingerprint = object.fingerprint;
      record.type_size = object.type_size;
      record.alignment = object.alignment;
      record.spawn_safe = object.spawn_safe;
      record.array = object.array;
      record.foreign_code = object.code == here ? 0 : object.code;
      record.type = object.type;
      entered.push_back(enter(std::move(record)).generation);
    }
  }
  return {};
}

void registry::enter_lost(const std::string& arena, const std::vector<Object>& objects) {
  const OutsideScope outside;
  const std::lock_guard lock(process_tree::mutex());
  const auto& known = all().records;
  for (const Object& object : objects) {
    if (!known.contains(object.generation) && known.size() - live_count < kMaxPublished) {
      Record record;
      record.live = false;
      record.generation = object.generation;
      record.name = object.name;
      record.lost_arena = arena;
      enter(std::move(record));
    }
  }
}

}  // namespace cowshed
