#include <atomic>
#include <memory_resource>
#include <mutex>
#include <thread>
#include <unistd.h>
#include <utility>

#include <cowshed/base/arch/arch.h>
#include <cowshed/base/clock.h>
#include <cowshed/base/try.h>
#include <cowshed/share/os/huge_pages.h>
#include <cowshed/share/process/published_layout.h>
#include <cowshed/share/process/tree.h>
#include <cowshed/share/settle.h>
#include <cowshed/share/settle/core_dumps.h>
#include <cowshed/share/settle/fork_cost.h>
#include <cowshed/share/settle/heap_layout.h>
#include <cowshed/share/settle/mover.h>
#include <cowshed/share/settle/plan.h>
#include <cowshed/share/settle/refusals.h>
#include <cowshed/share/settle/resharer.h>

namespace cowshed {

using namespace settling;

namespace {

// One call at a time.  A child that was forked during a call is not in it.
class Turn {
 public:
  static bool take() {
    pid_t holder = the_holder.load();
    const pid_t self = getpid();
    return holder != self && the_holder.compare_exchange_strong(holder, self);
  }
  Turn() = default;
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  ~Turn() { the_holder = 0; }

 private:
  static inline std::atomic<pid_t> the_holder;
};

tl::unexpected<Error> not_our_turn() {
  return make_error(ErrorCode::in_use,
                    "settle: another call of settle(), unsettle() or reshare() goes on");
}

void note_moved(const Piece& piece, std::vector<MovedMemory>& moved) {
  const auto memory = span_of(piece.part.range);
  if (!moved.empty() && moved.back().kind == piece.part.kind &&
      moved.back().memory.data() + moved.back().memory.size() == memory.data()) {
    moved.back().memory = {moved.back().memory.data(), moved.back().memory.size() + memory.size()};
  } else {
    moved.push_back({memory, piece.part.kind});
  }
}

// For tools outside this process.
void publish(std::int64_t bytes) {
  const std::lock_guard lock(process_tree::mutex());
  layout::create();
  layout::add_settled_bytes(bytes);
}

Expected<void> carry_out(Plan plan, Mover::Target target, const SettleOptions& options,
                         Settled& settled) {
  TRY(Mover mover, Mover::create(target, options, plan.pieces.get_allocator().resource()));
  const auto done = mover.move(
      plan.pieces, options.progress,
      [&](const Piece& piece) {
        settled.moved_bytes += piece.part.range.size();
        note_moved(piece, settled.moved);
      },
      [&](const Piece& piece, const std::string& reason) {
        leave(piece.part.range, reason, settled.left);
      });
  settled.copied_bytes = mover.copied_bytes();
  const bool is_undone = target == Mover::Target::anonymous;
  publish(is_undone ? -static_cast<std::int64_t>(mover.copied_bytes())
                    : static_cast<std::int64_t>(mover.copied_first_bytes()));
  settled.longest_pause = mover.longest_pause();
  settled.left.insert(settled.left.end(), plan.left.begin(), plan.left.end());
  return done;
}

void put_into_huge_pages(Settled& settled) {
  using internal::kHugePage;
  for (const MovedMemory& moved : settled.moved) {
    const auto address = reinterpret_cast<std::uintptr_t>(moved.memory.data());
    const std::uintptr_t begin = (address + kHugePage - 1) / kHugePage * kHugePage;
    const std::uintptr_t end = (address + moved.memory.size()) / kHugePage * kHugePage;
    if (begin >= end) continue;
    int ignored = 0;
    const auto small = internal::collapse_runs(0, {{begin, end}}, nullptr, ignored);
    settled.huge_page_bytes += end - begin - internal::size_of(small);
  }
}

// Plans and moves.
template <class Work>
Expected<void> within_memory(Work work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return make_error(ErrorCode::out_of_memory,
                      "settle: no memory to plan the move: a limit on memory or address space is "
                      "met (RLIMIT_AS, RLIMIT_DATA)");
  }
}

}  // namespace

Expected<Settled> settle(const SettleOptions& options) {
  if (!Turn::take()) return not_our_turn();
  const Turn turn;
  TRY_VOID(check_process(options));
  const std::string foreign = foreign_malloc();
  if (options.heap && !foreign.empty() && options.also.empty()) {
    return make_error(ErrorCode::unsupported,
                      "settle: malloc is " + foreign +
                          ", which may expect zeros after MADV_DONTNEED; name memory that stays "
                          "in .also, or use glibc's malloc");
  }

  Settled settled;
  const auto begin = std::chrono::steady_clock::now();
  settled.page_tables_before = status_bytes("VmPTE");
  if (options.time_fork) settled.fork_before = time_fork();
  auto done = within_memory([&]() -> Expected<void> {
    PlanMemory memory;
    std::pmr::monotonic_buffer_resource buffer(1 << 20U, &memory);
    TRY(OwnPages pages, OwnPages::open());
    TRY(Plan plan, plan_settle(options, foreign, pages, &buffer));
    return carry_out(std::move(plan), Mover::Target::memfd, options, settled);
  });
  if (!done && settled.moved.empty()) return tl::make_unexpected(std::move(done.error()));
  if (options.keep_in_core_dumps && !settled.moved.empty()) keep_files_in_core_dumps();
  if (options.huge_pages) put_into_huge_pages(settled);
  if (options.time_fork) settled.fork_after = time_fork();
  settled.page_tables_after = status_bytes("VmPTE");
  settled.time = std::chrono::steady_clock::now() - begin;
  return settled;
}

Expected<Settled> unsettle(const SettleOptions& options) {
  if (!Turn::take()) return not_our_turn();
  const Turn turn;
  TRY_VOID(check_process(options));
  Settled settled;
  const auto begin = std::chrono::steady_clock::now();
  settled.page_tables_before = status_bytes("VmPTE");
  auto done = within_memory([&]() -> Expected<void> {
    PlanMemory memory;
    std::pmr::monotonic_buffer_resource buffer(1 << 20U, &memory);
    TRY(Plan plan, plan_unsettle(options, &buffer));
    return carry_out(std::move(plan), Mover::Target::anonymous, options, settled);
  });
  if (!done && settled.moved.empty()) return tl::make_unexpected(std::move(done.error()));
  settled.page_tables_after = status_bytes("VmPTE");
  settled.time = std::chrono::steady_clock::now() - begin;
  return settled;
}

Expected<Reshared> reshare(const ReshareOptions& options) {
  if (!Turn::take()) return not_our_turn();
  const Turn turn;
  TRY_VOID(check_process({.threads = options.threads, .io_is_at_rest = options.io_is_at_rest}));
  Reshared reshared;
  const std::uint64_t begin = monotonic_ns();
  const std::uint64_t cpu = thread_cpu_ns();
  auto done = within_memory([&]() -> Expected<void> {
    PlanMemory memory;
    std::pmr::monotonic_buffer_resource buffer(1 << 20U, &memory);
    TRY(Resharer resharer, Resharer::create(options, &buffer));
    if (options.threads == OtherThreads::stop || options.cold_for > options.cold_for.zero()) {
      TRY_VOID(resharer.look());
      std::this_thread::sleep_for(options.cold_for);
    }
    return resharer.give_back(reshared);
  });
  if (!done && reshared.given_back_bytes == 0) return tl::make_unexpected(std::move(done.error()));
  reshared.time = std::chrono::nanoseconds(monotonic_ns() - begin);
  reshared.cpu = std::chrono::nanoseconds(thread_cpu_ns() - cpu);
  return reshared;
}

Expected<Collapsed> collapse_heap(const CollapseOptions& options) {
  TRY(auto collapser, internal::Collapser::open(0, options));
  return collapser.collapse();
}

}  // namespace cowshed
