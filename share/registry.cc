#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <random>
#include <set>
#include <span>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

#include <cowshed/share/arena_table.h>
#include <cowshed/share/layout_writer.h>
#include <cowshed/share/malloc_route.h>
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

// What a slot's user does not need for a look-up that succeeds.
struct Record {
  SlotState state = SlotState::vacant;
  std::uint32_t generation = 0;
  std::uint32_t layout_index = 0;  // while live
  pid_t publisher = 0;
  const ArenaCore* arena = nullptr;
  std::atomic<const void*> address = nullptr;
  std::atomic<std::size_t> bytes = 0;
  std::array<char, 64> name{};
  std::uint64_t type_id = 0;
  std::uint64_t fingerprint = 0;  // of the type, for every program
  std::size_t type_size = 0;
  std::size_t alignment = 1;
  bool spawn_safe = false;
  bool array = false;
  bool of_image = false;      // and nobody asked for it yet: type_id is not known
  bool foreign_code = false;  // from an image that another program saved, or this one elsewhere
  std::string_view type;      // of an image: may be cut off.  Never freed
  alignas(std::span<const char>) std::array<std::byte, sizeof(std::span<const char>)> span{};
};

std::array<Record, kMaxPublished> records;
std::mutex registry_mutex;
std::uint64_t tree = 0;
// Shared by all processes of the tree, so that no two publications are ever mistaken.
std::atomic<std::uint32_t>* last_generation = nullptr;
std::uint32_t next_slot = 0;          // search starts here: slots are reused as late as possible
std::atomic<std::uint32_t> high = 0;  // slots from here on were never used

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
  records[slot].state = state;
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

void start_tree_locked() {
  if (tree != 0) {
    return;
  }
  void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) {
    throw std::bad_alloc();
  }
  last_generation = new (page) std::atomic<std::uint32_t>(0);
  std::random_device random;
  while (tree == 0) {
    tree = std::uint64_t{random()} << 32U | random();
  }
  layout::create();
}

Record* find_record(std::string_view name, SlotState state = SlotState::live) {
  if (name.empty()) {
    return nullptr;
  }
  const auto end = records.begin() + high.load();
  const auto found = std::find_if(records.begin(), end, [&](const Record& record) {
    return record.state == state && name == record.name.data();
  });
  return found == end ? nullptr : &*found;
}

RefBits bits_of(const Record& record) {
  return {tree, record.generation, static_cast<std::uint32_t>(&record - records.data())};
}

Expected<std::uint32_t> take_slot() {
  for (std::uint32_t i = 0; i < kMaxPublished; ++i) {
    const std::uint32_t slot = (next_slot + i) % kMaxPublished;
    if (records[slot].state == SlotState::live) {
      continue;
    }
    next_slot = slot + 1;
    high = std::max(high.load(), slot + 1);
    return slot;
  }
  return make_error(ErrorCode::invalid_argument,
                    "a process has at most 65536 published objects; withdraw() some");
}

Record& begin_record(std::uint32_t slot, std::string_view name, const ArenaCore& arena) {
  Record& record = records[slot];
  record.name.fill('\0');
  name.copy(record.name.data(), name.size());
  record.state = SlotState::live;
  record.generation = last_generation->fetch_add(1) + 1;
  record.publisher = getpid();
  record.arena = &arena;
  record.of_image = record.foreign_code = false;
  return record;
}

// Lets references find it.
void show_at(Record& record, const void* object) {
  const RefBits bits = bits_of(record);
  published_slots[bits.slot].object.store(object, std::memory_order_relaxed);
  published_slots[bits.slot].stamp.store(stamp_of(bits, record.type_id), std::memory_order_release);
}

void show_object(Record& record) { show_at(record, record.address); }

void show_array(Record& record, internal::SpanMaker* make_span) {
  make_span(record.span.data(), record.address, record.bytes);
  show_at(record, record.span.data());
}

std::uint64_t fingerprint_of(const TypeInfo& type) {
  return hash_type(type.rtti->name(), type.size, type.alignment);
}

std::string_view keep_forever(const std::string& type) {
  const OutsideScope outside;
  static std::set<std::string> types;  // as many as the images have types
  return *types.insert(type).first;
}

}  // namespace

Expected<RefBits> internal::publish(const std::string_view* name, const Publication& publication) {
  const auto& [address, bytes, alignment, type, spawn_safe, make_span] = publication;
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
  const std::lock_guard lock(registry_mutex);
  start_tree_locked();
  if (name != nullptr && find_record(*name) != nullptr) {
    return make_error(ErrorCode::invalid_argument,
                      who + " is published already; withdraw() it first, or use another name");
  }
  const auto slot = take_slot();
  if (!slot) {
    return tl::make_unexpected(slot.error());
  }
  Record& record = begin_record(*slot, name == nullptr ? std::string_view() : *name, *arena);
  record.address = address;
  record.bytes = bytes;
  record.alignment = alignment;
  record.type = type.name;
  record.type_size = type.size;
  record.type_id = type.id;
  record.spawn_safe = spawn_safe;
  record.array = make_span != nullptr;
  record.fingerprint = fingerprint_of(type);
  make_span != nullptr ? show_array(record, make_span) : show_object(record);
  enter_in_layout(*slot);
  return bits_of(record);
}

Expected<RefBits> internal::find(std::string_view name, const TypeInfo& type,
                                 SpanMaker* make_span) {
  const std::lock_guard lock(registry_mutex);
  Record* record = find_record(name);
  if (record == nullptr) {
    if (const Record* lost = find_record(name, SlotState::not_inherited)) {
      return lost->arena->not_inherited_error();
    }
    return make_error(ErrorCode::not_published,
                      "nothing named '" + std::string(name) +
                          "' is published in this process; publish it before the fork");
  }
  const RefBits bits = bits_of(*record);
  const bool right = record->of_image ? record->fingerprint == fingerprint_of(type) &&
                                            record->array == (make_span != nullptr)
                                      : record->type_id == type.id;
  if (!right) {
    return tl::make_unexpected(wrong_type(*record, type));
  }
  if (record->foreign_code && !record->spawn_safe) {
    return make_error(ErrorCode::not_spawn_safe,
                      quoted(*record) + " is a " + std::string(record->type) +
                          ", which may hold pointers to code, and another program saved it, or "
                          "this one at other addresses; make it of trivially copyable types and "
                          "containers with ArenaAllocator, or specialise cowshed::spawn_safe");
  }
  if (record->of_image) {
    record->of_image = false;
    record->type_id = type.id;
    record->array ? show_array(*record, make_span) : show_object(*record);
  }
  return bits;
}

Error internal::explain(const RefBits& bits, const TypeInfo& type) {
  if (bits == RefBits{}) {
    return error_of(ErrorCode::null_reference,
                    "this reference refers to nothing; take one from publish() or find()");
  }
  const std::lock_guard lock(registry_mutex);
  if (bits.tree != tree || bits.slot >= kMaxPublished) {
    return error_of(ErrorCode::wrong_process_tree,
                    "this reference was made in another process tree; it is good only where its "
                    "object was published and in what is forked from there");
  }
  const Record& record = records[bits.slot];
  if (record.generation < bits.generation) {
    return error_of(ErrorCode::published_too_late,
                    "the object was published after this process was forked, or in a process that "
                    "this one does not descend from; publish it before the fork");
  }
  if (record.generation > bits.generation) {
    return error_of(ErrorCode::released, "the object was withdrawn, or its arena destroyed");
  }
  switch (record.state) {
    case SlotState::not_inherited:
      return error_of(ErrorCode::not_inherited,
                      quoted(record) + ": " + record.arena->not_inherited_error().value().message);
    case SlotState::live: return wrong_type(record, type);
    default:
      return error_of(ErrorCode::released,
                      quoted(record) + " was withdrawn, or its arena destroyed");
  }
}

Expected<void> internal::withdraw(const RefBits& bits, const TypeInfo& type) {
  {
    const std::lock_guard lock(registry_mutex);
    const Record& record = records[bits.slot % kMaxPublished];
    if (record.state == SlotState::live && bits == bits_of(record) && record.type_id == type.id) {
      vacate(bits.slot, SlotState::released);
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
  const std::lock_guard lock(registry_mutex);
  std::vector<Published> result;
  for (std::uint32_t slot = 0; slot < high; ++slot) {
    const Record& record = records[slot];
    if (record.state == SlotState::live) {
      result.push_back({record.name.data(), std::string(record.type), record.bytes,
                        record.arena->name(), record.generation, record.publisher});
    }
  }
  return result;
}

std::mutex& registry::mutex() { return registry_mutex; }

void registry::start_tree() {
  const std::lock_guard lock(registry_mutex);
  start_tree_locked();
}

std::vector<registry::ImageObject> registry::named_in(const ArenaCore& arena) {
  const std::lock_guard lock(registry_mutex);
  std::vector<ImageObject> result;
  for (std::uint32_t slot = 0; slot < high; ++slot) {
    const Record& record = records[slot];
    if (record.state == SlotState::live && record.arena == &arena && record.name[0] != '\0') {
      result.push_back({record.name.data(), std::string(record.type), record.fingerprint,
                        record.type_size, reinterpret_cast<std::uintptr_t>(record.address.load()),
                        record.bytes, record.alignment, record.array, record.spawn_safe});
    }
  }
  return result;
}

Expected<void> registry::publish_image(const ArenaCore& arena,
                                       const std::vector<ImageObject>& objects, bool same_code) {
  const std::lock_guard lock(registry_mutex);
  start_tree_locked();
  std::vector<std::uint32_t> slots;
  const auto undo = [&](Error error) {
    for (const std::uint32_t slot : slots) {
      vacate(slot, SlotState::released);
    }
    return tl::make_unexpected(std::move(error));
  };
  for (const ImageObject& object : objects) {
    if (const Record* other = find_record(object.name)) {
      return undo(error_of(ErrorCode::invalid_argument,
                           "'" + object.name + "' is published already, in arena '" +
                               other->arena->name() +
                               "'; withdraw() it first, or open the image with .publish = false"));
    }
    const auto slot = take_slot();
    if (!slot) {
      return undo(slot.error());
    }
    Record& record = begin_record(*slot, object.name, arena);
    slots.push_back(*slot);
    record.address = reinterpret_cast<const void*>(object.address);
    record.bytes = object.bytes;
    record.alignment = object.alignment;
    record.type = keep_forever(object.type);
    record.type_size = object.type_size;
    record.spawn_safe = object.spawn_safe;
    record.array = object.array;
    record.foreign_code = !same_code;
    record.fingerprint = record.type_id = object.fingerprint;
    record.of_image = true;
    show_object(record);  // for stray writes: nobody has a reference
    enter_in_layout(*slot);
  }
  return {};
}

void registry::release_all_in(const ArenaCore* arena) {
  const std::lock_guard lock(registry_mutex);
  for (std::uint32_t slot = 0; slot < high; ++slot) {
    const Record& record = records[slot];
    const bool held = record.state == SlotState::live || record.state == SlotState::not_inherited;
    if (held && record.arena == arena) {
      vacate(slot, SlotState::released);
    }
  }
}

void registry::disown_not_inherited() {
  for (std::uint32_t slot = 0; slot < high; ++slot) {
    const Record& record = records[slot];
    if (record.state == SlotState::live && !record.arena->holds(record.address)) {
      vacate(slot, SlotState::not_inherited);
    }
  }
}

registry::Hit registry::object_at(std::uintptr_t address) noexcept {
  const std::uint32_t end = high.load();
  for (std::uint32_t slot = 0; slot < end; ++slot) {
    const Record& record = records[slot];
    if (published_slots[slot].stamp.load(std::memory_order_acquire) == 0 ||
        record.name[0] == '\0') {
      continue;
    }
    const auto begin = reinterpret_cast<std::uintptr_t>(record.address.load());
    if (address >= begin && address - begin < record.bytes.load()) {
      return {record.name.data(), address - begin};
    }
  }
  return {};
}

}  // namespace cowshed
