#pragma once

// What most tests of share/ include.

#include <deque>
#include <list>
#include <memory_resource>
#include <mutex>
#include <poll.h>
#include <sys/socket.h>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <variant>

#include <cowshed/share/arena.h>
#include <cowshed/share/channel.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/transfer_report.h>
#include <cowshed/share/workers.h>
#include <cowshed/tests/support/child.h>
#include <cowshed/tests/support/memory_map.h>
#include <cowshed/tests/support/scale.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::test {

template <class T>
T value_of(Expected<T> expected) {
  if (!expected) throw std::runtime_error(expected.error().message);
  return std::move(*expected);
}

// One that no error has for a success.
template <class T>
ErrorCode code_of(const Expected<T>& result) {
  return result ? ErrorCode{255} : result.error().code;
}

// Of a text: that it is in there.  A matcher is itself.
template <class Text>
testing::Matcher<std::string> has(const Text& text) {
  if constexpr (std::is_convertible_v<Text, std::string>) return testing::HasSubstr(text);
  else return text;
}

// For EXPECT_THAT: an error of this code, whose message has the text in it, or matches.
MATCHER_P2(Fails, code, text, "") {
  *result_listener << (arg ? "which is no error" : arg.error().message);
  return code_of(arg) == code && testing::Value(arg.error().message, has(text));
}
inline auto Fails(ErrorCode code) { return Fails(code, ""); }
// One of this errno.
MATCHER_P2(FailsBy, number, text, "") {
  *result_listener << (arg ? "which is no error" : arg.error().message);
  return !arg && arg.error().system_errno == number &&
         testing::Value(arg.error().message, has(text));
}
inline auto FailsBy(int number) { return FailsBy(number, ""); }
MATCHER(Succeeds, "") {
  *result_listener << (arg ? "" : arg.error().message);
  return static_cast<bool>(arg);
}

// The code of what get() says, or "ok".
template <class T>
std::string outcome(const Ref<T>& ref) {
  const auto object = ref.get();
  EXPECT_EQ(object.has_value(), ref.try_get() != nullptr);
  return object ? "ok" : std::string(to_string(object.error().code));
}

// Why an arena refuses an allocation; of code 255 when it does not.
template <class Allocate>
Error refusal_of(Allocate&& allocate) {
  try {
    allocate();
  } catch (const ArenaBadAlloc& failure) {
    EXPECT_EQ(failure.what(), failure.error().message);
    return failure.error();
  }
  return {ErrorCode{255}, 0, "allocated"};
}

inline Arena make_arena(std::size_t capacity = 64_MiB, const std::string& name = "index",
                        bool huge_pages = true) {
  return value_of(Arena::create({.name = name, .capacity = capacity, .huge_pages = huge_pages}));
}
inline Arena make_arena(const std::string& name, std::size_t capacity = 64_MiB) {
  return make_arena(capacity, name);
}
// Where it cannot collapse memfd pages, or memory is too fragmented.
inline bool has_no_huge_pages() {
  Arena arena = make_arena();
  std::memset(arena.allocate(2_MiB, 2_MiB), 1, 2_MiB);
  return arena.stats().huge_page_bytes == 0;
}

// With an object that is published.
template <class T>
struct ArenaOf {
  explicit ArenaOf(const std::string& name = "index") : arena(make_arena(name)) {}

  Arena arena;
  T* object = value_of(arena.make<T>());
  Ref<T> ref = value_of(publish("index", object));
};

template <class T>
Channel<T> make(const ChannelOptions& options = {}) {
  return value_of(Channel<T>::create(options));
}

// What transfer_report() says of it.
inline TransferSource sent_by(const std::string& name, const std::string& origin = "channel") {
  for (const TransferSource& source : transfer_report().sources)
    if (source.name == name && source.origin == origin) return source;
  throw std::runtime_error(origin + " '" + name + "' is not in the report");
}

// Whether it holds within a minute.
template <class Condition>
bool eventually(Condition&& condition) {
  for (int i = 0; i < 60000; ++i) {
    if (condition()) return true;
    usleep(1000);
  }
  return false;
}

// Zeroed memory that forked children share with the test.
template <class T>
T& shared() {
  void* memory =
      mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("no shared memory");
  return *static_cast<T*>(memory);
}

// `count` children, each of which runs body(its number).
template <class Number, class Body>
std::deque<Child> begin_processes(Number count, const Body& body) {
  std::deque<Child> processes;
  for (Number i = 0; i < count; ++i) processes.emplace_back([&] { return body(i); });
  return processes;
}
inline void expect_success(std::deque<Child>& processes) {
  for (Child& process : processes) EXPECT_EQ(process.wait(), 0);
}

// `count` threads, each of which runs body(its number).  They are joined where the result ends.
template <class Number, class Body>
std::vector<std::jthread> begin_threads(Number count, const Body& body) {
  std::vector<std::jthread> threads;
  for (Number i = 0; i < count; ++i) threads.emplace_back([body, i] { body(i); });
  return threads;
}

// Forks `rounds` times while three threads repeat `work`.  Each child must say "fine".
template <class Work, class InChild>
void fork_while(int rounds, const Work& work, const InChild& in_child) {
  std::atomic<bool> over = false;
  const auto threads = begin_threads(3, [&](int i) {
    while (!over) work(i);
  });
  for (int round = 0; round < rounds && !testing::Test::HasFailure(); ++round) {
    const auto child = run_in_child([&]() -> std::string {
      alarm(60);
      return in_child();
    });
    EXPECT_EQ(child.said, "fine") << "signal " << child.signal;
  }
  over = true;
}

// Whatever a test does, it leaves no child and no descriptor.
class LeavesNothing : public testing::Test {
 protected:
  void TearDown() override {
    EXPECT_EQ(open_descriptors(), descriptors_);
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
    EXPECT_EQ(errno, ECHILD);
  }

 private:
  std::size_t descriptors_ = open_descriptors();
};

}  // namespace cowshed::test

namespace cowshed {

using namespace std::chrono_literals;
using test::ArenaOf;
using test::begin_threads;
using test::Child;
using test::code_of;
using test::eventually;
using test::Fails;
using test::FailsBy;
using test::make;
using test::make_arena;
using test::outcome;
using test::refusal_of;
using test::run_in_child;
using test::sent_by;
using test::Succeeds;
using test::value_of;

}  // namespace cowshed

// The cases of a suite whose parameter is a FreezeMode.
#define COWSHED_EVERY_MODE(suite)                                                               \
  INSTANTIATE_TEST_SUITE_P(                                                                     \
      Modes, suite, testing::Values(cowshed::FreezeMode::strict, cowshed::FreezeMode::lenient), \
      [](const auto& mode) {                                                                    \
        return mode.param == cowshed::FreezeMode::strict ? "Strict" : "Lenient";                \
      })
