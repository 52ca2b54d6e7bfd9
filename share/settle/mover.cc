#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

#include <cowshed/base/arch/arch.h>
#include <cowshed/base/try.h>
#include <cowshed/share/os/memfd.h>
#include <cowshed/share/settle/mover.h>
#include <cowshed/share/settle/refusals.h>

namespace cowshed::settling {
namespace {

using namespace size_literals;
using arch::kHugePage;
using arch::kPage;

constexpr std::size_t kMostAtOnce = 64_MiB;  // kStep if other threads wait
constexpr std::size_t kWindow = 512;         // pages

bool is_zero(const std::byte* page) {
  const auto* words = reinterpret_cast<const std::uint64_t*>(page);
  return std::all_of(words, words + kPage / sizeof *words, [](std::uint64_t w) { return w == 0; });
}

void* at(std::uintptr_t address) { return reinterpret_cast<void*>(address); }

// Why a piece for which a call failed by this errno stays, while the others move.
const char* obstacle_of(std::string_view call, int error) {
  if (error == EFAULT) return "cannot be read";
  return error == EPERM && call == "mremap" ? "is sealed (mseal), or a sandbox refuses mremap"
                                            : nullptr;
}

int write_page_run(int file, const std::byte* from, std::size_t size, std::size_t offset) {
  while (size > 0) {
    const long written = syscall(SYS_pwrite64, file, from, size, offset);
    if (written <= 0) return written == 0 ? EIO : errno;
    from += written;
    size -= static_cast<std::size_t>(written);
    offset += static_cast<std::size_t>(written);
  }
  return 0;
}

}  // namespace

struct Mover::Scratch {
  std::array<char, 16384> maps;
  std::array<std::uint64_t, kWindow> pages;
};

Mover::Mover(Target target, OwnPages pages, internal::MappedMemory scratch,
             std::pmr::memory_resource* memory)
    : target_(target),
      pages_(std::move(pages)),
      scratch_(std::move(scratch)),
      limits_(internal::MemoryLimits::of_this_process()),
      batch_(memory) {}

Expected<Mover> Mover::create(Target target, const SettleOptions& options,
                              std::pmr::memory_resource* memory) {
  TRY(OwnPages pages, OwnPages::open());
  void* scratch =
      mmap(nullptr, sizeof(Scratch), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (scratch == MAP_FAILED) return system_error("settle: mmap", errno);
  Mover mover(target, std::move(pages), internal::MappedMemory(scratch, {sizeof(Scratch)}), memory);
  mover.io_is_at_rest_ = options.io_is_at_rest;
  if (options.threads == OtherThreads::stop) {
    TRY(ThreadStopper stopper, ThreadStopper::create(options.stop_timeout));
    mover.threads_.emplace(std::move(stopper));
  }
  return mover;
}

// How much can be moved at once: until the old pages are gone, both are there.
Expected<std::size_t> Mover::room() const {
  const std::size_t free = std::min(limits_.headroom(), internal::available_memory());
  const std::size_t most = threads_ ? kStep : kMostAtOnce;
  const std::size_t room = std::min(most, free / 2 / kHugePage * kHugePage);
  if (room > 0) return room;
  return make_error(ErrorCode::out_of_memory,
                    "settle: moving memory needs 4 MiB more for a moment, and this process can "
                    "get " +
                        std::to_string(free) + " bytes; raise the memory cgroup's limit");
}

Expected<void> Mover::open_file(const Piece& piece) {
  FileDescriptor file = internal::make_memfd(memfd_name(piece.part.kind), internal::Sealable::no);
  if (!file) return system_error("settle: memfd_create", errno);
  // Huge pages need an offset that is as far from a multiple of 2 MiB as the address.
  const std::uintptr_t begin = piece.part.range.begin;
  file_begin_ = begin / kHugePage * kHugePage;
  TRY_VOID(internal::set_file_size(file.get(), begin - file_begin_ + piece.file_size, "settle"));
  files_.push_back(std::move(file));
  return {};
}

Expected<void> Mover::move(std::span<Piece> pieces, const Progress& progress, const Moved& moved,
                           const Left& left) {
  std::size_t total = 0;
  for (const Piece& piece : pieces) total += piece.part.range.size();
  batch_.reserve(kMostOfABatch);
  Expected<void> done;
  while (!pieces.empty() && done) {
    done = fill_batch(pieces, left);
    if (done) done = move_batch();
    const auto checked = check_outcomes(moved, left);
    if (done) done = checked;
    std::size_t rest = 0;
    for (const Piece& piece : pieces) rest += piece.part.range.size();
    if (progress && done) progress(total - rest, total);
  }
  files_.clear();
  if (!done)
    for (const Piece& piece : pieces) left(piece, done.error().message);
  return done;
}

// Takes as many pieces as there is room for, or a part of the first.
Expected<void> Mover::fill_batch(std::span<Piece>& pieces, const Left& left) {
  batch_.clear();
  if (files_.size() > 1) files_.erase(files_.begin(), files_.end() - 1);
  TRY(std::size_t room, room());
  while (!pieces.empty() && batch_.size() < kMostOfABatch) {
    Piece& piece = pieces.front();
    Range& range = piece.part.range;
    if (range.size() > room && !batch_.empty()) break;
    if (piece.file_size != 0 && target_ == Target::memfd) {
      no_file_.clear();
      if (auto opened = open_file(piece); !opened) {
        if (opened.error().system_errno != EFBIG) return opened;
        no_file_ = opened.error().message;
      }
    }
    piece.file_size = 0;
    Piece first = piece;
    if (range.size() > room) {
      first.part.range.end = range.begin + room;
      range.begin = first.part.range.end;
    } else {
      pieces = pieces.subspan(1);
    }
    if (!no_file_.empty()) {
      left(first, no_file_);
      continue;
    }
    Placed& placed = batch_.emplace_back(Placed{first});
    if (target_ == Target::memfd) {
      placed.file = files_.back().get();
      placed.offset = first.part.range.begin - file_begin_;
    }
    room -= std::min(room, first.part.range.size());
    if (room == 0) break;
  }
  return {};
}

Expected<void> Mover::check_outcomes(const Moved& moved, const Left& left) {
  Expected<void> checked;
  for (const auto& [piece, file, offset, outcome] : batch_) {
    const auto& [what, call, error] = outcome;
    if (what == Outcome::What::moved) moved(piece);
    if (what == Outcome::What::gone) left(piece, "was freed meanwhile");
    if (what == Outcome::What::pending) left(piece, "was not reached");
    if (what != Outcome::What::failed) continue;
    // Nothing but mremap(2) tells it on Linux 6.10 to 6.16.
    if (const char* obstacle = obstacle_of(call, error)) {
      left(piece, obstacle);
    } else {
      checked = system_error("settle: " + std::string(call), error);
      left(piece, checked.error().message);
    }
  }
  return checked;
}

Expected<void> Mover::move_batch() {
  if (batch_.empty()) return {};
  int error = 0;
  const char* io = nullptr;
  const auto begin = std::chrono::steady_clock::now();
  {
    const SignalsBlocked blocked;
    if (threads_) TRY_VOID(threads_->stop());
    // From here on this thread allocates nothing.  It writes to its stack, to scratch_ and to
    // batch_, which is no piece's memory.
    error = find_gone(io);
    for (Placed& placed : batch_) {
      if (error != 0 || io != nullptr) break;
      if (placed.outcome.what == Outcome::What::pending) move_one(placed);
      if (placed.outcome.what == Outcome::What::failed &&
          obstacle_of(placed.outcome.call, placed.outcome.error) == nullptr) {
        break;
      }
    }
    if (threads_) threads_->resume();
  }
  longest_pause_ =
      std::max<std::chrono::nanoseconds>(longest_pause_, std::chrono::steady_clock::now() - begin);
  if (io != nullptr) return refuse_io(io);
  if (error != 0) return system_error("settle: /proc/self/maps", error);
  return {};
}

// Marks pieces that are not there any more.  Threads, or the caller's progress function, may have
// freed them since they were found, or begun asynchronous I/O.
int Mover::find_gone(const char*& io) {
  std::array<std::size_t, kMostOfABatch> there = {};
  std::array<std::size_t, kMostOfABatch> up_to_proof = {};
  AsynchronousIo found;
  const int error = visit_maps(scratch().maps, [&](const MapsLine& line) {
    found.note(line);
    if (!line.is_private_and_writable() || line.name == "[stack]") return;
    const bool is_settled = line.is_settled();
    if (!line.is_anonymous && !is_settled) return;
    for (std::size_t i = 0; i < batch_.size(); ++i) {
      const HeapPart& part = batch_[i].piece.part;
      up_to_proof[i] += overlap(line.range, {part.proof, part.range.end});
      if (is_settled == batch_[i].piece.is_settled) there[i] += overlap(line.range, part.range);
    }
  });
  for (std::size_t i = 0; i < batch_.size() && error == 0; ++i) {
    const Piece& piece = batch_[i].piece;
    const HeapPart& part = piece.part;
    const bool is_there = there[i] == part.range.size() &&
                          (piece.is_settled ||
                           (up_to_proof[i] == part.range.end - part.proof && is_still_heap(part)));
    if (!is_there) batch_[i].outcome.what = Outcome::What::gone;
  }
  if (!io_is_at_rest_) io = found.found();
  return error;
}

void Mover::move_one(Placed& placed) {
  const Range range = placed.piece.part.range;
  const int reserve = placed.piece.no_reserve ? MAP_NORESERVE : 0;
  const auto fail = [&placed](const char* call, int error) {
    placed.outcome = {Outcome::What::failed, call, error};
  };
  const bool to_file = target_ == Target::memfd;
  if (to_file) {
    if (const int error = copy(placed, nullptr)) return fail("pwrite to a memfd", error);
  }
  void* target = at(range.begin);
  const auto map = [&](void* where, int flags) {
    return mmap(where, range.size(), PROT_READ | PROT_WRITE,
                MAP_PRIVATE | flags | reserve | (to_file ? 0 : MAP_ANONYMOUS), placed.file,
                static_cast<off_t>(placed.offset));
  };
  // Mapped elsewhere first: if the kernel refuses memory, it must not have unmapped the target.
  void* fresh = map(nullptr, 0);
  if (fresh == MAP_FAILED) return fail("mmap", errno);
  int error = to_file ? 0 : copy(placed, static_cast<std::byte*>(fresh));
  if (error == 0 && mremap(fresh, range.size(), range.size(), MREMAP_MAYMOVE | MREMAP_FIXED,
                           target) != MAP_FAILED) {
    placed.outcome.what = Outcome::What::moved;
    return;
  }
  if (error == 0) error = errno;
  munmap(fresh, range.size());
  fail("mremap", error);
}

// Copies what is not zero into the file, or to `to`, which is zero.  Returns 0 or an errno.
int Mover::copy(const Placed& placed, std::byte* to) {
  const Range range = placed.piece.part.range;
  std::array<std::uint64_t, kWindow>& pages = scratch().pages;
  for (std::uintptr_t window = range.begin; window < range.end; window += kWindow * kPage) {
    const std::size_t count = std::min(kWindow, (range.end - window) / kPage);
    if (placed.piece.is_settled) pages.fill(OwnPages::kPresent);
    else if (const int error = pages_.look(window, std::span(pages).first(count))) return error;
    const auto* from = reinterpret_cast<const std::byte*>(window);
    for (std::size_t i = 0; i < count; ++i)
      if (pages[i] == OwnPages::kPresent && is_zero(from + i * kPage)) pages[i] = 0;
    for (std::size_t first = 0, end = 0; first < count; first = end + 1) {
      end = first;
      while (end < count && pages[end] != 0) ++end;
      const std::size_t offset = window - range.begin + first * kPage;
      const std::size_t size = (end - first) * kPage;
      copied_ += size;
      if (!placed.piece.is_settled) copied_first_ += size;
      if (to != nullptr) std::memcpy(to + offset, from + first * kPage, size);
      else if (const int error =
                   write_page_run(placed.file, from + first * kPage, size, placed.offset + offset))
        return error;
    }
  }
  return 0;
}

}  // namespace cowshed::settling
