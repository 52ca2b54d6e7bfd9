#pragma once

#include <bitset>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <optional>
#include <span>
#include <vector>

#include <cowshed/base/arch/arch.h>
#include <cowshed/base/error.h>
#include <cowshed/share/os/mapped_memory.h>
#include <cowshed/share/settle/mappings.h>
#include <cowshed/share/settle/options.h>
#include <cowshed/share/settle/pages.h>
#include <cowshed/share/settle/plan.h>
#include <cowshed/share/settle/thread_stopper.h>

namespace cowshed::settling {

// Gives back copies of settled pages that hold the bytes of their memfd again.
class Resharer {
 public:
  // Finds the copies.  `memory` is none that is settled.
  static Expected<Resharer> create(const ReshareOptions& options,
                                   std::pmr::memory_resource* memory);

  // Compares the copies while other threads run.  give_back() leaves those that differ now, and
  // pages that are no copies now.  Errors: threads_running, system_call.
  Expected<void> look();
  // Stops the other threads, compares, and gives back; fills in `reshared`, but for its times.
  // Errors: as of look(); pages may have been given back.
  Expected<void> give_back(Reshared& reshared);

 private:
  struct View {  // a second mapping of a part's file
    internal::MappedMemory memory;
    std::size_t first = 0;  // the page of the part with which it begins
  };
  struct Part {  // of one mapping
    Range range;
    std::bitset<kStep / arch::kPage> alike;  // pages to give back
    std::size_t copies = 0;                  // pages, when it was compared last
    std::size_t swapped = 0;
    const char* obstacle = nullptr;  // why it stays
    bool is_there = true;
    bool is_done = false;
    View view;

    bool is_wanted() const { return is_there && obstacle == nullptr && alike.any(); }
  };
  struct Failure {
    const char* call = nullptr;
    int error = 0;
  };
  enum class Reading : std::uint8_t { directly, safely };  // safely: it may be unmapped
  struct Scratch;

  Resharer(OwnPages pages, internal::MappedMemory scratch, Plan plan, const ReshareOptions& options,
           std::pmr::memory_resource* memory);
  template <class Work>
  Expected<void> in_batches(Work work);
  template <class Work>
  Expected<void> while_stopped(std::span<Part> batch, Work work);
  int find_changed(std::span<Part> batch, const char*& io);
  Failure open_view(Part& part);
  Failure compare(Part& part, Reading reading);
  Failure drop(const Part& part);
  Expected<void> pause();
  Scratch& scratch() const { return *static_cast<Scratch*>(scratch_.get()); }

  OwnPages pages_;
  internal::MappedMemory scratch_;
  const ReshareOptions& options_;
  std::uint64_t cpu_ns_;  // at the last pause
  std::optional<ThreadStopper> threads_;
  std::pmr::vector<Part> parts_;
  std::vector<LeftMemory> left_;
  std::chrono::nanoseconds longest_pause_{};
};

}  // namespace cowshed::settling
