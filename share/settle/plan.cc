#include <algorithm>
#include <bit>
#include <utility>
#include <vector>

#include <cowshed/base/arch/arch.h>
#include <cowshed/base/size_literals.h>
#include <cowshed/base/try.h>
#include <cowshed/share/settle/heap_layout.h>
#include <cowshed/share/settle/plan.h>

namespace cowshed::settling {
namespace {

using namespace size_literals;
using arch::kPage;

// mremap(2), and so realloc(), may extend a mapping of a large block by as much: its file has zeros
// there, and no memory.
constexpr std::size_t kTail = std::size_t{1} << 46U;
// Less is not worth a mapping of its own.
constexpr std::size_t kLeastHeap = 1_MiB;

bool grows(SettledKind kind) {
  return kind == SettledKind::large_blocks || kind == SettledKind::named;
}

enum class Rounded : bool { inwards, outwards };

Range pages_of(std::span<const std::byte> memory, Rounded rounded) {
  const auto begin = reinterpret_cast<std::uintptr_t>(memory.data());
  const std::uintptr_t end = begin + memory.size();
  const std::uintptr_t up = kPage - 1;
  const Range range = rounded == Rounded::outwards
                          ? Range{begin / kPage * kPage, (end + up) / kPage * kPage}
                          : Range{(begin + up) / kPage * kPage, end / kPage * kPage};
  return range.begin < range.end ? range : Range{range.begin, range.begin};
}

class Planner {
 public:
  Planner(const SettleOptions& options, const Mappings& mappings)
      : options_(options), pieces_(mappings.get_allocator()) {}

  // `begins_file`: of memory that the caller names.
  void add(const Mapping& mapping, HeapPart part, bool is_settled, bool begins_file = false) {
    if (!mapping.obstacle.empty()) return leave(part.range, mapping.obstacle);
    if (holds_this_thread(part)) return leave(part.range, "holds this thread's stack or variables");
    for (const auto& memory : options_.leave) {
      const Range left = pages_of(memory, Rounded::outwards);
      if (overlap(part.range, left) == 0) continue;
      leave({std::max(part.range.begin, left.begin), std::min(part.range.end, left.end)},
            "is in .leave");
      HeapPart rest = part;
      rest.range.begin = std::min(part.range.end, left.end);
      part.range.end = std::max(part.range.begin, left.begin);
      if (rest.range.size() > 0) add(mapping, rest, is_settled);
    }
    if (part.range.size() > 0)
      pieces_.push_back({part, mapping.no_reserve, is_settled, begins_file, 0});
  }

  // In steps, as the mover takes them.  Its owner may extend named memory by mremap(2), so a file
  // has one range of it.
  void add_steps(const Mapping& mapping, const Range& range, SettledKind kind, bool is_settled) {
    for (std::uintptr_t begin = range.begin; begin < range.end; begin = step_end(begin)) {
      const Range step = {begin, std::min(step_end(begin), range.end)};
      add(mapping, {step, kind, begin}, is_settled, begin == range.begin);
    }
  }

  void leave(const Range& range, const std::string& reason) {
    settling::leave(range, reason, left_);
  }

  // Joins pieces to files, and drops those that are not worth one.
  Plan finish() {
    std::ranges::sort(pieces_, {}, [](const Piece& piece) { return piece.part.range.begin; });
    std::size_t total = 0;
    for (const Piece& piece : pieces_) total += piece.part.range.size();
    const std::size_t most = file_bytes(total);
    std::pmr::vector<Piece> kept(pieces_.get_allocator());
    for (auto first = pieces_.begin(); first != pieces_.end();) {
      auto last = first;
      const Range& begin = first->part.range;
      while (std::next(last) != pieces_.end() &&
             continues(begin.begin + most, *last, *std::next(last)))
        ++last;
      const std::size_t size = last->part.range.end - begin.begin;
      const SettledKind kind = first->part.kind;
      if (kind != SettledKind::named && !first->is_settled && size < kLeastHeap) {
        leave({begin.begin, last->part.range.end}, "is smaller than 1 MiB");
      } else {
        first->file_size = grows(kind) ? kTail : size;
        kept.insert(kept.end(), first, std::next(last));
      }
      first = std::next(last);
    }
    std::ranges::sort(left_, {}, [](const LeftMemory& left) { return left.memory.data(); });
    return {std::move(kept), std::move(left_)};
  }

 private:
  static bool continues(std::uintptr_t file_end, const Piece& last, const Piece& next) {
    if (last.part.range.end != next.part.range.begin || last.part.kind != next.part.kind ||
        last.is_settled != next.is_settled || last.no_reserve != next.no_reserve) {
      return false;
    }
    // A large block over several mappings still works: mremap(2) fails, and realloc() copies it.
    return next.part.kind == SettledKind::named ? !next.begins_file
                                                : next.part.range.end <= file_end;
  }

  bool holds_this_thread(const HeapPart& part) const {
    const auto stack = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
    const Range variables = variables_of_this_thread();
    const Range whole = {std::min(part.proof, part.range.begin), part.range.end};
    return overlap(whole, {stack - 1_MiB, stack + 1}) > 0 ||
           overlap(whole, {variables.begin / kPage * kPage, variables.end + kPage}) > 0;
  }

  const SettleOptions& options_;
  std::pmr::vector<Piece> pieces_;
  std::vector<LeftMemory> left_;
};

// Whole pages, in order; joined where they overlap.
std::vector<Range> named_ranges(const SettleOptions& options) {
  std::vector<Range> ranges;
  for (const auto& memory : options.also) ranges.push_back(pages_of(memory, Rounded::inwards));
  std::ranges::sort(ranges, {}, [](const Range& range) { return range.begin; });
  std::vector<Range> joined;
  for (const Range& range : ranges)
    if (!joined.empty() && range.begin < joined.back().end)
      joined.back().end = std::max(joined.back().end, range.end);
    else if (range.size() > 0) joined.push_back(range);
  return joined;
}

// Settled mappings with so many bytes of their own.
Expected<Plan> plan_settled(const SettleOptions& options, std::size_t least_own,
                            std::pmr::memory_resource* memory) {
  TRY(const Mappings mappings, private_mappings(memory));
  Planner planner(options, mappings);
  for (const Mapping& mapping : mappings)
    if (mapping.is_settled && mapping.own >= least_own)
      planner.add_steps(mapping, mapping.range, mapping.settled_as, true);
  return planner.finish();
}

}  // namespace

std::size_t file_bytes(std::size_t total) {
  constexpr std::size_t kFiles = 64;
  return std::max(kStep, std::bit_ceil(total / kFiles));
}

void leave(const Range& range, const std::string& reason, std::vector<LeftMemory>& left) {
  const auto memory = span_of(range);
  if (memory.empty()) return;
  if (!left.empty() && left.back().reason == reason &&
      left.back().memory.data() + left.back().memory.size() == memory.data()) {
    left.back().memory = {left.back().memory.data(), left.back().memory.size() + memory.size()};
    return;
  }
  left.push_back({memory, reason});
}

std::span<const std::byte> span_of(const Range& range) {
  return {reinterpret_cast<const std::byte*>(range.begin), range.size()};
}

Expected<Plan> plan_settle(const SettleOptions& options, const std::string& foreign,
                           const OwnPages& pages, std::pmr::memory_resource* memory) {
  TRY(const Mappings mappings, private_mappings(memory));
  Planner planner(options, mappings);
  std::pmr::vector<HeapPart> parts(memory);
  if (options.heap && foreign.empty()) parts = find_heap(mappings, pages);

  const std::vector<Range> named = named_ranges(options);
  const std::string unknown = foreign.empty() ? "is neither glibc's heap nor named in .also"
                                              : "is not named in .also; malloc is " + foreign;
  auto next_part = parts.begin();
  for (const Mapping& mapping : mappings) {
    const Range& range = mapping.range;
    if (mapping.is_settled) {
      constexpr std::size_t kPart = 8;
      constexpr std::size_t kLeastWritten = 256_KiB;  // this call itself writes less
      if (mapping.own == 0) continue;
      if (mapping.own * kPart >= range.size() && mapping.own >= kLeastWritten)
        planner.add_steps(mapping, range, mapping.settled_as, true);
      else
        planner.leave(
            range, "is settled, and less than an eighth of it, or than 256 KiB, was written since");
      continue;
    }
    if (!mapping.is_anonymous) {
      if (mapping.own > 0) planner.leave(range, "is a private mapping of a file");
      continue;
    }
    const auto add_other = [&](Range other) {
      for (const Range& wanted : named) {
        const Range found = {std::max(wanted.begin, other.begin), std::min(wanted.end, other.end)};
        if (found.begin >= found.end) continue;
        if (mapping.own > 0) planner.leave({other.begin, found.begin}, unknown);
        planner.add_steps(mapping, found, SettledKind::named, false);
        other.begin = found.end;
      }
      if (mapping.own > 0 && other.size() > 0)
        planner.leave(other, mapping.obstacle.empty() ? unknown : mapping.obstacle);
    };
    std::uintptr_t at = range.begin;
    for (; next_part != parts.end() && next_part->range.begin < range.end; ++next_part) {
      add_other({at, next_part->range.begin});
      at = next_part->range.end;
      HeapPart part = *next_part;
      if (!grows(part.kind)) part.range = pages.occupied(part.range);
      if (part.range.size() > 0) planner.add(mapping, part, false);
    }
    add_other({at, range.end});
  }
  return planner.finish();
}

Expected<Plan> plan_reshare(const SettleOptions& options, std::pmr::memory_resource* memory) {
  return plan_settled(options, 1, memory);
}

Expected<Plan> plan_unsettle(const SettleOptions& options, std::pmr::memory_resource* memory) {
  return plan_settled(options, 0, memory);
}

}  // namespace cowshed::settling
