#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>
#include <utility>

#include <cowshed/base/clock.h>
#include <cowshed/base/try.h>
#include <cowshed/share/settle/refusals.h>
#include <cowshed/share/settle/resharer.h>

namespace cowshed::settling {
namespace {

using arch::kPage;
constexpr std::size_t kPageWords = kPage / sizeof(std::uint64_t);
constexpr std::size_t kMostRead = 64;  // pages at once

// The kernel's calls, also where a library has put its own in their place (share/undo).
int advise(void* address, std::size_t size, int advice) {
  return static_cast<int>(syscall(SYS_madvise, address, size, advice));
}

void* remap(void* memory, std::size_t size, std::size_t new_size, int flags) {
  return reinterpret_cast<void*>(syscall(SYS_mremap, memory, size, new_size, flags, nullptr));
}

std::byte* page_at(std::uintptr_t begin, std::size_t page) {
  return reinterpret_cast<std::byte*>(begin) + page * kPage;
}

}  // namespace

struct Resharer::Scratch {
  std::array<char, 16384> maps;
  std::array<std::uint64_t, kStep / kPage> pages;
  std::array<std::byte, kPage> saved;
  std::array<std::uint64_t, kMostRead * kPageWords> read;
};

Resharer::Resharer(OwnPages pages, internal::MappedMemory scratch, Plan plan,
                   const ReshareOptions& options, std::pmr::memory_resource* memory)
    : pages_(std::move(pages)),
      scratch_(std::move(scratch)),
      options_(options),
      cpu_ns_(thread_cpu_ns()),
      parts_(plan.pieces.size(), memory),
      left_(std::move(plan.left)) {
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    Part& part = parts_[i];
    part.range = plan.pieces[i].part.range;
    for (std::size_t page = 0; page < part.range.size() / kPage; ++page) part.alike.set(page);
  }
}

Expected<Resharer> Resharer::create(const ReshareOptions& options,
                                    std::pmr::memory_resource* memory) {
  const std::uint64_t cpu_ns = thread_cpu_ns();
  TRY(OwnPages pages, OwnPages::open());
  TRY(Plan plan, plan_reshare({.leave = options.leave}, memory));
  void* scratch =
      mmap(nullptr, sizeof(Scratch), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (scratch == MAP_FAILED) return system_error("reshare: mmap", errno);
  Resharer resharer(std::move(pages), internal::MappedMemory(scratch, {sizeof(Scratch)}),
                    std::move(plan), options, memory);
  if (options.threads == OtherThreads::stop) {
    TRY(ThreadStopper stopper, ThreadStopper::create(options.stop_timeout));
    resharer.threads_.emplace(std::move(stopper));
  }
  resharer.cpu_ns_ = cpu_ns;
  TRY_VOID(resharer.pause());
  return resharer;
}

// Sleeps for so long that its part of a CPU is kept.
Expected<void> Resharer::pause() {
  const std::chrono::nanoseconds used(thread_cpu_ns() - cpu_ns_);
  const auto time = std::chrono::duration_cast<std::chrono::nanoseconds>(
      used * std::max(1 / options_.cpu_share - 1, 0.0));
  if (options_.pause == nullptr) std::this_thread::sleep_for(time);
  else if (!options_.pause(time))
    return make_error(ErrorCode::interrupted, "reshare: .pause has ended it");
  cpu_ns_ += static_cast<std::uint64_t>(used.count());
  return {};
}

// Calls work(batch) for parts of up to 16 MiB together.
template <class Work>
Expected<void> Resharer::in_batches(Work work) {
  constexpr std::size_t kMostOfABatch = 64;
  for (std::span<Part> rest = parts_; !rest.empty();) {
    std::size_t count = 1;
    std::size_t bytes = rest[0].range.size();
    while (count < std::min(rest.size(), kMostOfABatch) &&
           bytes + rest[count].range.size() <= kStep) {
      bytes += rest[count++].range.size();
    }
    TRY_VOID(work(rest.first(count)));
    TRY_VOID(pause());
    rest = rest.subspan(count);
  }
  return {};
}

// Calls work(part) for each part that may have pages to give back, and is as it was planned.
template <class Work>
Expected<void> Resharer::while_stopped(std::span<Part> batch, Work work) {
  using Clock = std::chrono::steady_clock;
  if (std::ranges::none_of(batch, &Part::is_wanted)) return {};
  Failure failure;
  const char* io = nullptr;
  const auto begin = Clock::now();
  {
    const SignalsBlocked blocked;
    if (threads_) TRY_VOID(threads_->stop());
    // From here on this thread allocates nothing.  It writes to its stack, to scratch_ and to
    // parts_, which is no settled memory.
    failure = {"/proc/self/maps", find_changed(batch, io)};
    for (Part& part : batch)
      if (failure.error == 0 && io == nullptr && part.is_wanted()) failure = work(part);
    if (threads_) threads_->resume();
  }
  longest_pause_ = std::max<std::chrono::nanoseconds>(longest_pause_, Clock::now() - begin);
  if (io != nullptr) return refuse_io(io);
  if (failure.error == 0) return {};
  return system_error("reshare: " + std::string(failure.call), failure.error);
}

// Threads may have unmapped, protected or replaced a part, or some of it, since it was planned, and
// begun asynchronous I/O.
int Resharer::find_changed(std::span<Part> batch, const char*& io) {
  for (Part& part : batch) part.is_there = false;
  AsynchronousIo found;
  const int error = visit_maps(scratch().maps, [&](const MapsLine& line) {
    found.note(line);
    if (!line.is_private_and_writable() || !line.is_settled()) return;
    for (Part& part : batch) {
      part.is_there = part.is_there ||
                      (line.range.begin <= part.range.begin && part.range.end <= line.range.end);
    }
  });
  if (!options_.io_is_at_rest) io = found.found();
  return error;
}

// Maps the memfd's pages of a part once more.  No descriptor of the memfd is open, and
// /proc/self/map_files needs a capability.  mremap(2) can map the same file again, but takes the
// page along, so this first puts the memfd's page in the place of a copy, and then copies it back.
Resharer::Failure Resharer::open_view(Part& part) {
  const std::size_t count = part.range.size() / kPage;
  std::uint64_t page = OwnPages::kElsewhere;
  std::size_t first = 0;
  for (; first < count; ++first) {
    const std::uintptr_t address = part.range.begin + first * kPage;
    if (const int error = pages_.look(address, {&page, 1})) return {"/proc/self/pagemap", error};
    if (page != OwnPages::kElsewhere) break;
    part.alike.reset(first);
  }
  if (first == count) return {};

  std::byte* const source = page_at(part.range.begin, first);
  if (page == OwnPages::kPresent) std::memcpy(scratch().saved.data(), source, kPage);
  if (advise(source, kPage, MADV_DONTNEED) != 0) {
    if (errno != EINVAL) return {"madvise", errno};
    part.obstacle = "is locked (mlock)";
    return {};
  }
  void* view = remap(source, kPage, kPage, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
  const int error = view == MAP_FAILED ? errno : 0;
  if (page == OwnPages::kPresent) std::memcpy(source, scratch().saved.data(), kPage);
  if (error == EPERM) part.obstacle = "is sealed (mseal), or a sandbox refuses mremap";
  if (error != 0) return {"mremap", error == EPERM ? 0 : error};

  const std::size_t size = (count - first) * kPage;
  void* const grown = remap(view, kPage, size, MREMAP_MAYMOVE);
  if (grown == MAP_FAILED) {
    const Failure failure = {"mremap", errno};
    munmap(view, kPage);
    return failure;
  }
  part.view = {internal::MappedMemory(grown, {size}), first};
  return {"madvise", advise(grown, size, MADV_DONTFORK) != 0 ? errno : 0};
}

// Leaves in `alike` the copies that hold the memfd's bytes.
Resharer::Failure Resharer::compare(Part& part, Reading reading) {
  const auto pages = std::span(scratch().pages).first(part.range.size() / kPage);
  if (const int error = pages_.look(part.range.begin, pages)) return {"/proc/self/pagemap", error};
  part.copies = static_cast<std::size_t>(std::ranges::count(pages, OwnPages::kPresent));
  part.swapped = static_cast<std::size_t>(std::ranges::count(pages, OwnPages::kElsewhere));
  const auto is_candidate = [&](std::size_t page) {
    return pages[page] == OwnPages::kPresent && part.alike[page];
  };
  for (std::size_t first = 0, end = 0; first < pages.size(); first = end) {
    end = first + 1;
    if (!is_candidate(first)) {
      part.alike.reset(first);
      continue;
    }
    while (end < pages.size() && end - first < kMostRead && is_candidate(end)) ++end;
    const std::byte* copies = page_at(part.range.begin, first);
    bool is_read = true;
    if (reading == Reading::safely) {
      const auto words = std::span(scratch().read).first((end - first) * kPageWords);
      is_read = pages_.peek(reinterpret_cast<std::uintptr_t>(copies), words);
      copies = reinterpret_cast<const std::byte*>(words.data());
    }
    const auto* file = static_cast<const std::byte*>(part.view.memory.get());
    for (std::size_t i = first; i < end; ++i)
      part.alike[i] = is_read && std::memcmp(copies + (i - first) * kPage,
                                             file + (i - part.view.first) * kPage, kPage) == 0;
  }
  return {};
}

Resharer::Failure Resharer::drop(const Part& part) {
  const std::size_t count = part.range.size() / kPage;
  for (std::size_t first = 0, end = 0; first < count; first = end + 1) {
    end = first;
    while (end < count && part.alike[end]) ++end;
    if (end == first) continue;
    if (advise(page_at(part.range.begin, first), (end - first) * kPage, MADV_DONTNEED) != 0)
      return {"madvise", errno};
  }
  return {};
}

Expected<void> Resharer::look() {
  return in_batches([this](std::span<Part> batch) -> Expected<void> {
    TRY_VOID(while_stopped(batch, [this](Part& part) { return open_view(part); }));
    for (Part& part : batch) {
      if (!part.is_wanted()) continue;
      const Failure failure = compare(part, Reading::safely);
      if (failure.error != 0)
        return system_error(std::string("reshare: ") + failure.call, failure.error);
      part.view = {};
    }
    return {};
  });
}

Expected<void> Resharer::give_back(Reshared& reshared) {
  const auto done = in_batches([this](std::span<Part> batch) -> Expected<void> {
    TRY_VOID(while_stopped(batch, [this](Part& part) {
      Failure failure = open_view(part);
      if (failure.error == 0 && part.obstacle == nullptr)
        failure = compare(part, Reading::directly);
      if (failure.error == 0 && part.obstacle == nullptr) failure = drop(part);
      part.is_done = failure.error == 0;
      return failure;
    }));
    for (Part& part : batch) part.view = {};
    return {};
  });
  reshared.left = std::move(left_);
  for (const Part& part : parts_) {
    const bool is_left = part.is_wanted() && !part.is_done;
    if (part.obstacle != nullptr) leave(part.range, part.obstacle, reshared.left);
    else if (!part.is_there) leave(part.range, "was changed meanwhile", reshared.left);
    else if (is_left) leave(part.range, done.error().message, reshared.left);
    else {
      reshared.compared_bytes += part.copies * kPage;
      reshared.swapped_bytes += part.swapped * kPage;
      reshared.given_back_bytes += part.alike.count() * kPage;
    }
  }
  reshared.longest_pause = longest_pause_;
  return done;
}

}  // namespace cowshed::settling
