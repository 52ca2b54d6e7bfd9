#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory_resource>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/base/memory_limits.h>
#include <cowshed/share/os/mapped_memory.h>
#include <cowshed/share/settle/heap_layout.h>
#include <cowshed/share/settle/mappings.h>
#include <cowshed/share/settle/pages.h>
#include <cowshed/share/settle/thread_stopper.h>

// Moves memory between private pages and memfds.
namespace cowshed::settling {

// What is moved at once, without a byte of it written meanwhile.
struct Piece {
  HeapPart part;
  bool no_reserve = false;
  bool is_settled = false;  // a private mapping of a memfd, all of which is copied
  bool begins_file = false;
  // Of a piece that begins a new memfd: its size.  0: the piece continues the last one's.
  std::size_t file_size = 0;
};

class Mover {
 public:
  enum class Target : std::uint8_t { memfd, anonymous };

  // `memory` is none that is moved.
  static Expected<Mover> create(Target target, const SettleOptions& options,
                                std::pmr::memory_resource* memory);

  using Moved = std::function<void(const Piece& piece)>;
  using Left = std::function<void(const Piece& piece, const std::string& reason)>;

  // Moves the pieces, which are in order of their addresses, and changes them.  Calls moved() or
  // left() for each, or for parts of it.  Errors: out_of_memory, threads_running, system_call.  The
  // pieces for which neither was called are as before.
  Expected<void> move(std::span<Piece> pieces, const Progress& progress, const Moved& moved,
                      const Left& left);

  std::size_t copied_bytes() const { return copied_; }
  // The part that was not settled before.
  std::size_t copied_first_bytes() const { return copied_first_; }
  std::chrono::nanoseconds longest_pause() const { return longest_pause_; }

 private:
  static constexpr std::size_t kMostOfABatch = 64;
  struct Scratch;
  struct Outcome {
    enum class What : std::uint8_t { pending, moved, gone, failed } what = What::pending;
    const char* call = nullptr;
    int error = 0;
  };
  struct Placed {  // a piece and its place in a file
    Piece piece;
    int file = -1;
    std::size_t offset = 0;
    Outcome outcome = {};
  };

  Mover(Target target, OwnPages pages, internal::MappedMemory scratch,
        std::pmr::memory_resource* memory);
  Expected<std::size_t> room() const;
  Expected<void> fill_batch(std::span<Piece>& pieces, const Left& left);
  Expected<void> check_outcomes(const Moved& moved, const Left& left);
  Expected<void> open_file(const Piece& piece);
  Expected<void> move_batch();
  int find_gone(const char*& io);
  void move_one(Placed& placed);
  int copy(const Placed& placed, std::byte* to);
  Scratch& scratch() const { return *static_cast<Scratch*>(scratch_.get()); }

  Target target_;
  OwnPages pages_;
  internal::MappedMemory scratch_;
  internal::MemoryLimits limits_;
  bool io_is_at_rest_ = false;
  std::optional<ThreadStopper> threads_;
  std::pmr::vector<Placed> batch_;
  std::vector<FileDescriptor> files_;  // of this batch; the last one goes on
  std::string no_file_;                // why there is none for the last piece
  std::uintptr_t file_begin_ = 0;      // the address of the last file's offset 0
  std::size_t copied_ = 0;
  std::size_t copied_first_ = 0;
  std::chrono::nanoseconds longest_pause_{};
};

}  // namespace cowshed::settling
