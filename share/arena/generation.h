#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/share/arena/mapping.h>
#include <cowshed/share/os/runs.h>

// The generations of an arena.  Each freeze makes one: a sealed memfd with the pages that changed
// since the last.  A frozen arena is mapped from the files of several generations.
namespace cowshed::internal {

// A run of a frozen arena, and the file that backs it.
struct Segment {
  Run run;
  HeldFile file;
  std::uint64_t payload = 0;  // the file's offset of the arena's first byte; 0 for a memfd
};

// Which file backs which run of a frozen arena.  Does not own the descriptors.
class SegmentMap {
 public:
  SegmentMap() = default;
  explicit SegmentMap(std::vector<Segment> segments) : segments_(std::move(segments)) {}

  void assign(const Run& run, const HeldFile& file);  // replaces what backed the run

  const std::vector<Segment>& segments() const { return segments_; }  // in order
  std::vector<HeldFile> files() const;                                // each once
  void close_files() noexcept;  // leaves the map empty; allocates nothing
  std::vector<Run> runs_of(int fd) const;
  std::size_t bytes_on_disk(const std::vector<Run>& holes) const;

  // The runs that the next generation should copy, if it adds `added` bytes and must copy
  // `changed`.  They include the runs of small files and of files that are mostly out of use.  So
  // each file is at least twice as large as the next smaller one, files stay few, and each byte is
  // copied in proportion to the logarithm of their number.  `holes` have no memory.
  std::vector<Run> worth_copying(std::vector<Run> changed, std::size_t added,
                                 const std::vector<Run>& holes) const;

 private:
  std::vector<Segment> segments_;
};

// A generation that is about to be sealed.
struct Generation {
  ArenaMapping mapping;   // the arena's whole range, and the generation's memfd
  std::size_t first = 0;  // [first, used) is mapped from the memfd, shared
  std::size_t used = 0;   // the arena has nothing from here on
};

// Makes a memfd for the next generation.  Maps it, shared and writable, over [first, size) of the
// arena's range; forked children do not inherit that mapping.
Expected<ArenaMapping> map_generation(const std::string& name, std::uintptr_t begin,
                                      std::size_t size, std::size_t first);
// Makes [first, size) inaccessible again and closes the memfd.
void unmap_generation(const ArenaMapping& mapping, std::size_t first);

// Maps these pages for reading.  Errors: system_call where reading one would raise SIGBUS, because
// the image that backs it was cut short, or is on a full tmpfs, which has no page for a hole.
Expected<void> populate(std::uintptr_t begin, std::size_t size, const std::string& who);

// Copies these runs of the arena, all below the generation's `first`, into the memfd.  Uses 2 MiB
// pages if `huge_pages` and where the kernel has them.  Appends runs that are in 4 KiB pages to
// `small`, and stores the errno of the last refusal in `error`.
Expected<void> copy_runs(const ArenaMapping& mapping, const std::vector<Run>& runs, bool huge_pages,
                         const std::string& who, const Progress& progress, std::vector<Run>& small,
                         int& error);
void discard_copies(const ArenaMapping& mapping, std::size_t first);

struct SealFailure {
  int error = 0;  // an errno
  const char* what = "";
  bool may_go_on = false;  // else the range shows the same data without being writable
};

// Maps [first, used) privately, makes the rest of the range inaccessible, and seals the memfd.  On
// failure it restores the shared, writable mapping, unless the kernel refuses that too.
std::optional<SealFailure> seal_generation(const Generation& generation, FreezeMode mode) noexcept;

// Maps the sealed memfd's copies over these runs.  On failure some runs keep their old mapping.
Expected<void> map_copies(const ArenaMapping& mapping, const std::vector<Run>& runs,
                          FreezeMode mode, const std::string& who);

// Returns the 2 MiB ranges of [0, size) in which this process has a private page.  Joins close
// neighbours, because a process can have only so many mappings.
Expected<std::vector<Run>> written_runs(std::uintptr_t begin, std::size_t size,
                                        const std::string& who);

// Returns how many bytes of private pages this process has there.
Expected<std::size_t> count_private_bytes(std::uintptr_t begin, std::size_t size,
                                          const std::string& who);

}  // namespace cowshed::internal
