#include <fmt/format.h>
#include <list>
#include <sys/prctl.h>

#include <cowshed/share/settle.h>

#include "../family.h"
#include "../process.h"
#include "workers.h"

// What a settled heap costs and saves beside the fork: its move, the first read of a child, the
// parent's writes afterwards, and the page tables of 64 children that read nothing.
namespace cowshed::bench {
namespace {

// In ns.  It writes one word in each page.
double time_writes(Numbers& numbers) {
  constexpr std::size_t kPage = arch::kPage / sizeof(std::uint64_t);
  const std::uint64_t before = now_ns();
  for (std::size_t i = 0; i < numbers.size(); i += kPage) ++numbers[i];
  benchmark::ClobberMemory();
  return static_cast<double>(now_ns() - before);
}

double time_first_read(const Holding& holding) {
  std::vector<double> times;
  for (int i = 0; i < 3; ++i) {
    const std::uint64_t before = now_ns();
    const Reply reply = WorkerByHand("bare_fork", holding, Part::each_page).reply();
    check(reply, holding.words, Part::each_page);
    times.push_back(static_cast<double>(reply.answered - std::max(reply.begun, before)));
  }
  return median(times);
}

double page_tables_of_children(std::size_t count) {
  pthread_barrier_t* const barrier = shared_barrier(static_cast<unsigned>(count + 1));
  std::list<Child> children;
  double bytes = 0;
  for (std::size_t i = 0; i < count; ++i)
    children.emplace_back(i, [barrier] { pthread_barrier_wait(barrier); });
  for (const Child& child : children)
    bytes += static_cast<double>(proc_bytes(fmt::format("/proc/{}/status", child.pid()), "VmPTE"));
  pthread_barrier_wait(barrier);
  for (Child& child : children) child.join();
  return bytes;
}

// The move, the first read, the page tables, and the first and the second write.
const SubjectKind settle_kind("settle", [](const Words& arguments) -> Answer {
  const bool is_settled = arguments.at(0) != "heap";
  const bool is_huge = arguments.at(0) == "settled_huge";
  const std::size_t bytes = std::stoull(arguments.at(1));
  return [=](const Words&) -> std::vector<double> {
    Holding holding({"heap", bytes});  // in small pages
    if (is_huge && prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0) != 0)
      throw std::runtime_error("PR_SET_THP_DISABLE");
    const std::uint64_t before = now_ns();
    if (is_settled) settle_all(bytes, is_huge);
    const auto moved = static_cast<double>(now_ns() - before);
    const double tables = page_tables_of_children(64);
    const double read = time_first_read(holding);
    const double first = time_writes(holding.heap);
    return {moved, read, tables, first, time_writes(holding.heap)};
  };
});

}  // namespace

void settle_all(std::size_t bytes, bool huge_pages) {
  const Settled settled = got(settle({.huge_pages = huge_pages}));
  if (settled.moved_bytes < bytes || (huge_pages && settled.huge_page_bytes < bytes / 10 * 9))
    throw std::runtime_error("the heap did not settle");
}

void add_settle() {
  for (const std::string how : {"heap", "settled", "settled_huge"}) {
    for (const Held& held : all_held()) {
      if (held.memory != "heap" || (is_quick() && how == "settled_huge")) continue;
      const std::string bytes = std::to_string(held.bytes);
      add("settle/" + how + held.name().substr(held.memory.size()),
          [how, bytes](benchmark::State& state) {
            const auto figures = Subject({"settle", how, bytes}).ask();
            state.counters["move_ns"] = figures.at(0);
            state.counters["page_table_bytes"] = figures.at(2);
            state.counters["first_write_ns"] = figures.at(3);
            state.counters["second_write_ns"] = figures.at(4);
            return figures.at(1);
          });
    }
  }
}

}  // namespace cowshed::bench
