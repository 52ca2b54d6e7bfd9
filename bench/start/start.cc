#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../family.h"
#include "workers.h"

// How long a worker takes to its first line, to its answer about the data, and to its end; and
// the call fork() alone, in the parent.
namespace cowshed::bench {
namespace {

template <class Data>
Reply answer(const Data& words) {
  return reply_about(words, Part::some, now_ns());
}

Reply start_one(const std::string& method, Holding& holding) {
  if (method != "fork" && method != "forkserver" && method != "spawn")
    return WorkerByHand(method, holding, Part::some).reply();
  static std::optional<ForkServer> server;
  const WorkersOptions options = by_library(method, server);
  auto workers = holding.memory == "arena" ? got(start<answer<WordsOfData>>(options, holding.ref))
                                           : got(start<answer<Numbers>>(options, holding.heap));
  const auto results = got(workers.wait());
  if (!results[0].value) throw std::runtime_error(results[0].error);
  return *results[0].value;
}

// To its first line, to its answer, and to its end.
std::array<double, 3> time_one(const std::string& method, Holding& holding) {
  const std::uint64_t before = now_ns();
  const Reply reply = start_one(method, holding);
  const std::uint64_t ended = now_ns();
  check(reply, holding.words, Part::some);
  if (reply.begun < before || reply.answered > ended)
    throw std::runtime_error("a worker did not run between its start and its end");
  const auto since = [before](std::uint64_t time) { return static_cast<double>(time - before); };
  return {since(reply.begun), since(reply.answered), since(ended)};
}

// A thread as a server has them: it wakes up every millisecond, allocates, writes and frees.
void live(const std::stop_token& ended) {
  while (!ended.stop_requested()) {
    const std::vector<char> block(4000, 'x');
    std::this_thread::sleep_for(std::chrono::milliseconds(1) + std::chrono::microseconds(block[7]));
  }
}

}  // namespace

std::vector<double> time_start(const std::string& method, Holding& holding, std::size_t threads) {
  std::vector<std::jthread> crowd(threads);
  for (std::jthread& thread : crowd) thread = std::jthread(live);
  auto all = repeat([&] { return time_one(method, holding); });
  if (all.size() > 2) all.erase(all.begin());  // the first is slower
  std::vector<double> result;
  for (std::size_t i = 0; i < 3; ++i) {
    std::vector<double> times;
    for (const auto& each : all) times.push_back(each.at(i));
    result.push_back(median(times));
  }
  return result;
}

void add_start() {
  const auto add_one = [](const std::string& name, const std::string& method, const Held& held,
                          int threads) {
    const std::string question = fmt::format("start {} {}", method, threads);
    add(fmt::format("start/{}/{}{}", name, held.name(), threads > 0 ? "/beside_threads" : ""),
        [held, question](benchmark::State& state) {
          const auto times = holder(held).ask(question);
          state.counters["begun_ns"] = times.at(0);
          state.counters["answered_ns"] = times.at(1);
          return times.at(2);
        });
  };
  add_one("bare_fork_again", "bare_fork", {"none", 0}, 0);
  for (const std::string& method :
       words_of("fork forkserver spawn bare_fork vfork posix_spawn thread")) {
    const bool is_ours = method == "fork" || method == "forkserver" || method == "spawn";
    const bool inherits = method == "fork" || method == "bare_fork" || method == "thread";
    for (const int threads : {0, 32}) {
      if (threads > 0 && method == "fork") continue;  // it refuses, and names the threads
      for (const Held& held : all_held()) {
        if (held.memory == (is_ours ? "memfd" : "arena")) continue;
        const bool is_copied =
            !inherits && held.memory != "arena" && held.memory != "memfd" && held.bytes > 0;
        if (is_copied && held.memory == "settled") continue;  // as of the heap
        if (is_copied && (held.bytes > 1_GiB || threads > 0)) continue;
        add_one(method, method, held, threads);
      }
    }
  }
}

double time_fork() {
  const auto once = [] {
    const std::uint64_t before = now_ns();
    const pid_t pid = fork();
    if (pid == 0) _exit(0);
    const std::uint64_t after = now_ns();
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
      throw std::system_error(errno, std::system_category(), "fork");
    if (status != 0) throw std::runtime_error("a child did not end as it should");
    return static_cast<double>(after - before);
  };
  once();  // the first is slower
  return median(repeat(once));
}

void add_fork() {
  const auto add_one = [](const std::string& name, const Held& held) {
    add("fork/" + name, [held](benchmark::State&) {
      return holder(held).ask("fork").front();
    })->Repetitions(is_quick() ? 1 : 40);
  };
  for (const Held& held : all_held()) add_one(held.name(), held);
  add_one("none_again", {"none", 0});
}

}  // namespace cowshed::bench
