#include <algorithm>
#include <cerrno>
#include <mutex>
#include <sys/mman.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/share/arena/access.h>
#include <cowshed/share/arena/table.h>
#include <cowshed/share/export/image_format.h>
#include <cowshed/share/export/parcel.h>
#include <cowshed/share/export/parcel_format.h>
#include <cowshed/share/jemalloc/outside_scope.h>
#include <cowshed/share/os/memfd.h>
#include <cowshed/share/process/tree.h>
#include <cowshed/share/registry/objects.h>
#include <cowshed/share/stray_write.h>

namespace cowshed::internal {
namespace {

namespace format = parcel_format;
using addresses::Holder;
using Description = ArenaCore::Description;
using Files = std::vector<FileDescriptor>;

// Writes a parcel to an Encoder.
class Packer {
 public:
  explicit Packer(Encoder& to) : to_(to) { to.put_descriptor(process_tree::descriptor()); }

  // The caller holds the core's mutex.
  void add_frozen(ArenaCore& core) {
    core.note_known_elsewhere();
    format::Contents::Arena arena{core.describe(), {}};
    std::vector<int> files;
    for (Segment& segment : arena.description.segments) {
      auto file = std::ranges::find(files, segment.file.fd);
      if (file == files.end()) {
        if (!segment.file.is_ours()) {
          throw std::system_error(EBADF, std::generic_category(),
                                  descriptor_was_closed("arena '" + arena.description.name + "'"));
        }
        to_.put_descriptor(segment.file.fd);
        file = files.insert(file, segment.file.fd);
      }
      segment.file.fd = static_cast<int>(file - files.begin());
    }
    const std::uintptr_t end = arena.description.begin + arena.description.used;
    format::Contents::Lost lost{arena.description.name, {}};
    for (auto& object : registry::objects_in(core))
      (object.address < end ? arena.objects : lost.objects).push_back(std::move(object));
    contents_.arenas.push_back(std::move(arena));
    contents_.lost.push_back(std::move(lost));
  }

  void add_lost(const ArenaCore& core) {
    contents_.lost.push_back({core.name(), registry::objects_in(core)});
  }

  void finish() {
    contents_.tree = process_tree::id();
    contents_.last_generation = process_tree::last_generation();
    std::erase_if(contents_.lost, [](const auto& lost) { return lost.objects.empty(); });
    format::write(to_, contents_);
  }

 private:
  Encoder& to_;
  format::Contents contents_;
};

tl::unexpected<Error> damaged(const std::exception& failure) {
  return make_error(ErrorCode::bad_message, std::string("arenas as received: ") + failure.what());
}

tl::unexpected<Error> foreign(const std::string& message) {
  return make_error(ErrorCode::foreign_descriptor, message);
}

// Checks a received file before it is mapped.  A file that another process can shrink or write to
// could cause SIGBUS or wrong data here.
Expected<void> check_file(const Description& arena, const Segment& segment, int fd) {
  const std::string who = "arena '" + arena.name + "' as received";
  struct stat status{};
  if (fstat(fd, &status) != 0) return system_error(who + ": fstat", errno);
  const auto bytes = static_cast<std::uint64_t>(status.st_size);
  if (segment.payload == 0 && !has_seals(fd, kSealed))
    return foreign(who + " comes with a descriptor that is not of a sealed memfd");
  if (segment.payload != 0 &&
      !(S_ISREG(status.st_mode) && image_format::is_image(fd, arena.begin, segment.payload))) {
    return foreign(who + " comes with a descriptor that is not of its image");
  }
  if (bytes < segment.payload + segment.run.end) {
    return foreign(who + " comes with a file of " + std::to_string(bytes) +
                   " bytes, of which it needs " +
                   std::to_string(segment.payload + segment.run.end));
  }
  return {};
}

// Takes the files that the arena's segments refer to.
Files take_files(Decoder& from, const Description& arena) {
  int count = 0;
  for (const Segment& segment : arena.segments) count = std::max(count, segment.file.fd + 1);
  Files files;
  for (int i = 0; i < count; ++i) files.emplace_back(from.take_descriptor());
  return files;
}

// Fails if an arena of this process has these addresses.  An arena that this process did not
// inherit gives them up, because the parcel may have the same arena.
Expected<void> make_way(const Description& arena, const std::string& who) {
  for (ArenaCore* core : all_cores()) {
    const std::lock_guard lock(core->mutex());
    if (core->begin() >= arena.begin + arena.capacity || arena.begin >= core->end()) continue;
    if (core->state() == ArenaState::not_inherited) {
      core->forget_range();
      continue;
    }
    return make_error(ErrorCode::address_taken,
                      who + " has the addresses of arena '" + core->name() +
                          "' of this process, or is that; destroy it first");
  }
  return {};
}

Expected<void> map_arena(const Description& arena, Holder holder, const std::string& who) {
  TRY_VOID(make_way(arena, who));
  TRY_VOID(map_range(-1, arena.begin, arena.capacity, holder, who,
                     "unmap it, or have the arena in another process"));
  const int protection = arena.mode == FreezeMode::strict ? PROT_READ : PROT_READ | PROT_WRITE;
  for (const auto& [run, file, payload] : arena.segments) {
    if (mmap(reinterpret_cast<void*>(arena.begin + run.begin), run.end - run.begin, protection,
             MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, file.fd,
             static_cast<off_t>(payload + run.begin)) == MAP_FAILED) {
      auto error = system_error(who + " cannot be mapped by mmap", errno);
      unmap_arena(arena.begin, arena.capacity);
      return error;
    }
  }
  return {};
}

// Whether the arena is mapped here already, from the same files.
bool is_here(const Arena& arena, const Description& wanted, const Files& files) {
  ArenaCore& core = *ArenaAccess::core_of(arena);
  const std::lock_guard lock(core.mutex());
  const Description here = core.describe();
  return here.name == wanted.name && here.begin == wanted.begin && here.used == wanted.used &&
         here.mode == wanted.mode && here.generation == wanted.generation &&
         std::equal(here.segments.begin(), here.segments.end(), wanted.segments.begin(),
                    wanted.segments.end(), [&](const Segment& a, const Segment& b) {
                      return a.run.begin == b.run.begin && a.run.end == b.run.end &&
                             a.file.identity ==
                                 identity_of(files[static_cast<std::size_t>(b.file.fd)].get());
                    });
}

}  // namespace

tl::unexpected<Error> packing_error(const std::runtime_error& failure) {
  const auto* refused = dynamic_cast<const std::system_error*>(&failure);
  return make_error(ErrorCode::system_call, std::string("a parcel of arenas: ") + failure.what(),
                    refused == nullptr ? 0 : refused->code().value());
}

Expected<Content> pack_arenas() {
  const OutsideScope outside;
  TRY_VOID(process_tree::start());
  try {
    Encoder to;
    Packer packer(to);
    for (ArenaCore* core : all_cores()) {
      const std::lock_guard lock(core->mutex());
      if (core->frozen() || (core->is_open() && core->generation() > 0)) packer.add_frozen(*core);
      else if (core->state() != ArenaState::vacant) packer.add_lost(*core);
    }
    packer.finish();
    return to.finish();
  } catch (const std::runtime_error& failure) {
    return packing_error(failure);
  }
}

Expected<void> pack_arena(const Arena& arena, Encoder& to) {
  const OutsideScope outside;
  if (ArenaAccess::core_of(arena) == nullptr) return moved_from_error();
  ArenaCore& core = *ArenaAccess::core_of(arena);
  const std::lock_guard lock(core.mutex());
  TRY_VOID(core.expect_frozen());
  try {
    Packer packer(to);
    packer.add_frozen(core);
    packer.finish();
    return {};
  } catch (const std::runtime_error& failure) {
    return packing_error(failure);
  }
}

Expected<Arena> adopt_arena(Description arena, Files files, Holder holder, const std::string& who) {
  for (Segment& segment : arena.segments)
    segment.file = HeldFile::of(files[static_cast<std::size_t>(segment.file.fd)].get());
  if (const int error = install_stray_write_handler())
    return system_error("the SIGSEGV handler cannot be installed", error);
  TRY(VacantCore core, take_vacant_core());
  TRY_VOID(map_arena(arena, holder, who));
  {
    const std::lock_guard lock(core->mutex());
    core->adopt(std::move(arena));
  }
  for (FileDescriptor& file : files) file.release();
  show_arena(*core);
  return ArenaAccess::arena_of(core.release());
}

Expected<std::vector<Arena>> adopt_arenas(Decoder& from, KeepNames names, std::vector<Arena> had) {
  const OutsideScope outside;
  format::Contents contents;
  FileDescriptor tree;
  std::vector<Files> files;
  try {
    contents = format::read(from);
    tree = FileDescriptor(from.take_descriptor());
    for (const auto& arena : contents.arenas) files.push_back(take_files(from, arena.description));
  } catch (const std::runtime_error& failure) {
    return damaged(failure);
  }
  for (std::size_t i = 0; i < files.size(); ++i) {
    const Description& arena = contents.arenas[i].description;
    for (const Segment& segment : arena.segments)
      TRY_VOID(
          check_file(arena, segment, files[i][static_cast<std::size_t>(segment.file.fd)].get()));
  }
  const bool is_new = process_tree::id() != contents.tree;
  TRY_VOID(registry::join_tree(contents.tree, std::move(tree), contents.last_generation,
                               "the parcel of arenas received"));
  // A new member of the tree was started by the sender.  Any other process may outlive the sender.
  const Holder holder = is_new ? Holder::sender : Holder::this_process;
  std::vector<Arena> arenas;
  std::vector<registry::ArenaObjects> publications;
  std::vector<bool> stays(files.size());
  for (std::size_t i = 0; i < files.size(); ++i) {
    auto& [description, objects] = contents.arenas[i];
    const auto here = std::ranges::find_if(
        had, [&](const Arena& arena) { return is_here(arena, description, files[i]); });
    if (here == had.end()) continue;
    registry::keep_objects(*ArenaAccess::core_of(*here), objects);
    publications.push_back({ArenaAccess::core_of(*here), std::move(objects)});
    arenas.push_back(std::move(*here));
    had.erase(here);
    stays[i] = true;
  }
  had.clear();
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (stays[i]) continue;
    auto& [description, objects] = contents.arenas[i];
    const std::string who = "arena '" + description.name + "' as received";
    TRY(Arena arena, adopt_arena(std::move(description), std::move(files[i]), holder, who));
    if (names == KeepNames::no)
      for (registry::Object& object : objects) object.name.clear();
    publications.push_back({ArenaAccess::core_of(arena), std::move(objects)});
    arenas.push_back(std::move(arena));
  }
  TRY_VOID(registry::publish_foreign(publications,
                                     "withdraw() it first, or publish it without a name there"));
  for (const auto& [arena, objects] : contents.lost) registry::enter_lost(arena, objects);
  return arenas;
}

Expected<std::vector<Arena>> adopt_arenas(Content content, std::vector<Arena> had) {
  if (content.file_bytes() > kMostParcel) return damaged(std::length_error("too long for arenas"));
  try {
    Decoder from(std::move(content));
    return adopt_arenas(from, KeepNames::yes, std::move(had));
  } catch (const std::runtime_error& failure) {
    return damaged(failure);
  }
}

Expected<void> adopt_for_ever(Content content) {
  // Never destroyed, because the kernel frees everything when the process ends.
  static auto& adopted = *new std::vector<Arena>;
  TRY(adopted, adopt_arenas(std::move(content), std::move(adopted)));
  return {};
}

}  // namespace cowshed::internal
