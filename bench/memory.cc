#include <algorithm>
#include <fmt/format.h>
#include <list>
#include <memory>
#include <stdexcept>
#include <unistd.h>

#include <cowshed/share/channel.h>
#include <cowshed/share/forkserver.h>
#include <cowshed/share/immortal_ptr.h>
#include <cowshed/share/workers.h>

#include "by_hand.h"
#include "family.h"
#include "holder.h"
#include "machine.h"
#include "peer.h"

// The memory of a process and its workers, once each worker has read all the data.
namespace cowshed::bench {
namespace {

double bytes_of(const std::string& file, const char* name, pid_t pid) {
  return static_cast<double>(proc_bytes(fmt::format("/proc/{}/{}", pid, file), name));
}

// What the question "memory" is answered with.
std::vector<double> figures(const std::vector<pid_t>& workers, std::uint64_t began) {
  const auto took = static_cast<double>(now_ns() - began);
  double pss = bytes_of("smaps_rollup", "Pss", getpid());
  double tables = bytes_of("status", "VmPTE", getpid());
  for (const pid_t pid : workers) {
    if (pid == 0) continue;  // a thread
    pss += bytes_of("smaps_rollup", "Pss", pid);
    tables += bytes_of("status", "VmPTE", pid);
  }
  return {pss, tables, took};
}

void check(std::uint64_t sum, const Holding& holding) {
  if (sum != expected_sum(holding.words().size_bytes(), Part::each_page))
    throw std::runtime_error("a worker has read what was not written");
}

// Reads all, says so, and stays until `end` is closed.
int read_and_stay(WordsOfData words, Channel<Reply> replies, Channel<Reply> end) {
  got(replies.send(reply_about(words, Part::each_page, 0)));
  return end.receive() ? 1 : 0;
}
int read_vector_and_stay(const std::vector<std::uint64_t>& words, Channel<Reply> replies,
                         Channel<Reply> end) {
  return read_and_stay(words, std::move(replies), std::move(end));
}

std::vector<double> by_library(const std::string& method, Holding& holding, int count) {
  std::optional<ForkServer> server;
  WorkersOptions options;
  options.count = count;
  if (method == "spawn") options.method = Start::spawn;
  if (method == "forkserver") {
    server.emplace(got(ForkServer::start()));
    options.method = Start::forkserver;
    options.server = &*server;
  }
  auto replies = got(Channel<Reply>::create({.slots = 64}));
  auto end = got(Channel<Reply>::create({.slots = 64}));
  const std::uint64_t began = now_ns();
  auto workers = holding.memory() == "arena"
                     ? got(start<read_and_stay>(options, holding.ref(), replies, end))
                     : got(start<read_vector_and_stay>(options, holding.heap(), replies, end));
  for (int i = 0; i < count; ++i) check(got(replies.receive()).sum, holding);
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
  std::array<char, 48> text;
};

template <class Pointer, class Make>
std::vector<double> objects(std::size_t bytes, std::pmr::memory_resource* memory, Make make,
                            const std::function<void()>& ready) {
  std::pmr::vector<Pointer> nodes(memory);
  for (std::size_t i = 0; i < bytes / 64; ++i) nodes.push_back(make(i));
  ready();
  constexpr int kWorkers = 8;
  std::list<Peer> workers;
  const std::uint64_t began = now_ns();
  for (int i = 0; i < kWorkers; ++i) {
    workers.emplace_back([&nodes](std::uint64_t) {
      std::uint64_t sum = 0;
      for (const Pointer& node : nodes) {
        const Pointer found = node;  // NOLINT(performance-unnecessary-copy-initialization)
        benchmark::DoNotOptimize(found.get());
        sum += found->value;
      }
      return sum;
    });
  }
  std::vector<pid_t> pids;
  for (const Peer& worker : workers) worker.start(0);
  for (const Peer& worker : workers) {
    if (worker.result() != nodes.size() * (nodes.size() - 1) / 2)
      throw std::runtime_error("a worker has read what was not written");
    pids.push_back(worker.pid());
  }
  return figures(pids, began);
}

std::vector<double> measure_objects(const std::string& how, std::size_t bytes) {
  use_small_pages();
  const auto node = [](std::size_t i) { return Node{i, {}}; };
  if (how == "heap_shared_ptr") {
    return objects<std::shared_ptr<const Node>>(
        bytes, std::pmr::new_delete_resource(),
        [&](std::size_t i) { return std::make_shared<const Node>(node(i)); }, [] {});
  }
  using Immortal = ImmortalPtr<const Node>;
  if (how == "heap_immortal_ptr") {
    return objects<Immortal>(
        bytes, std::pmr::new_delete_resource(),
        [&](std::size_t i) { return Immortal(new Node(node(i))); }, [] {});
  }
  auto arena = got(Arena::create({.name = "objects", .capacity = 8 * bytes + 64_MiB}));
  return objects<Immortal>(
      bytes, arena.resource(),
      [&](std::size_t i) { return Immortal(got(arena.make<Node>(node(i)))); },
      [&] { got(arena.freeze()); });
}

const SubjectKind kObjects("objects", [](const Words& arguments) -> Answer {
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

void add_held(const std::string& method, const Held& held, int workers) {
  const std::string question = fmt::format("memory {} {}", method, workers);
  add_one(fmt::format("{}/{}/{}", method, held.name(), workers),
          [held, question] { return holder(held).ask(question); });
}

}  // namespace

std::vector<double> measure_memory(const std::string& method, Holding& holding, int workers) {
  if (method == "fork" || method == "forkserver" || method == "spawn")
    return by_library(method, holding, workers);
  const std::uint64_t began = now_ns();
  std::list<WorkerByHand> all;
  std::vector<pid_t> pids;
  for (int i = 0; i < workers; ++i) all.emplace_back(method, holding, Part::each_page);
  for (WorkerByHand& worker : all) {
    check(worker.reply().sum, holding);
    pids.push_back(worker.pid());
  }
  return figures(pids, began);
}

void add_memory() {
  for (const Held& held : all_held()) {
    if (held.memory == "none") continue;
    const bool is_large = held.bytes >= 1_GiB;
    if (held.memory == "arena") {
      for (const int workers : {1, 8, 64})
        for (const char* method : {"fork", "forkserver", "spawn"}) add_held(method, held, workers);
      continue;
    }
    for (const int workers : {1, 8}) {
      const bool is_memfd = held.memory == "memfd";
      if (held.memory == "huge" || !is_large || workers == 1)  // a million pages in each
        add_held("bare_fork", held, workers);
      if (!is_memfd) add_held("thread", held, workers);
      if (!is_large || (is_memfd && workers == 1)) add_held("posix_spawn", held, workers);
    }
  }
  for (const std::string how : {"heap_shared_ptr", "heap_immortal_ptr", "arena_immortal_ptr"}) {
    const std::string bytes = std::to_string(is_quick() ? 1_MiB : 64_MiB);
    add_one("objects/" + how + "/8",
            [how, bytes] { return Subject({"objects", how, bytes}).ask(); });
  }
}

}  // namespace cowshed::bench
