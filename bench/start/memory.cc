#include <fmt/format.h>
#include <list>
#include <memory>
#include <unistd.h>

#include <cowshed/share/channel.h>
#include <cowshed/share/immortal_ptr.h>

#include "../family.h"
#include "../process.h"
#include "workers.h"

// The memory of a process and its workers, once each worker has read all the data.
namespace cowshed::bench {
namespace {

// What the question "memory" is answered with.
std::vector<double> figures(std::vector<pid_t> pids, std::uint64_t began) {
  const auto took = static_cast<double>(now_ns() - began);
  double pss = 0;
  double tables = 0;
  pids.push_back(getpid());
  for (const pid_t pid : pids) {
    pss += static_cast<double>(proc_bytes(fmt::format("/proc/{}/smaps_rollup", pid), "Pss"));
    tables += static_cast<double>(proc_bytes(fmt::format("/proc/{}/status", pid), "VmPTE"));
  }
  return {pss, tables, took};
}

// Reads all, says so, and stays until `end` is closed.
int read_and_stay(WordsOfData words, Channel<Reply> replies, Channel<Reply> end) {
  got(replies.send(reply_about(words, Part::each_page, 0)));
  return end.receive() ? 1 : 0;
}

std::vector<double> of_library(const std::string& method, Holding& holding, int count) {
  std::optional<ForkServer> server;
  WorkersOptions options = by_library(method, server);
  options.count = count;
  auto replies = got(Channel<Reply>::create({.slots = 64}));
  auto end = got(Channel<Reply>::create({.slots = 64}));
  const std::uint64_t began = now_ns();
  auto workers = got(start<read_and_stay>(options, holding.ref, replies, end));
  for (int i = 0; i < count; ++i) check(got(replies.receive()), holding.words, Part::each_page);
  std::vector<pid_t> pids;
  for (const auto& process : workers.processes()) pids.push_back(process.pid());
  if (server) pids.push_back(server->pid());
  const auto result = figures(pids, began);
  end.close();
  for (const auto& exit : got(workers.wait()))
    if (!exit.ok()) throw std::runtime_error(exit.error);
  return result;
}

// Objects as C++ programs have them: a graph's nodes behind pointers.  A worker reads them all by
// copying each pointer, as a search copies what it has found.
struct Node {
  std::uint64_t value;
  std::array<char, 56> text;
};

template <class Nodes>
std::vector<double> read_by_all(const Nodes& nodes) {
  constexpr unsigned kWorkers = 8;
  pthread_barrier_t* barrier = shared_barrier(kWorkers + 1);
  std::list<Child> workers;
  std::vector<pid_t> pids;
  const std::uint64_t began = now_ns();
  for (unsigned i = 0; i < kWorkers; ++i) {
    workers.emplace_back(i, [&] {
      std::uint64_t sum = 0;
      for (const auto& node : nodes) {
        const auto found = node;  // NOLINT(performance-unnecessary-copy-initialization)
        benchmark::DoNotOptimize(found.get());
        sum += found->value;
      }
      pthread_barrier_wait(barrier);  // all have read
      pthread_barrier_wait(barrier);  // all were measured
      if (sum != nodes.size() * (nodes.size() - 1) / 2)
        throw std::runtime_error("other values than were written");
    });
    pids.push_back(workers.back().pid());
  }
  pthread_barrier_wait(barrier);
  const auto result = figures(pids, began);
  pthread_barrier_wait(barrier);
  for (Child& worker : workers) worker.join();
  return result;
}

std::vector<double> measure_objects(const std::string& how, std::size_t bytes) {
  use_small_pages();
  const std::size_t count = bytes / sizeof(Node);
  if (how == "heap_shared_ptr") {
    std::vector<std::shared_ptr<const Node>> nodes;
    for (std::size_t i = 0; i < count; ++i) nodes.push_back(std::make_shared<Node>(Node{i, {}}));
    return read_by_all(nodes);
  }
  const bool on_heap = how == "heap_immortal_ptr";
  auto arena = got(Arena::create({.name = "objects", .capacity = 8 * bytes + 64_MiB}));
  std::pmr::vector<ImmortalPtr<const Node>> nodes(on_heap ? std::pmr::new_delete_resource()
                                                          : arena.resource());
  for (std::size_t i = 0; i < count; ++i)
    nodes.emplace_back(on_heap ? new Node{i, {}} : got(arena.make<Node>(Node{i, {}})));
  if (!on_heap) got(arena.freeze());
  return read_by_all(nodes);
}

const SubjectKind objects_kind("objects", [](const Words& arguments) -> Answer {
  return [arguments](const Words&) {
    return measure_objects(arguments.at(0), std::stoull(arguments.at(1)));
  };
});

template <class Ask>
void add_one(const std::string& name, Ask ask) {
  add("memory/" + name, [ask](benchmark::State& state) {
    const auto figures = ask();
    state.counters["pss_bytes"] = figures.at(0);
    state.counters["page_table_bytes"] = figures.at(1);
    return figures.at(2);
  })->Repetitions(1);  // PSS is exact
}

}  // namespace

std::vector<double> measure_memory(const std::string& method, Holding& holding, int workers) {
  if (method == "fork" || method == "forkserver" || method == "spawn")
    return of_library(method, holding, workers);
  const std::uint64_t began = now_ns();
  std::list<WorkerByHand> all;
  std::vector<pid_t> pids;
  for (int i = 0; i < workers; ++i) all.emplace_back(method, holding, Part::each_page);
  for (WorkerByHand& worker : all) {
    check(worker.reply(), holding.words, Part::each_page);
    if (worker.pid() != 0) pids.push_back(worker.pid());
  }
  return figures(pids, began);
}

void add_memory() {
  for (const Held& held : all_held()) {
    const bool is_arena = held.memory == "arena";
    const bool is_large = held.bytes >= 1_GiB;
    // In 4 KiB pages, each worker makes a million page table entries.
    const int most = is_arena                                                          ? 64
                     : is_large && (held.memory == "heap" || held.memory == "settled") ? 1
                                                                                       : 8;
    std::vector<std::string> methods = {"bare_fork", "thread", "posix_spawn"};
    if (held.memory == "none") methods = {};
    if (is_arena) methods = {"fork", "forkserver", "spawn"};
    for (const std::string& method : methods) {
      for (const int workers : {1, 8, 64}) {
        if (workers > most) continue;
        if (is_large && method == "posix_spawn") continue;  // it would be sent more than 1 GiB
        const std::string question = fmt::format("memory {} {}", method, workers);
        add_one(fmt::format("{}/{}/{}", method, held.name(), workers),
                [held, question] { return holder(held).ask(question); });
      }
    }
  }
  const std::string bytes = std::to_string(is_quick() ? 1_MiB : 64_MiB);
  for (const std::string how : {"heap_shared_ptr", "heap_immortal_ptr", "arena_immortal_ptr"})
    add_one("objects/" + how + "/8", [=] { return Subject({"objects", how, bytes}).ask(); });
}

}  // namespace cowshed::bench
