#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <mutex>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include <cowshed/share/arena_access.h>
#include <cowshed/share/arena_table.h>
#include <cowshed/share/file_size_limit.h>
#include <cowshed/share/image_format.h>
#include <cowshed/share/malloc_route.h>
#include <cowshed/share/memfd.h>
#include <cowshed/share/parcel.h>
#include <cowshed/share/parcel_format.h>
#include <cowshed/share/process_tree.h>
#include <cowshed/share/registry_table.h>
#include <cowshed/share/stray_write.h>

namespace cowshed {
namespace {

namespace format = parcel_format;
using Description = ArenaCore::Description;

std::string who_is(const Description& arena) { return "arena '" + arena.name + "' as received"; }

// A parcel in the making.
class Packer {
 public:
  // With its mutex held.
  Expected<void> add_frozen(ArenaCore& core) {
    core.note_known_elsewhere();
    format::Contents::Arena arena{core.describe(), {}};
    const Description& description = arena.description;
    const auto files = description.segments.files();
    const auto first = static_cast<int>(descriptors_.size()) + kBefore;
    for (const int file : files) {
      descriptors_.emplace_back(fcntl(file, F_DUPFD_CLOEXEC, 0));
      if (!descriptors_.back()) {
        return system_error("a descriptor of arena '" + description.name + "'", errno);
      }
    }
    std::vector<Segment> segments = description.segments.segments();
    for (Segment& segment : segments) {
      const auto file = std::find(files.begin(), files.end(), segment.fd) - files.begin();
      segment.fd = first + static_cast<int>(file);
    }
    const std::uintptr_t end = description.begin + description.used;
    format::Contents::Lost lost{description.name, {}};
    for (auto& object : registry::objects_in(core)) {
      (object.address < end ? arena.objects : lost.objects).push_back(std::move(object));
    }
    arena.description.segments = SegmentMap(std::move(segments));
    contents_.arenas.push_back(std::move(arena));
    contents_.lost.push_back(std::move(lost));
    return {};
  }

  void add_lost(const ArenaCore& core) {
    contents_.lost.push_back({core.name(), registry::objects_in(core)});
  }

  Expected<Parcel> finish() {
    contents_.tree = process_tree::id();
    contents_.last_generation = process_tree::last_generation();
    std::erase_if(contents_.lost, [](const auto& lost) { return lost.objects.empty(); });
    const auto bytes = format::write(contents_);
    constexpr char kName[] = "cowshed-parcel";
    Parcel parcel;
    Descriptor memfd = make_memfd(kName, Sealable::yes);
    if (!memfd) {
      return system_error("a parcel of arenas: memfd_create", errno);
    }
    if (auto sized = set_file_size(memfd.get(), bytes.size(), kName); !sized) {
      return tl::make_unexpected(std::move(sized.error()));
    }
    if (write(memfd.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()) ||
        !seal(memfd.get())) {
      return system_error("write or fcntl(F_ADD_SEALS) of a parcel of arenas", errno);
    }
    Descriptor tree(fcntl(process_tree::descriptor(), F_DUPFD_CLOEXEC, 0));
    if (!tree) {
      return system_error("the descriptor of a process tree", errno);
    }
    parcel.descriptors.push_back(std::move(memfd));
    parcel.descriptors.push_back(std::move(tree));
    std::move(descriptors_.begin(), descriptors_.end(), std::back_inserter(parcel.descriptors));
    return parcel;
  }

 private:
  static constexpr int kBefore = format::kFirstFile;

  format::Contents contents_;
  std::vector<Descriptor> descriptors_;  // of files
};

tl::unexpected<Error> foreign(const std::string& message) {
  return make_error(ErrorCode::foreign_descriptor, message);
}

Expected<format::Contents> read_contents(const Parcel& parcel) {
  struct stat status{};
  if (parcel.descriptors.empty() || !has_seals(parcel.descriptors[0].get(), kSealed) ||
      fstat(parcel.descriptors[0].get(), &status) != 0 ||
      static_cast<std::uint64_t>(status.st_size) > format::kMostBytes) {
    return foreign(
        "what was received does not begin with a sealed memfd; send arenas by "
        "send_arena()");
  }
  std::vector<std::byte> bytes(static_cast<std::size_t>(status.st_size));
  if (pread(parcel.descriptors[0].get(), bytes.data(), bytes.size(), 0) != status.st_size) {
    return system_error("a parcel of arenas cannot be read", errno);
  }
  auto contents = format::read(bytes);
  if (contents && contents->descriptors() != parcel.descriptors.size()) {
    return make_error(ErrorCode::bad_parcel,
                      "a parcel of arenas came with " + std::to_string(parcel.descriptors.size()) +
                          " descriptors, not with " + std::to_string(contents->descriptors()));
  }
  return contents;
}

bool is_image_of(const Description& arena, int fd, std::uint64_t payload, std::uint64_t bytes) {
  std::vector<std::byte> page(image_format::kPage);
  const ssize_t got = pread(fd, page.data(), page.size(), 0);
  const auto header = image_format::parse_header(
      std::span(page).first(static_cast<std::size_t>(std::max<ssize_t>(got, 0))), bytes, "");
  return header && header->base == arena.begin && header->payload == payload;
}

// Whoever receives a descriptor looks at it before mapping it: else a file that shrinks, or that
// somebody writes to, would be SIGBUS or worse here.
Expected<void> check_file(const Description& arena, const Segment& segment, int fd) {
  struct stat status{};
  if (fstat(fd, &status) != 0) {
    return system_error(who_is(arena) + ": fstat", errno);
  }
  const auto bytes = static_cast<std::uint64_t>(status.st_size);
  if (segment.payload == 0 && !has_seals(fd, kSealed)) {
    return foreign(who_is(arena) + " comes with a descriptor that is not of a sealed memfd");
  }
  if (segment.payload != 0 &&
      !(S_ISREG(status.st_mode) && is_image_of(arena, fd, segment.payload, bytes))) {
    return foreign(who_is(arena) + " comes with a descriptor that is not of its image");
  }
  if (bytes < segment.payload + segment.run.end) {
    return foreign(who_is(arena) + " comes with a file of " + std::to_string(bytes) +
                   " bytes, of which it needs " +
                   std::to_string(segment.payload + segment.run.end));
  }
  return {};
}

Expected<void> check_files(const format::Contents& contents, const Parcel& parcel) {
  for (const auto& [arena, objects] : contents.arenas) {
    for (const Segment& segment : arena.segments.segments()) {
      auto checked = check_file(arena, segment,
                                parcel.descriptors[static_cast<std::size_t>(segment.fd)].get());
      if (!checked) {
        return checked;
      }
    }
  }
  return {};
}

// An arena of this process may be in the way; or the same one, which was not frozen when this
// process was forked, and comes now.
Expected<void> make_way(const Description& arena) {
  for (ArenaCore* core : all_cores()) {
    const std::lock_guard lock(core->mutex());
    if (core->begin() >= arena.begin + arena.capacity || arena.begin >= core->end()) {
      continue;
    }
    if (core->state() == ArenaState::not_inherited) {
      core->forget_range();
      continue;
    }
    return make_error(ErrorCode::address_taken,
                      who_is(arena) + " has the addresses of arena '" + core->name() +
                          "' of this process, or is that; destroy it first");
  }
  return {};
}

Expected<void> map_arena(const Description& arena, Holder holder) {
  if (auto free = make_way(arena); !free) {
    return free;
  }
  auto reserved = reserve_range(arena.begin, arena.capacity, holder, who_is(arena),
                                "unmap it, or receive the arena in another process");
  if (!reserved) {
    return reserved;
  }
  const int protection = arena.mode == FreezeMode::strict ? PROT_READ : PROT_READ | PROT_WRITE;
  for (const auto& [run, fd, payload] : arena.segments.segments()) {
    if (mmap(reinterpret_cast<void*>(arena.begin + run.begin), run.end - run.begin, protection,
             MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, fd,
             static_cast<off_t>(payload + run.begin)) == MAP_FAILED) {
      auto error = system_error(who_is(arena) + " cannot be mapped", errno);
      unmap_arena(arena.begin, arena.capacity);
      return error;
    }
  }
  return {};
}

// Takes the descriptors that the arena's segments name.
Expected<Arena> adopt_arena(Description arena, Parcel& parcel, Holder holder) {
  std::vector<Segment> segments = arena.segments.segments();
  for (Segment& segment : segments) {
    segment.fd = parcel.descriptors[static_cast<std::size_t>(segment.fd)].get();
  }
  const auto indexes = arena.segments.files();
  arena.segments = SegmentMap(std::move(segments));
  auto core = take_vacant_core();
  if (!core) {
    return tl::make_unexpected(std::move(core.error()));
  }
  if (auto mapped = map_arena(arena, holder); !mapped) {
    give_back_core(*core);
    return tl::make_unexpected(std::move(mapped.error()));
  }
  {
    const std::lock_guard lock((*core)->mutex());
    (*core)->adopt(std::move(arena));
  }
  for (const int index : indexes) {
    parcel.descriptors[static_cast<std::size_t>(index)].release();
  }
  show_arena(**core);
  return ArenaAccess::arena_of(*core);
}

}  // namespace

Expected<Parcel> pack_arenas() {
  const OutsideScope outside;
  {
    const std::lock_guard lock(registry::mutex());
    if (auto started = process_tree::start(); !started) {
      return tl::make_unexpected(std::move(started.error()));
    }
  }
  Packer packer;
  for (ArenaCore* core : all_cores()) {
    const std::lock_guard lock(core->mutex());
    if (core->frozen() || (core->is_open() && core->generation() > 0)) {
      if (auto added = packer.add_frozen(*core); !added) {
        return tl::make_unexpected(std::move(added.error()));
      }
    } else if (core->state() != ArenaState::vacant) {
      packer.add_lost(*core);
    }
  }
  return packer.finish();
}

Expected<Parcel> pack_arena(const Arena& arena) {
  const OutsideScope outside;
  if (ArenaAccess::core_of(arena) == nullptr) {
    return moved_from_error();
  }
  ArenaCore& core = *ArenaAccess::core_of(arena);
  const std::lock_guard lock(core.mutex());
  if (auto expected = core.expect_frozen(); !expected) {
    return tl::make_unexpected(std::move(expected.error()));
  }
  Packer packer;
  if (auto added = packer.add_frozen(core); !added) {
    return tl::make_unexpected(std::move(added.error()));
  }
  return packer.finish();
}

Expected<std::vector<Arena>> adopt_arenas(Parcel parcel, Names names) {
  const OutsideScope outside;
  auto contents = read_contents(parcel);
  if (!contents) {
    return tl::make_unexpected(std::move(contents.error()));
  }
  if (auto checked = check_files(*contents, parcel); !checked) {
    return tl::make_unexpected(std::move(checked.error()));
  }
  const bool is_new = process_tree::id() != contents->tree;
  if (auto joined = registry::join_tree(contents->tree, std::move(parcel.descriptors[1]),
                                        contents->last_generation, "the parcel of arenas received");
      !joined) {
    return tl::make_unexpected(std::move(joined.error()));
  }
  if (const int error = internal::install_stray_write_handler()) {
    return system_error("the SIGSEGV handler cannot be installed", error);
  }
  // Who has just become a member was started by the sender; any other may outlive it.
  const Holder holder = is_new ? Holder::sender : Holder::this_process;
  std::vector<Arena> arenas;
  std::vector<registry::Publication> publications;
  for (auto& [description, objects] : contents->arenas) {
    auto arena = adopt_arena(std::move(description), parcel, holder);
    if (!arena) {
      return tl::make_unexpected(std::move(arena.error()));
    }
    if (names == Names::left_behind) {
      for (registry::Object& object : objects) {
        object.name.clear();
      }
    }
    publications.push_back({ArenaAccess::core_of(*arena), std::move(objects)});
    arenas.push_back(std::move(*arena));
  }
  auto published = registry::publish_foreign(
      publications, "withdraw() it first, or publish it without a name there");
  if (!published) {
    return tl::make_unexpected(std::move(published.error()));
  }
  for (const auto& [arena, objects] : contents->lost) {
    registry::enter_lost(arena, objects);
  }
  return arenas;
}

}  // namespace cowshed
