#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>

#include <cowshed/share/forkserver.h>
#include <cowshed/share/workers.h>

#include "by_hand.h"
#include "family.h"
#include "holder.h"
#include "peer.h"

// How long a worker takes to its first line, to its answer about the data, and to its end.
namespace cowshed::bench {
namespace {

Reply reply_about_array(WordsOfData words) { return reply_about(words, Part::some, now_ns()); }
Reply reply_about_vector(const std::vector<std::uint64_t>& words) {
  return reply_about(words, Part::some, now_ns());
}

template <class R>
Reply value_of(Expected<Workers<R>> workers) {
  const auto results = got(got(std::move(workers)).wait());
  if (!results[0].value) throw std::runtime_error(results[0].error);
  return *results[0].value;
}

Reply start_by_library(const std::string& method, Holding& holding) {
  static std::optional<ForkServer> server;
  WorkersOptions options;
  if (method == "spawn") options.method = Start::spawn;
  if (method == "forkserver") {
    if (!server) server.emplace(got(ForkServer::start()));
    options.method = Start::forkserver;
    options.server = &*server;
  }
  if (holding.memory() == "arena")
    return value_of(start<reply_about_array>(options, holding.ref()));
  return value_of(start<reply_about_vector>(options, holding.heap()));
}

Reply start_one(const std::string& method, Holding& holding) {
  if (method == "fork" || method == "forkserver" || method == "spawn")
    return start_by_library(method, holding);
  return WorkerByHand(method, holding, Part::some).reply();
}

struct Times {
  double begun;
  double answered;
  double ended;
};

Times time_one(const std::string& method, Holding& holding) {
  const std::uint64_t before = now_ns();
  const Reply reply = start_one(method, holding);
  const std::uint64_t ended = now_ns();
  if (reply.sum != expected_sum(holding.words().size_bytes(), Part::some))
    throw std::runtime_error("a worker by " + method + " gave a wrong answer");
  if (reply.begun < before || reply.answered > ended)
    throw std::runtime_error("a worker by " + method +
                             " did not run between its start and its end");
  const auto since = [before](std::uint64_t time) { return static_cast<double>(time - before); };
  return {since(reply.begun), since(reply.answered), since(ended)};
}

// Threads as a server has them: each wakes up every millisecond, allocates, writes and frees.
class Crowd {
 public:
  explicit Crowd(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) threads_.emplace_back([this] { live(); });
  }
  ~Crowd() {
    ended_ = true;
    for (auto& thread : threads_) thread.join();
  }
  Crowd(const Crowd&) = delete;
  Crowd& operator=(const Crowd&) = delete;

 private:
  void live() const {
    while (!ended_) {
      const std::vector<char> block(4000, 'x');
      std::this_thread::sleep_for(std::chrono::milliseconds(1) +
                                  std::chrono::microseconds(block[7]));
    }
  }

  std::atomic<bool> ended_ = false;
  std::vector<std::thread> threads_;
};

struct Method {
  std::string name;
  std::string memories;  // whose data its worker can read
  std::string copied;    // memories whose data it is sent, up to 1 GiB
};

const std::array<Method, 7> kMethods = {{{"fork", "none arena heap huge", ""},
                                         {"forkserver", "none arena heap huge", "heap huge"},
                                         {"spawn", "none arena heap huge", "heap huge"},
                                         {"bare_fork", "none memfd heap huge", ""},
                                         {"vfork", "none memfd heap huge", "heap huge"},
                                         {"posix_spawn", "none memfd heap huge", "heap huge"},
                                         {"thread", "none heap huge", ""}}};

bool has(const std::string& words, const std::string& word) {
  return words.find(word) != std::string::npos;
}

}  // namespace

std::vector<double> time_start(const std::string& method, Holding& holding, std::size_t threads) {
  const Crowd crowd(threads);
  auto all = repeat([&] { return time_one(method, holding); });
  if (all.size() > 2) all.erase(all.begin());  // the first is slower
  std::vector<double> result;
  for (const auto time : {&Times::begun, &Times::answered, &Times::ended}) {
    std::vector<double> times;
    for (const Times& each : all) times.push_back(each.*time);
    result.push_back(median(times));
  }
  return result;
}

void add_start() {
  for (const int threads : {0, 32}) {
    for (const Method& method : kMethods) {
      if (threads > 0 && method.name == "fork") continue;  // it refuses, and names the threads
      for (const Held& held : all_held()) {
        if (!has(method.memories, held.memory)) continue;
        if (has(method.copied, held.memory) && (held.bytes > 1_GiB || threads > 0)) continue;
        const std::string question = "start " + method.name + " " + std::to_string(threads);
        add("start/" + method.name + "/" + held.name() + (threads > 0 ? "/beside_threads" : ""),
            [held, question](benchmark::State& state) {
              const auto times = holder(held).ask(question);
              state.counters["begun_ns"] = times.at(0);
              state.counters["answered_ns"] = times.at(1);
              return times.at(2);
            });
      }
    }
  }
}

}  // namespace cowshed::bench
