#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdio>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <unistd.h>
#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/share/arena_table.h>
#include <cowshed/share/code_id.h>
#include <cowshed/share/fork_state.h>
#include <cowshed/share/layout_writer.h>
#include <cowshed/share/malloc_route.h>
#include <cowshed/share/process_tree.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/registry_table.h>

namespace cowshed {

std::array<internal::PublishedSlot, internal::kMaxPublished> internal::published_slots;

namespace {

using internal::kMaxPublished;
using internal::published_slots;
using internal::RefBits;
using internal::TypeInfo;

enum class SlotState : std::uint8_t { vacant, live, released, not_inherited };

// What a slot's user does not need for a look-up that succeeds.  Begins as zeros, so that no
// program's file has room for these.
struct Record {
  SlotState state = SlotState::vacant;
  std::uint32_t generation = 0;
  std::uint32_t home = 0;          // the slot that its references name
  std::uint32_t layout_index = 0;  // while live
  pid_t publisher = 0;
  const ArenaCore* arena = nullptr;  // null: in none of this process
  std::atomic<const void*> address = nullptr;
  std::atomic<std::size_t> bytes = 0;
  std::array<char, 64> name{};
  bool has_link = false;
  std::uint32_t next = 0;                // in its list of Names; 0: none, else the slot and 1
  const std::type_info* rtti = nullptr;  // null: of another process, and not asked for here
  std::uint64_t fingerprint = 0;         // of the type, for every program
  std::size_t type_size = 0;
  std::size_t alignment = 0;
  bool spawn_safe = false;
  bool array = false;
  std::uint64_t foreign_code = 0;  // code_id() of where its code is; 0: here
  std::string_view type;           // of another process: may be cut off.  Never freed
  std::string_view lost_arena;     // where `arena` would be if it were here.  Never freed
  alignas(std::span<const char>) std::array<std::byte, sizeof(std::span<const char>)> span{};
};

std::array<Record, kMaxPublished> records;
COWSHED_FORK_STATE std::mutex registry_mutex;
// Slots that are live or not inherited, so that a search need not look at the others.
std::array<std::atomic<std::uint64_t>, kMaxPublished / 64> occupied{};
std::uint32_t live_count = 0;
// Publications of other processes whose slot was in use when they came: generation, and slot here.
std::map<std::uint32_t, std::uint32_t> displaced;
std::uint32_t joined_at = 0;  // the last publication of the tree when this process became a member

// Until `visit` returns true.
template <class Visit>
void search_occupied(Visit visit) {
  for (std::uint32_t i = 0; i < occupied.size(); ++i) {
    for (std::uint64_t left = occupied[i].load(std::memory_order_acquire); left != 0;
         left &= left - 1) {
      if (visit(i * 64 + static_cast<std::uint32_t>(std::countr_zero(left)))) {
        return;
      }
    }
  }
}

// Finds occupied slots by name: lists of some two, which grow in number with the names, so that
// few names take few pages.
class Names {
 public:
  void add(std::uint32_t slot) {
    Record& record = records[slot];
    if (record.has_link || record.name[0] == '\0') {
      return;
    }
    record.has_link = true;
    link(slot);
    if (++count_ > lists() && lists() < kMaxPublished) {
      ++doublings_;
      std::fill_n(firsts_.begin(), lists(), 0);
      search_occupied([this](std::uint32_t other) {
        if (records[other].has_link) {
          link(other);
        }
        return false;
      });
    }
  }
  void remove(std::uint32_t slot) {
    Record& record = records[slot];
    if (!record.has_link) {
      return;
    }
    std::uint32_t* place = &first(record.name.data());
    while (*place != slot + 1) {
      place = &records[*place - 1].next;
    }
    *place = record.next;
    record.has_link = false;
    --count_;
  }
  Record* find(std::string_view name, SlotState state) {
    for (std::uint32_t at = name.empty() ? 0 : first(name); at != 0; at = records[at - 1].next) {
      Record& record = records[at - 1];
      if (record.state == state && name == record.name.data()) {
        return &record;
      }
    }
    return nullptr;
  }

 private:
  std::uint32_t lists() const { return 64U << doublings_; }
  std::uint32_t& first(std::string_view name) {
    return firsts_[std::hash<std::string_view>()(name) & (lists() - 1)];
  }
  void link(std::uint32_t slot) {
    std::uint32_t& first_slot = first(records[slot].name.data());
    records[slot].next = std::exchange(first_slot, slot + 1);
  }

  std::uint32_t count_ = 0;
  std::uint32_t doublings_ = 0;
  std::array<std::uint32_t, kMaxPublished> firsts_{};
};
Names names;

void set_state(std::uint32_t slot, SlotState state) {
  Record& record = records[slot];
  live_count += (state == SlotState::live ? 1U : 0U) - (record.state == SlotState::live ? 1U : 0U);
  record.state = state;
  const std::uint64_t bit = std::uint64_t{1} << slot % 64;
  const bool holds = state == SlotState::live || state == SlotState::not_inherited;
  holds ? occupied[slot / 64].fetch_or(bit, std::memory_order_release)
        : occupied[slot / 64].fetch_and(~bit, std::memory_order_release);
  holds ? names.add(slot) : names.remove(slot);
}

std::uint32_t slot_of(const Record& record) {
  return static_cast<std::uint32_t>(&record - records.data());
}

std::string quoted(const Record& record) {
  const std::string name = record.name.data();
  return name.empty() ? "the object without a name" : "'" + name + "'";
}

Error error_of(ErrorCode code, std::string message) { return {code, 0, std::move(message)}; }

Error wrong_type(const Record& record, const TypeInfo& asked) {
  return error_of(ErrorCode::wrong_type,
                  quoted(record) + " was published as " + std::string(record.type) + " (" +
                      std::to_string(record.type_size) + " bytes), not as " +
                      std::string(asked.name) + " (" + std::to_string(asked.size) + " bytes)");
}

void vacate(std::uint32_t slot, SlotState state) {
  published_slots[slot].stamp.store(0, std::memory_order_release);
  published_slots[slot].object.store(nullptr, std::memory_order_relaxed);
  if (records[slot].state == SlotState::live) {
    layout::clear_object(records[slot].layout_index);
  }
  records[slot].bytes = 0;
  set_state(slot, state);
}

void enter_in_layout(std::uint32_t slot) {
  Record& record = records[slot];
  layout::Object shown;
  shown.address = reinterpret_cast<std::uintptr_t>(record.address.load());
  shown.bytes = record.bytes;
  shown.alignment = static_cast<std::uint32_t>(record.alignment);
  shown.arena = show_arena_locked(*record.arena);
  shown.generation = record.generation;
  shown.publisher = static_cast<std::uint32_t>(record.publisher);
  shown.name = record.name;
  layout::set_text(shown.type, record.type);
  record.layout_index = layout::put_object(shown);
}

Expected<void> start_tree_locked() {
  auto started = process_tree::start();
  if (started) {
    layout::create();
  }
  return started;
}

RefBits bits_of(const Record& record) {
  return {process_tree::id(), record.generation, record.home};
}

// What these bits refer to, or what was last where it would be.
Record& record_at(const RefBits& bits) {
  const auto elsewhere = displaced.find(bits.generation);
  return records[elsewhere == displaced.end() ? bits.slot % kMaxPublished : elsewhere->second];
}

Error full() {
  return error_of(ErrorCode::invalid_argument,
                  "a process has at most 65536 published objects; withdraw() some");
}

// A generation whose slot is free here.  No other process of the tree gets the same one, and with
// it hardly the same slot.
Expected<std::uint32_t> take_generation() {
  if (live_count == kMaxPublished) {
    return tl::make_unexpected(full());
  }
  for (;;) {
    const std::uint32_t generation = process_tree::take_generation();
    if (generation != 0 && records[generation % kMaxPublished].state != SlotState::live) {
      return generation;
    }
  }
}

Record& begin_record(std::uint32_t slot, std::uint32_t home, std::uint32_t generation,
                     std::string_view name, const ArenaCore* arena) {
  Record& record = records[slot];
  if (record.home != slot) {
    displaced.erase(record.generation);
  }
  names.remove(slot);  // of what this process did not inherit
  record.name.fill('\0');
  name.copy(record.name.data(), name.size());
  record.generation = generation;
  record.home = home;
  record.arena = arena;
  record.rtti = nullptr;
  record.foreign_code = 0;
  return record;
}

// Lets references find it.
void show_at(const Record& record, const void* object, const std::type_info& type) {
  internal::PublishedSlot& slot = published_slots[slot_of(record)];
  slot.object.store(object, std::memory_order_relaxed);
  slot.stamp.store(stamp_of(bits_of(record), type), std::memory_order_release);
}

void show(Record& record, const TypeInfo& type) {
  record.rtti = type.rtti;
  if (type.make_span == nullptr) {
    show_at(record, record.address, *type.rtti);
  } else {
    type.make_span(record.span.data(), record.address, record.bytes);
    show_at(record, record.span.data(), *type.rtti);
  }
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
                  quoted(record) + " is a " + std::string(record.type) +
                      ", which may hold pointers to code, and it was made in another program, or "
                      "in this one at other addresses; make it of trivially copyable types and "
                      "containers with ArenaAllocator, or specialise cowshed::spawn_safe");
}

Error not_inherited(const Record& record) {
  if (record.arena != nullptr) {
    return record.arena->not_inherited_error().value();
  }
  return error_of(ErrorCode::not_inherited,
                  "arena '" + std::string(record.lost_arena) +
                      "' was not frozen when this process was started; freeze() it before that");
}

std::string_view keep_forever(const std::string& type) {
  const OutsideScope outside;
  static std::set<std::string> types;  // as many as other processes have
  return *types.insert(type).first;
}

// `home`, or another one where that is in use.
Expected<std::uint32_t> take_slot(std::uint32_t home) {
  for (std::uint32_t i = 0; i < kMaxPublished; ++i) {
    const std::uint32_t slot = (home + i) % kMaxPublished;
    if (records[slot].state != SlotState::live) {
      return slot;
    }
  }
  return tl::make_unexpected(full());
}

// What another process published; who asks for it first tells its type.
void enter_foreign(std::uint32_t slot, const registry::Object& object, const ArenaCore& arena,
                   std::uint64_t code) {
  Record& record = begin_record(slot, object.slot, object.generation, object.name, &arena);
  record.publisher = object.publisher;
  record.address = reinterpret_cast<const void*>(object.address);
  record.bytes = object.bytes;
  record.alignment = object.alignment;
  record.type = keep_forever(object.type);
  record.type_size = object.type_size;
  record.spawn_safe = object.spawn_safe;
  record.array = object.array;
  record.foreign_code = object.code == code ? 0 : object.code;
  record.fingerprint = object.fingerprint;
  if (slot != object.slot) {
    displaced[object.generation] = slot;
  }
  set_state(slot, SlotState::live);
  enter_in_layout(slot);
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
  if (!arena->holds(address)) {
    return arena->not_inherited_error();
  }
  const std::lock_guard lock(registry::mutex());
  if (name != nullptr && names.find(*name, SlotState::live) != nullptr) {
    return make_error(ErrorCode::invalid_argument,
                      who + " is published already; withdraw() it first, or use another name");
  }
  TRY(const std::uint32_t generation, take_generation());
  const std::uint32_t slot = generation % kMaxPublished;
  Record& record =
      begin_record(slot, slot, generation, name == nullptr ? std::string_view() : *name, arena);
  record.publisher = getpid();
  record.address = address;
  record.bytes = bytes;
  record.alignment = alignment;
  record.type = type.name;
  record.type_size = type.size;
  record.spawn_safe = spawn_safe;
  record.array = type.make_span != nullptr;
  record.fingerprint = fingerprint_of(type);
  show(record, type);
  set_state(slot, SlotState::live);
  enter_in_layout(slot);
  return bits_of(record);
}

Expected<RefBits> internal::find(std::string_view name, const TypeInfo& type) {
  const std::lock_guard lock(registry::mutex());
  Record* record = names.find(name, SlotState::live);
  if (record == nullptr) {
    if (const Record* lost = names.find(name, SlotState::not_inherited)) {
      return tl::make_unexpected(not_inherited(*lost));
    }
    return make_error(ErrorCode::not_published,
                      "nothing named '" + std::string(name) +
                          "' is published in this process; publish it before the process is "
                          "started, or send its arena");
  }
  if (!has_type(*record, type)) {
    return tl::make_unexpected(wrong_type(*record, type));
  }
  if (has_foreign_code(*record)) {
    return tl::make_unexpected(not_spawn_safe(*record));
  }
  if (record->rtti == nullptr) {
    show(*record, type);
  }
  return bits_of(*record);
}

const void* internal::resolve(const RefBits& bits, const TypeInfo& type) noexcept {
  if (bits == RefBits{}) {
    return nullptr;
  }
  const std::lock_guard lock(registry::mutex());
  Record& record = record_at(bits);
  if (record.state != SlotState::live || bits != bits_of(record) || !has_type(record, type) ||
      has_foreign_code(record)) {
    return nullptr;
  }
  if (record.rtti == nullptr) {
    show(record, type);
  }
  return published_slots[slot_of(record)].object.load(std::memory_order_relaxed);
}

Error internal::explain(const RefBits& bits, const TypeInfo& type) {
  if (bits == RefBits{}) {
    return error_of(ErrorCode::null_reference,
                    "this reference refers to nothing; take one from publish() or find()");
  }
  const std::lock_guard lock(registry::mutex());
  if (bits.tree != process_tree::id() || bits.slot >= kMaxPublished) {
    return error_of(ErrorCode::wrong_process_tree,
                    "this reference was made in another process tree; it is good only where its "
                    "object was published and in what was started from there");
  }
  const Record& record = record_at(bits);
  if (record.generation < bits.generation && bits.generation <= joined_at) {
    return error_of(ErrorCode::released,
                    "the object was withdrawn, or its arena destroyed, before this process was "
                    "started");
  }
  if (record.generation < bits.generation) {
    return error_of(ErrorCode::published_too_late,
                    "the object was published after this process was started, or in a process that "
                    "this one does not descend from; publish it before that, or send its arena");
  }
  if (record.generation > bits.generation) {
    return error_of(ErrorCode::released, "the object was withdrawn, or its arena destroyed");
  }
  switch (record.state) {
    case SlotState::not_inherited:
      return error_of(ErrorCode::not_inherited,
                      quoted(record) + ": " + not_inherited(record).message);
    case SlotState::live:
      return has_type(record, type) ? not_spawn_safe(record) : wrong_type(record, type);
    default:
      return error_of(ErrorCode::released,
                      quoted(record) + " was withdrawn, or its arena destroyed");
  }
}

Expected<void> internal::withdraw(const RefBits& bits, const TypeInfo& type) {
  {
    const std::lock_guard lock(registry::mutex());
    const Record& record = record_at(bits);
    if (record.state == SlotState::live && bits == bits_of(record) && has_type(record, type)) {
      vacate(slot_of(record), SlotState::released);
      return {};
    }
  }
  return tl::make_unexpected(explain(bits, type));
}

std::string internal::describe(const RefBits& bits, std::string_view type) {
  const std::string head = "Ref<" + std::string(type) + ">(";
  if (bits == RefBits{}) {
    return head + "nothing)";
  }
  std::array<char, 17> of_tree{};
  std::snprintf(of_tree.data(), of_tree.size(), "%016lx", bits.tree);
  return head + "slot " + std::to_string(bits.slot) + ", generation " +
         std::to_string(bits.generation) + ", tree " + of_tree.data() + ")";
}

std::vector<Published> published() {
  const std::lock_guard lock(registry::mutex());
  std::vector<Published> result;
  search_occupied([&](std::uint32_t slot) {
    const Record& record = records[slot];
    if (record.state == SlotState::live) {
      result.push_back({record.name.data(), std::string(record.type), record.bytes,
                        record.arena->name(), record.generation, record.publisher});
    }
    return false;
  });
  return result;
}

std::mutex& registry::mutex() {
  hold_arenas_over_forks();
  return registry_mutex;
}

Expected<void> registry::start_tree() {
  const std::lock_guard lock(registry::mutex());
  return start_tree_locked();
}

Expected<void> registry::join_tree(std::uint64_t id, Descriptor memfd,
                                   std::uint32_t last_generation, const std::string& who) {
  const auto cores = all_cores();
  const std::lock_guard lock(registry::mutex());
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
  const std::lock_guard lock(registry::mutex());
  const std::uint64_t here = code_id();
  std::vector<Object> result;
  search_occupied([&](std::uint32_t slot) {
    const Record& record = records[slot];
    if (record.arena == &arena) {
      result.push_back({record.name.data(), std::string(record.type), record.fingerprint,
                        record.type_size, reinterpret_cast<std::uintptr_t>(record.address.load()),
                        record.bytes, record.alignment, record.array, record.spawn_safe,
                        record.foreign_code == 0 ? here : record.foreign_code, record.home,
                        record.generation, record.publisher});
    }
    return false;
  });
  return result;
}

Expected<void> registry::publish_foreign(const std::vector<Publication>& publications,
                                         const std::string& advice) {
  const OutsideScope outside;
  const std::uint64_t here = code_id();
  const std::lock_guard lock(registry::mutex());
  std::vector<std::uint32_t> slots;
  const auto undo = [&](Error error) {
    for (const std::uint32_t slot : slots) {
      vacate(slot, SlotState::released);
    }
    return tl::make_unexpected(std::move(error));
  };
  for (const auto& [arena, objects] : publications) {
    for (Object object : objects) {
      if (const Record* other = names.find(object.name, SlotState::live)) {
        return undo(error_of(ErrorCode::invalid_argument,
                             "'" + object.name + "' is published already, in arena '" +
                                 other->arena->name() + "'; " + advice));
      }
      if (object.generation == 0) {
        const auto generation = take_generation();
        if (!generation) {
          return undo(generation.error());
        }
        object.generation = *generation;
        object.slot = *generation % kMaxPublished;
        object.publisher = getpid();
      }
      const auto slot = take_slot(object.slot);
      if (!slot) {
        return undo(slot.error());
      }
      enter_foreign(*slot, object, *arena, here);
      slots.push_back(*slot);
    }
  }
  return {};
}

void registry::enter_lost(const std::string& arena, const std::vector<Object>& objects) {
  const std::lock_guard lock(registry::mutex());
  for (const Object& object : objects) {
    const std::uint32_t slot = object.slot % kMaxPublished;
    if (records[slot].state == SlotState::vacant) {
      begin_record(slot, slot, object.generation, object.name, nullptr).lost_arena =
          keep_forever(arena);
      set_state(slot, SlotState::not_inherited);
    }
  }
}

void registry::release_all_in(const ArenaCore* arena) {
  const std::lock_guard lock(registry::mutex());
  search_occupied([&](std::uint32_t slot) {
    if (records[slot].arena == arena) {
      vacate(slot, SlotState::released);
    }
    return false;
  });
}

void registry::disown_not_inherited() {
  if (live_count == 0) {
    return;
  }
  search_occupied([](std::uint32_t slot) {
    const Record& record = records[slot];
    if (record.state == SlotState::live && !record.arena->holds(record.address)) {
      vacate(slot, SlotState::not_inherited);
    }
    return false;
  });
}

registry::Hit registry::object_at(std::uintptr_t address) noexcept {
  Hit hit;
  search_occupied([&](std::uint32_t slot) {
    const Record& record = records[slot];
    const auto begin = reinterpret_cast<std::uintptr_t>(record.address.load());
    if (record.name[0] != '\0' && address >= begin && address - begin < record.bytes.load()) {
      hit = {record.name.data(), address - begin};
    }
    return hit.name != nullptr;
  });
  return hit;
}

}  // namespace cowshed
