#include <algorithm>
#include <array>
#include <cstdio>
#include <iterator>
#include <string>
#include <unistd.h>
#include <unordered_set>
#include <utility>

#include <cowshed/base/exception_text.h>
#include <cowshed/base/try.h>
#include <cowshed/share/arena/table.h>
#include <cowshed/share/jemalloc/outside_scope.h>
#include <cowshed/share/os/code_id.h>
#include <cowshed/share/process/published_layout.h>
#include <cowshed/share/process/tree.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/registry/tables.h>

// Implements share/registry.h, the slow paths of share/ref.h, and objects.h, in this order.  A
// function that holds the mutex calls none that locks it: the mutex is not recursive.
namespace cowshed {

using namespace internal;
using namespace registry;

namespace {

// The tree's last publication when this process joined it; 0: it joined none.  Under the mutex.
std::uint32_t joined_generation = 0;

constexpr std::size_t kMaxName = sizeof(layout::Object::name) - 1;  // the layout adds a NUL

std::string quoted(const Record& record) {
  const std::string name = without_controls(record.object.name);
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
  const std::string who = quoted(record) + ": ";
  if (record.arena != nullptr)
    return {ErrorCode::not_inherited, 0, who + record.arena->not_inherited_error().value().message};
  return {ErrorCode::not_inherited, 0,
          who + "arena '" + record.lost_arena +
              "' was not frozen when this process was started; freeze() it before that"};
}

std::string called(const std::string_view* name) {
  return name == nullptr ? "the object" : "'" + std::string(*name) + "'";
}

Expected<RefBits> enter_new(const std::string_view* name, const Publication& publication,
                            const ArenaCore* arena) {
  const auto& [address, bytes, alignment, type, spawn_safe] = publication;
  if (name != nullptr &&
      (name->empty() || name->size() > kMaxName || name->find('\0') != std::string_view::npos)) {
    return make_error(ErrorCode::invalid_argument, "a name has 1 to " + std::to_string(kMaxName) +
                                                       " characters and no NUL, unlike " +
                                                       called(name));
  }
  const std::lock_guard lock(process_tree::mutex());
  if (name != nullptr && find_live(*name) != nullptr) {
    return make_error(
        ErrorCode::invalid_argument,
        called(name) + " is published already; withdraw() it first, or use another name");
  }
  TRY(const std::uint32_t generation, take_generation());
  Record made;
  made.arena = arena;
  made.object = {.name = std::string(name == nullptr ? "" : *name),
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
  Record& record = enter(std::move(made));
  fill_slot(record, type);
  return bits_of(record);
}

bool is_live_as(const Record* record, const TypeInfo& type) {
  return record != nullptr && record->live && has_type(*record, type);
}

// Why this process has no record of a publication.
Error no_record(RefBits bits) {
  if (newest[bits.slot()] >= bits.generation())
    return {ErrorCode::released, 0, "the object was withdrawn, or its arena destroyed"};
  if (bits.generation() <= joined_generation) {
    return {ErrorCode::released, 0,
            "the object was withdrawn, or its arena was destroyed or not sent to this process"};
  }
  return {ErrorCode::published_too_late, 0,
          "the object was published after this process was started, or in a process that "
          "this one does not descend from; publish it before that, or send its arena"};
}

}  // namespace

Expected<RefBits> internal::publish(const std::string_view* name, const Publication& publication) {
  const OutsideScope outside;
  const auto& [address, bytes, alignment, type, spawn_safe] = publication;
  const ArenaCore* arena = find_arena(address);
  if (arena == nullptr || arena->end() - reinterpret_cast<std::uintptr_t>(address) < bytes) {
    return make_error(ErrorCode::not_in_arena,
                      called(name) + " does not lie in an arena; make it with Arena::make()");
  }
  if (!arena->holds(address)) return arena->not_inherited_error();
  return enter_new(name, publication, arena);
}

Expected<RefBits> registry::publish_own(const std::string_view* name, const void* object,
                                        const TypeInfo& type) {
  const OutsideScope outside;
  TRY_VOID(process_tree::start());
  return enter_new(name, {object, type.size, type.alignment, type, false}, nullptr);
}

Expected<RefBits> internal::find(std::string_view name, const TypeInfo& type) {
  const std::lock_guard lock(process_tree::mutex());
  Record* record = find_live(name);
  if (record == nullptr) {
    if (const Record* lost = find_lost(name)) return tl::make_unexpected(not_inherited(*lost));
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

Expected<void> internal::withdraw(RefBits bits, const TypeInfo& type) {
  {
    const std::lock_guard lock(process_tree::mutex());
    if (is_live_as(find_record(bits), type)) {
      release(records().find(bits.generation()));
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
    if (record.live && record.arena != nullptr) {
      result.push_back({object.name, object.type, object.bytes, record.arena->name(), generation,
                        object.publisher});
    }
  }
  return result;
}

const void* internal::resolve(RefBits bits, const TypeInfo& type) noexcept {
  if (bits == RefBits{}) return nullptr;
  const std::lock_guard lock(process_tree::mutex());
  Record* record = find_record(bits);
  return is_live_as(record, type) && !has_foreign_code(*record) ? fill_slot(*record, type)
                                                                : nullptr;
}

Error internal::explain(RefBits bits, const TypeInfo& type) {
  if (bits == RefBits{}) {
    return {ErrorCode::null_reference, 0,
            "this reference refers to nothing; take one from publish() or find()"};
  }
  const std::lock_guard lock(process_tree::mutex());
  const auto found = records().find(bits.generation());
  const bool is_known = found != records().end();
  if (bits.tree() != tree_bits() || (is_known && bits_of(found->second) != bits)) {
    return {ErrorCode::wrong_process_tree, 0,
            "this reference is damaged, or was made in another process tree; it is good only where "
            "its object was published and in what was started from there"};
  }
  if (!is_known) return no_record(bits);
  const Record& record = found->second;
  if (!record.live) return not_inherited(record);
  if (!has_type(record, type)) return wrong_type(record, type);
  if (has_foreign_code(record)) return not_spawn_safe(record);
  return {ErrorCode::published_too_late, 0,
          quoted(record) + " was received just after this use failed; use the reference again"};
}

std::string internal::describe(RefBits bits, std::string_view type) {
  const std::string head = "Ref<" + std::string(type) + ">(";
  if (bits == RefBits{}) return head + "nothing)";
  std::array<char, 17> tree{};
  std::snprintf(tree.data(), tree.size(), "%012lx", bits.tree());
  return head + "generation " + std::to_string(bits.generation()) + ", tree " + tree.data() + ")";
}

Expected<void> registry::join_tree(std::uint64_t id, FileDescriptor memfd,
                                   std::uint32_t last_generation, const std::string& who) {
  const std::lock_guard lock(process_tree::mutex());
  if (process_tree::id() == id) {
    process_tree::know_generation(last_generation);
    return {};
  }
  if (std::ranges::any_of(
          all_cores(), [](const ArenaCore* core) { return core->state() != ArenaState::vacant; })) {
    return make_error(ErrorCode::wrong_process_tree,
                      who +
                          " is of another process tree than the arenas that this process has; "
                          "receive before you create any, or save_image() there");
  }
  const bool had_tree = process_tree::id() != 0;
  TRY_VOID(process_tree::join(std::move(memfd), id, who));
  if (had_tree) {  // its generations mean other objects in this one
    while (!records().empty()) release(records().begin());
    newest.fill(0);
  }
  joined_generation = last_generation;
  process_tree::know_generation(last_generation);
  layout::create();
  return {};
}

std::vector<registry::Object> registry::objects_in(const ArenaCore& arena) {
  const std::uint64_t here = code_id();
  const std::lock_guard lock(process_tree::mutex());
  std::vector<Object> result;
  for (const auto& [generation, record] : records()) {
    if (record.arena != &arena) continue;
    Object& object = result.emplace_back(record.object);
    if (object.code == 0) object.code = here;
  }
  return result;
}

Expected<void> registry::publish_foreign(const std::vector<ArenaObjects>& arenas,
                                         const std::string& advice) {
  const OutsideScope outside;
  const std::uint64_t here = code_id();
  const std::lock_guard lock(process_tree::mutex());
  std::vector<std::uint32_t> entered;
  const auto undo = [&](tl::unexpected<Error> error) {
    for (const std::uint32_t generation : entered) release(records().find(generation));
    return error;
  };
  for (const auto& [arena, objects] : arenas) {
    for (const Object& object : objects) {
      const Record* other = find_live(object.name);
      const auto known = records().find(object.generation);
      if (other == nullptr && known != records().end() && known->second.live)
        other = &known->second;
      if (other != nullptr) {
        std::string where = quoted(*other) + " is published already";
        if (other->arena != nullptr)
          where.append(", in arena '").append(other->arena->name()) += '\'';
        return undo(make_error(ErrorCode::invalid_argument, where.append("; ").append(advice)));
      }
      if (live_count == kMaxPublished) return undo(full_error());
      Record record;
      record.arena = arena;
      record.object = object;
      record.received = object.generation != 0;
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
    // The sender does not know what this process published itself.
    const bool withdrawn_by_sender =
        record.arena == &arena && record.received && !wanted.contains(record.object.generation);
    place = withdrawn_by_sender ? release(place) : std::next(place);
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
    const std::size_t lost_count = records().size() - live_count;
    if (lost_count >= kMaxPublished) return;
    Record record;
    record.live = false;
    record.object.generation = object.generation;
    record.object.address = object.address;
    record.object.name = object.name;
    record.lost_arena = arena;
    enter(std::move(record));
  }
}

}  // namespace cowshed
