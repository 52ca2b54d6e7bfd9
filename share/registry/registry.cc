#include <algorithm>
#include <array>
#include <cstdio>
#include <iterator>
#include <string>
#include <unistd.h>
#include <unordered_set>
#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/share/arena/table.h>
#include <cowshed/share/jemalloc/outside_scope.h>
#include <cowshed/share/os/code_id.h>
#include <cowshed/share/process/published_layout.h>
#include <cowshed/share/process/tree.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/registry/tables.h>

// Implements share/registry.h, the slow paths of share/ref.h, and objects.h, in this order.  Each
// function locks the tables once.
namespace cowshed {

using namespace internal;
using namespace registry;

namespace {

// The tree's last publication when this process joined it.
std::uint32_t joined_at = 0;

std::string quoted(const Record& record) {
  const std::string& name = record.object.name;
  return name.empty() ? "the object without a name" : "'" + name + "'";
}

Error wrong_type(const Record& record, const TypeInfo& asked) {
  return {ErrorCode::wrong_type, 0,
          quoted(record) + " was published as " + record.object.type + " (" +
              std::to_string(record.object.type_size) + " bytes), not as " +
              std::string(asked.name) + " (" + std::to_string(asked.size) + " bytes)"};
}

Error not_spawn_safe(const Record& record) {
  return {ErrorCode::not_spawn_safe, 0,
          quoted(record) + " is a " + record.object.type +
              ", which may hold pointers to code, and it was made in another program, or "
              "in this one at other addresses; make it of trivially copyable types and "
              "containers with ArenaAllocator, or specialise cowshed::spawn_safe"};
}

Error not_inherited(const Record& record) {
  if (record.arena != nullptr) return record.arena->not_inherited_error().value();
  return {ErrorCode::not_inherited, 0,
          "arena '" + record.lost_arena +
              "' was not frozen when this process was started; freeze() it before that"};
}

bool is_good(const Record* record, const TypeInfo& type) {
  return record != nullptr && record->live && has_type(*record, type);
}

// Why this process has no record of a generation.
Error no_record(const RefBits& bits) {
  if (newest[bits.slot] >= bits.generation)
    return {ErrorCode::released, 0, "the object was withdrawn, or its arena destroyed"};
  if (bits.generation <= joined_at) {
    return {ErrorCode::released, 0,
            "the object was withdrawn, or its arena destroyed, before this process was started"};
  }
  return {ErrorCode::published_too_late, 0,
          "the object was published after this process was started, or in a process that "
          "this one does not descend from; publish it before that, or send its arena"};
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
  TRY(const std::uint32_t generation, take_generation());
  Record entered;
  entered.arena = arena;
  entered.object = {.name = std::string(name == nullptr ? "" : *name),
                    .type = std::string(type.name),
                    .fingerprint = fingerprint_of(type),
                    .type_size = type.size,
                    .address = reinterpret_cast<std::uintptr_t>(address),
                    .bytes = bytes,
                    .alignment = alignment,
                    .array = type.make_span != nullptr,
                    .spawn_safe = spawn_safe,
                    .generation = generation,
                    .publisher = getpid()};
  Record& record = enter(std::move(entered));
  fill_slot(record, type);
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
  if (record->rtti == nullptr) fill_slot(*record, type);
  return bits_of(*record);
}

Expected<void> internal::withdraw(const RefBits& bits, const TypeInfo& type) {
  {
    const std::lock_guard lock(process_tree::mutex());
    if (is_good(find_record(bits), type)) {
      release(records().find(bits.generation));
      return {};
    }
  }
  return tl::make_unexpected(explain(bits, type));
}

std::vector<Published> published() {
  const std::lock_guard lock(process_tree::mutex());
  std::vector<Published> result;
  for (const auto& [generation, record] : records()) {
    const Object& object = record.object;
    if (record.live) {
      result.push_back({object.name, object.type, object.bytes, record.arena->name(), generation,
                        object.publisher});
    }
  }
  return result;
}

const void* internal::resolve(const RefBits& bits, const TypeInfo& type) noexcept {
  if (bits == RefBits{}) return nullptr;
  const std::lock_guard lock(process_tree::mutex());
  Record* record = find_record(bits);
  return is_good(record, type) && !has_foreign_code(*record) ? fill_slot(*record, type) : nullptr;
}

Error internal::explain(const RefBits& bits, const TypeInfo& type) {
  if (bits == RefBits{}) {
    return {ErrorCode::null_reference, 0,
            "this reference refers to nothing; take one from publish() or find()"};
  }
  const std::lock_guard lock(process_tree::mutex());
  if (bits.tree != process_tree::id() || bits.slot != bits.generation % kMaxPublished) {
    return {ErrorCode::wrong_process_tree, 0,
            "this reference was made in another process tree; it is good only where its "
            "object was published and in what was started from there"};
  }
  const Record* record = find_record(bits);
  if (record == nullptr) return no_record(bits);
  if (!record->live)
    return {ErrorCode::not_inherited, 0, quoted(*record) + ": " + not_inherited(*record).message};
  return has_type(*record, type) ? not_spawn_safe(*record) : wrong_type(*record, type);
}

std::string internal::describe(const RefBits& bits, std::string_view type) {
  const std::string head = "Ref<" + std::string(type) + ">(";
  if (bits == RefBits{}) return head + "nothing)";
  std::array<char, 17> tree{};
  std::snprintf(tree.data(), tree.size(), "%016lx", bits.tree);
  return head + "slot " + std::to_string(bits.slot) + ", generation " +
         std::to_string(bits.generation) + ", tree " + tree.data() + ")";
}

Expected<void> registry::join_tree(std::uint64_t id, FileDescriptor memfd,
                                   std::uint32_t last_generation, const std::string& who) {
  const auto cores = all_cores();
  const std::lock_guard lock(process_tree::mutex());
  if (process_tree::id() == id) {
    process_tree::know_generation(last_generation);
    return {};
  }
  if (std::ranges::any_of(
          cores, [](const ArenaCore* core) { return core->state() != ArenaState::vacant; })) {
    return make_error(ErrorCode::wrong_process_tree,
                      who +
                          " is of another process tree than the arenas that this process has; "
                          "receive before you create any, or save_image() there");
  }
  TRY_VOID(process_tree::join(std::move(memfd), id, who));
  joined_at = last_generation;
  process_tree::know_generation(last_generation);
  layout::create();
  return {};
}

std::vector<registry::Object> registry::objects_in(const ArenaCore& arena) {
  const std::lock_guard lock(process_tree::mutex());
  const std::uint64_t here = code_id();
  std::vector<Object> result;
  for (const auto& [generation, record] : records()) {
    if (record.arena != &arena) continue;
    Object& object = result.emplace_back(record.object);
    if (object.code == 0) object.code = here;
  }
  return result;
}

Expected<void> registry::publish_foreign(const std::vector<Publication>& publications,
                                         const std::string& advice) {
  const OutsideScope outside;
  const std::uint64_t here = code_id();
  const std::lock_guard lock(process_tree::mutex());
  std::vector<std::uint32_t> entered;
  const auto undo = [&](tl::unexpected<Error> error) {
    for (const std::uint32_t generation : entered) release(records().find(generation));
    return error;
  };
  for (const auto& [arena, objects] : publications) {
    for (const Object& object : objects) {
      if (const Record* other = object.name.empty() ? nullptr : find_name(object.name, true)) {
        return undo(make_error(ErrorCode::invalid_argument,
                               "'" + object.name + "' is published already, in arena '" +
                                   other->arena->name() + "'; " + advice));
      }
      const auto known = records().find(object.generation);
      if (live_count == kMaxPublished || (known != records().end() && known->second.live))
        return undo(full_error());
      Record record;
      record.arena = arena;
      record.object = object;
      if (object.code == here) record.object.code = 0;
      if (object.generation == 0) {
        const auto generation = take_generation();
        if (!generation) return undo(tl::make_unexpected(generation.error()));
        record.object.generation = *generation;
        record.object.publisher = getpid();
      }
      entered.push_back(enter(std::move(record)).object.generation);
    }
  }
  return {};
}

void registry::keep_objects(const ArenaCore& arena, std::vector<Object>& objects) {
  const OutsideScope outside;
  const std::lock_guard lock(process_tree::mutex());
  std::unordered_set<std::uint32_t> wanted;
  for (const Object& object : objects) wanted.insert(object.generation);
  for (auto place = records().begin(); place != records().end();) {
    const Record& record = place->second;
    const bool is_withdrawn = record.arena == &arena && record.object.publisher != getpid() &&
                              !wanted.contains(record.object.generation);
    place = is_withdrawn ? release(place) : std::next(place);
  }
  std::erase_if(objects, [&](const Object& object) {
    const auto known = records().find(object.generation);
    return known != records().end() && known->second.live;
  });
}

void registry::enter_lost(const std::string& arena, const std::vector<Object>& objects) {
  const OutsideScope outside;
  const std::lock_guard lock(process_tree::mutex());
  for (const Object& object : objects) {
    if (records().contains(object.generation)) continue;
    if (records().size() - live_count == kMaxPublished) return;
    Record record;
    record.live = false;
    record.object.generation = object.generation;
    record.object.name = object.name;
    record.lost_arena = arena;
    enter(std::move(record));
  }
}

}  // namespace cowshed
