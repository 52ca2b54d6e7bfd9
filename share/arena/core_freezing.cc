#include <algorithm>
#include <cerrno>
#include <csignal>
#include <optional>
#include <string>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

#include <cowshed/base/memory_limits.h>
#include <cowshed/base/try.h>
#include <cowshed/share/arena/core.h>
#include <cowshed/share/arena/generation.h>
#include <cowshed/share/arena/mapping.h>
#include <cowshed/share/os/huge_pages.h>

// Freezing an arena, thawing it, freezing it again, and what can be done with its pages.
namespace cowshed::internal {
namespace {

// Reports a step of a longer one: `before` bytes were done before it, `after` follow it.
Progress part_of(const Progress& whole, std::size_t before, std::size_t after) {
  if (!whole) return nullptr;
  return [=, &whole](std::size_t done, std::size_t total) {
    whole(before + done, before + total + after);
  };
}

}  // namespace

// What a freeze makes ready while it can still be undone.
struct ArenaCore::NextGeneration {
  Generation sealed;  // what will be
  bool is_new = true;
  std::vector<Run> copied;
  SegmentMap segments;
  std::vector<HeldFile> unused_files;
  Frozen past;
};

Expected<void> ArenaCore::freeze(const FreezeOptions& options) {
  if (state() == ArenaState::not_inherited) return not_inherited_error();
  if (!is_open()) {
    if (state() == frozen_state(options.mode)) return {};
    return make_error(ErrorCode::arena_frozen,
                      who() + " is already frozen in the other mode: freeze() it once");
  }
  if (generation_ > 0 && options.mode != mode_)
    return make_error(ErrorCode::arena_frozen,
                      who() + " was frozen in the other mode before; refreeze() keeps its mode");
  return seal(options.mode, options.progress);
}

Expected<void> ArenaCore::expect_no_scope(std::string_view then) const {
  if (scopes_ == 0) return {};
  return make_error(ErrorCode::in_use, who() + ": " + std::to_string(scopes_) +
                                           " ArenaScope(s) have not ended; end them, then " +
                                           std::string(then));
}

// Ends the open part.  Its blocks and the pages that were written privately become a generation.
Expected<void> ArenaCore::seal(FreezeMode mode, const Progress& progress) {
  TRY_VOID(expect_no_scope("freeze"));
  if (!open_file_.is_ours()) return system_error(descriptor_was_closed(who()), EBADF);
  const std::size_t first = frozen_bytes();
  std::vector<Run> changed;
  if (first > 0) {
    TRY(changed, written_runs(begin(), first, who()));
  }
  if (!pause()) return no_membarrier(name());
  const auto go_on = [&](bool is_writable = true) {
    discard_copies(mapping(), first);
    if (is_writable) resume();  // else it stays paused
  };
  std::optional<NextGeneration> next;
  std::string who;
  try {
    auto prepared = prepare_generation(changed, progress);
    if (!prepared) {
      go_on();
      return tl::make_unexpected(std::move(prepared).error());
    }
    next = std::move(*prepared);
    who = this->who();
  } catch (...) {  // no memory, or an exception of `progress`
    go_on();
    throw;
  }
  if (!next->is_new) {
    abandon_reopened();
    return {};
  }
  if (const auto failed = seal_generation(next->sealed, mode)) {
    go_on(failed->may_go_on);
    return system_error(who + failed->what, failed->error);
  }
  become(*next, mode);
  return map_copies(next->sealed.mapping, next->copied, mode, who);
}

// Leaves the arena as it is, but for copies in the open memfd.
Expected<ArenaCore::NextGeneration> ArenaCore::prepare_generation(const std::vector<Run>& changed,
                                                                  const Progress& progress) {
  const std::size_t first = frozen_bytes();
  purge();
  NextGeneration next;
  next.past = past_;
  Frozen& now = next.past;
  add_live_blocks(now);
  const auto holes = memory_.trim();
  next.sealed = {mapping(), first, memory_.used()};
  next.is_new = generation_ == 0 || !changed.empty() || next.sealed.used > first;
  if (!next.is_new) return next;
  now.holes.insert(now.holes.end(), holes.begin(), holes.end());
  std::size_t collapsed = 0;
  if (huge_pages_) {
    collapsed = size_of(memory_.small());
    memory_.collapse(part_of(progress, 0, size_of(changed)));
  }
  memory_.add_to(now.taken, now.small, now.huge_page_error);
  TRY(next.copied, copy_changed(next.sealed, changed, part_of(progress, collapsed, 0), now));
  next.segments = segments_;
  for (const Run& run : next.copied) next.segments.assign(run, open_file_);
  next.segments.assign({first, next.sealed.used}, open_file_);
  now.on_disk = next.segments.bytes_on_disk(now.holes);
  next.unused_files = files_without(next.segments);
  return next;
}

void ArenaCore::become(NextGeneration& next, FreezeMode mode) noexcept {
  segments_ = std::move(next.segments);
  open_file_ = {};
  for (const HeldFile& file : next.unused_files) file.close();
  frozen_bytes_ = next.sealed.used;
  stop_jemalloc();
  past_ = std::move(next.past);
  mode_ = mode;
  frozen_by_ = getpid();
  ++generation_;
  state_.store(frozen_state(mode), std::memory_order_release);
}

// Copies into the generation what changed of the frozen part and, if there is memory for it, what
// is worth copying with that.  Returns the runs that were copied, and counts their pages in `now`.
Expected<std::vector<Run>> ArenaCore::copy_changed(const Generation& generation,
                                                   const std::vector<Run>& changed,
                                                   const Progress& progress, Frozen& now) const {
  std::vector<Run> small;
  const auto copy = [&](const std::vector<Run>& runs) {
    small.clear();
    return copy_runs(generation.mapping, without(runs, past_.holes), huge_pages_, who(), progress,
                     small, now.huge_page_error);
  };
  auto runs = segments_.worth_copying(changed, memory_.taken(), past_.holes);
  if (available_memory() < size_of(runs)) runs = changed;
  auto copied = copy(runs);
  if (!copied && size_of(runs) > size_of(changed)) {
    discard_copies(generation.mapping, generation.first);
    runs = changed;
    copied = copy(runs);
  }
  if (!copied) return tl::make_unexpected(std::move(copied).error());
  now.small = without(now.small, runs);
  now.small.insert(now.small.end(), small.begin(), small.end());
  now.small = joined(std::move(now.small));
  return runs;
}

// The files of this arena that back nothing any more with these segments.
std::vector<HeldFile> ArenaCore::files_without(const SegmentMap& segments) const {
  auto files = segments_.files();
  files.push_back(open_file_);
  const auto after = segments.files();
  std::erase_if(files, [&](const HeldFile& file) {
    return std::ranges::find(after, file.fd, &HeldFile::fd) != after.end();
  });
  return files;
}

bool ArenaCore::let_destructors_write(void* address) noexcept {
  if (frozen_by_ != getpid() || dropped_frees_ == 0) return false;
  if (reinterpret_cast<std::uintptr_t>(address) >= begin() + frozen_bytes()) return false;
  siginfo_t child;
  if (waitid(P_ALL, 0, &child, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0 || errno != ECHILD)
    return false;
  char* none = nullptr;
  destroyed_at_.compare_exchange_strong(none, static_cast<char*>(address));
  return mprotect(reinterpret_cast<void*>(begin()), frozen_bytes(), PROT_READ | PROT_WRITE) == 0;
}

void ArenaCore::refuse_before_fork() {
  volatile char* const written = destroyed_at_;
  if (written == nullptr || !frozen()) return;
  frozen_by_ = 0;
  if (mprotect(reinterpret_cast<void*>(begin()), frozen_bytes(), PROT_READ) == 0)
    *written = *written;  // the signal handler says where
}

Expected<void> ArenaCore::thaw() {
  TRY_VOID(expect_frozen());
  if (begin() + frozen_bytes() == end()) {
    return make_error(ErrorCode::capacity_exceeded,
                      who() + ": nothing of its capacity is unused; create it with a larger one");
  }
  return reopen();
}

Expected<void> ArenaCore::reopen() {
  TRY_VOID(register_membarrier(name()));  // adopt() did not
  const std::size_t first = frozen_bytes();
  TRY(const ArenaMapping mapping, map_generation(name(), begin(), end() - begin(), first));
  TRY_VOID(start_jemalloc_or([&] { unmap_generation(mapping, first); }, mapping, first));
  open_file_ = mapping.file;
  key_ = new_key();  // caches of threads belong to the jemalloc arena of before
  resume();
  return {};
}

// Ends the open part without a new generation.
void ArenaCore::abandon_reopened() {
  resource()->close();
  stop_jemalloc();
  unmap_generation(mapping(), frozen_bytes());
  open_file_ = {};
  state_.store(frozen_state(mode_), std::memory_order_release);
}

Expected<void> ArenaCore::refreeze(const Progress& progress) {
  if (is_open() && generation_ > 0) return seal(mode_, progress);
  TRY_VOID(expect_frozen());
  TRY(const std::size_t private_now, count_private_bytes(begin(), frozen_bytes(), who()));
  if (private_now == 0) return {};
  TRY_VOID(reopen());
  try {
    auto sealed = seal(mode_, progress);
    if (!sealed && is_open()) abandon_reopened();
    return sealed;
  } catch (...) {
    if (is_open()) abandon_reopened();
    throw;
  }
}

Expected<std::size_t> ArenaCore::collapse(const Progress& progress) {
  if (state() == ArenaState::not_inherited) return not_inherited_error();
  const bool open = state() == ArenaState::open;
  const std::size_t frozen = size_of(past_.small);
  past_.small =
      collapse_runs(begin(), past_.small, part_of(progress, 0, open ? size_of(memory_.small()) : 0),
                    past_.huge_page_error);
  if (!open) return past_.huge_bytes();
  if (!pause()) return no_membarrier(name());
  memory_.collapse(part_of(progress, frozen, 0));
  const std::size_t huge = past_.huge_bytes() + memory_.taken() - size_of(memory_.small());
  resume();
  return huge;
}

Expected<void> ArenaCore::prefault() const {
  TRY_VOID(expect_frozen());
  // A read of a hole would allocate memory for it.
  for (const Run& run : without({{0, frozen_bytes()}}, past_.holes))
    TRY_VOID(populate(begin() + run.begin, run.end - run.begin, who()));
  return {};
}

Expected<std::size_t> ArenaCore::private_bytes() const {
  TRY_VOID(expect_frozen());
  return count_private_bytes(begin(), frozen_bytes(), who());
}

}  // namespace cowshed::internal
