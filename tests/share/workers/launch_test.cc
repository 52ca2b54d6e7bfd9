// What goes to a worker and comes back from it, the same under every method.

#include <cowshed/share/map.h>
#include <cowshed/tests/share/export/image_objects.h>

#include "every_method.h"

namespace cowshed {
namespace {

using Launch = test::EveryMethod;

COWSHED_EVERY_METHOD(Launch);

int exit_with(int code) { return code; }

TEST_P(Launch, AnIntIsTheExitCode) {
  EXPECT_TRUE(end_of(start<exit_with>(one(), 0)).ok());
  const auto exit = end_of(start<exit_with>(one(), 7));
  EXPECT_EQ(exit.exit_code, 7);
  EXPECT_THAT(exit.error, EndsWith("exited with 7"));
}

using Words = std::map<std::string, std::vector<std::string>>;

std::string join(const Worker& self, const Words& words, const std::string& between, double number,
                 const std::optional<std::string>& last) {
  std::string text = std::to_string(self.rank) + "/" + std::to_string(self.count);
  for (const auto& [key, values] : words) {
    text += between + key;
    for (const auto& value : values) text += between + value;
  }
  return text + between + std::to_string(static_cast<int>(number * 10)) + last.value_or("");
}

TEST_P(Launch, ArgumentsAndValuesArriveByRank) {
  const Words words = {{"a", {"b", "c"}}, {"d", {}}};
  auto workers = value_of(start<join>(with({.count = 3}), words, "-", 1.5F, "!"));
  std::vector<pid_t> pids;
  for (const WorkerProcess& process : workers.processes()) pids.push_back(process.pid());
  const auto results = value_of(workers.wait());
  ASSERT_EQ(results.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(results[i].ok()) << results[i].error;
    EXPECT_EQ(results[i].rank, static_cast<int>(i));
    EXPECT_EQ(results[i].pid, pids[i]);
    EXPECT_EQ(results[i].exit_code, 0);
    EXPECT_GT(results[i].start_ns, 0U);
    EXPECT_EQ(results[i].value, std::to_string(i) + "/3-a-b-c-d-15!");
  }
}

std::vector<std::uint64_t> count_to(std::size_t end) {
  std::vector<std::uint64_t> numbers(end);
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

// More than any socket holds; nobody reads before the worker has ended.
TEST_P(Launch, ALargeValueDoesNotKeepItsWorker) {
  constexpr std::size_t kNumbers = std::size_t{4} << 20U;
  auto workers = value_of(start<count_to>(with({.count = 2}), kNumbers));
  for (const WorkerProcess& process : workers.processes()) {
    const pid_t pid = process.pid();
    siginfo_t info;
    if (GetParam() == Start::forkserver)
      while (kill(pid, 0) == 0) usleep(1000);
    else ASSERT_EQ(waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT), 0);
  }
  const auto results = value_of(workers.wait());
  for (const auto& result : results) {
    ASSERT_TRUE(result.value) << result.error;
    EXPECT_EQ(*result.value, count_to(kNumbers));
  }
}

std::size_t length(const std::string& text) { return text.size(); }

TEST_P(Launch, ALargeArgumentArrives) {
  constexpr std::size_t kSize = std::size_t{20} << 20U;
  for (const std::size_t size : {std::size_t{0}, std::size_t{16300}, std::size_t{16384}, kSize})
    EXPECT_EQ(end_of(start<length>(one(), std::string(size, 'x'))).value, size);
}

TEST_P(Launch, ALambdaWithoutCapturesIsAFunctionToo) {
  const auto by_ten = end_of(start<[](int value) { return value * 10L; }>(one(), 4));
  const auto by_two = end_of(start<[](int value) { return value * 2L; }>(one(), 4));
  EXPECT_EQ(by_ten.value, 40);
  EXPECT_EQ(by_two.value, 8);
}

struct Index {
  int answer = 42;
  int more[100] = {};
};

using Seen = std::tuple<std::uintptr_t, int, std::size_t, std::uintptr_t>;

Seen look(const Index& index, std::span<const int> words) {
  return {reinterpret_cast<std::uintptr_t>(&index), index.answer, words.size(),
          reinterpret_cast<std::uintptr_t>(words.data())};
}

TEST_P(Launch, AReferenceGivesTheSameObjectAtTheSameAddress) {
  ArenaOf<Index> of;
  const auto words = value_of(of.arena.make_array<int>(1000));
  const auto words_ref = value_of(publish(words));
  ASSERT_TRUE(of.arena.freeze());
  auto workers = value_of(start<look>(with({.count = 2}), of.ref, words_ref));
  for (const auto& result : value_of(workers.wait())) {
    EXPECT_EQ(result.value, Seen(reinterpret_cast<std::uintptr_t>(of.object), 42, 1000,
                                 reinterpret_cast<std::uintptr_t>(words.data())))
        << result.error;
  }
}

int compare(const Worker& self, const Index& index, Ref<Index> ref, const Ref<Index>& same) {
  return self.rank == 0 && &*ref == &index && same == ref ? index.answer : -1;
}

TEST_P(Launch, AFunctionMayTakeTheReferenceItself) {
  ArenaOf<Index> of;
  ASSERT_TRUE(of.arena.freeze());
  const auto result = end_of(start<compare>(one(), of.ref, of.ref, of.ref));
  EXPECT_EQ(result.exit_code, 42) << result.error;
}

int answer_of(const Index& index) { return index.answer; }

TEST_P(Launch, StartBeforeFreezeSaysSo) {
  const ArenaOf<Index> of;
  EXPECT_THAT(start<answer_of>(one(), of.ref),
              Fails(ErrorCode::arena_not_frozen, "freeze() it before start()"));
  EXPECT_THAT(start<answer_of>(one(), Ref<Index>{}), Fails(ErrorCode::null_reference));
}

struct Silent : std::exception {
  const char* what() const noexcept override { return nullptr; }
};

void fail(int how) {
  switch (how) {
    case 1: throw std::runtime_error("boom\nand more");
    case 2: throw std::runtime_error(std::string(10000, 'x'));
    case 3: throw 5;
    default: throw Silent();
  }
}

TEST_P(Launch, AnExceptionArrivesAsText) {
  const auto exit = end_of(start<fail>(one(), 1));
  EXPECT_EQ(exit.exit_code, 1);
  EXPECT_THAT(exit.error, EndsWith("): boom and more"));
  EXPECT_LT(end_of(start<fail>(one(), 2)).error.size(), 3000U);
  EXPECT_THAT(end_of(start<fail>(one(), 3)).error, HasSubstr("no std::exception"));
  EXPECT_THAT(end_of(start<fail>(one(), 4)).error, EndsWith("Silent, whose what() is null"));
}

struct Unreadable {
  int how;
};

}  // namespace

template <>
struct Codec<Unreadable> {
  static void encode(Encoder& to, const Unreadable& value) { to.put(value.how); }
  static Unreadable decode(Decoder& from) { throw from.take<int>(); }
};

namespace {

TEST_P(Launch, AValueThatCannotBeReadIsAnError) {
  const auto result = end_of(start<[]() { return Unreadable{3}; }>(one()));
  EXPECT_FALSE(result.value);
  EXPECT_EQ(result.error, "an exception that is no std::exception");
}

std::string variable() { return std::getenv("COWSHED_TEST"); }

TEST_P(Launch, AWorkersEnvironmentIsAnOption) {
  const auto options = with({.environment = {"COWSHED_TEST=a=b"}});
  EXPECT_EQ(end_of(start<variable>(options)).value, "a=b");
  EXPECT_EQ(std::getenv("COWSHED_TEST"), nullptr);
  EXPECT_THAT(start<variable>(with({.environment = {"X"}})), Fails(ErrorCode::invalid_argument));
}

std::vector<std::string> list_descriptors() {
  std::vector<std::string> targets;
  for (const auto& [descriptor, target] : test::descriptors())
    if (descriptor > 2 && !target.ends_with("/fd")) targets.push_back(target);
  return targets;
}

std::size_t huge_kib() { return test::figure_of("/proc/self/smaps_rollup", "AnonHugePages"); }

// An allocator's records in one would be 2 MiB for each of hundreds.
TEST_P(Launch, AWorkerOfItsOwnBeginsWithoutHugePages) {
  const auto result = end_of(start<huge_kib>(one()));
  ASSERT_TRUE(result.value) << result.error;
  EXPECT_TRUE(test::kSanitized || GetParam() == Start::fork || *result.value == 0);
}

// One descriptor that is not CLOEXEC stands for a program's own.
TEST_P(Launch, AWorkerGetsOnlyWhatItShould) {
  const int own = memfd_create("own", 0);
  const auto result = end_of(start<list_descriptors>(one()));
  close(own);
  ASSERT_TRUE(result.value) << result.error;
  const auto ours = testing::AnyOf(StartsWith("socket:"), StartsWith("/memfd:cowshed"));
  if (GetParam() == Start::fork) EXPECT_THAT(*result.value, Contains(StartsWith("/memfd:own")));
  else EXPECT_THAT(*result.value, Each(ours));
  EXPECT_THAT(*result.value, Contains(StartsWith("socket:")).Times(1));
}

long count_words(const Words& words, const Index& index) {
  return static_cast<long>(words.size()) + index.answer;
}

TEST_P(Launch, WhatIsSentIsCounted) {
  ArenaOf<Index> of;
  ASSERT_TRUE(of.arena.freeze());
  const Words words = {{"key", {"one", "two"}}};
  const std::string name = "counted " + test::name_of_method({GetParam(), 0});
  auto workers = value_of(start<count_words>(with({.count = 2, .name = name}), words, of.ref));
  EXPECT_EQ(value_of(workers.wait())[0].value, 43);
  const TransferSource returned = sent_by(name, "result");
  EXPECT_EQ(returned.by_value.objects, 2U);
  EXPECT_EQ(returned.by_value.bytes, 2 * sizeof(long));
  EXPECT_EQ(returned.types.at(0).type, "long");
  const TransferSource sent = sent_by(name, "launch");
  EXPECT_EQ(sent.by_reference.objects, 2U);
  EXPECT_EQ(sent.by_reference.bytes, 2 * sizeof(Index));
  if (GetParam() == Start::fork) {
    EXPECT_EQ(sent.by_value.bytes, 0U);
    EXPECT_EQ(sent.inherited.objects, 2U);
  } else {
    EXPECT_EQ(sent.by_value.messages, 2U);
    EXPECT_EQ(sent.by_value.bytes, 2 * (4 * 8 + 3 * 3 + 8)) << "4 counts, 3 words, their map's";
    EXPECT_EQ(sent.inherited.objects, 0U);
  }
}

TEST_P(Launch, ClosuresAreForForkAlone) {
  int captured = 7;
  const auto workers = start(one(), [&] { return captured; });
  if (GetParam() == Start::fork) EXPECT_TRUE(workers);
  else EXPECT_THAT(workers, Fails(ErrorCode::invalid_argument, "start<function>(options"));
}

long use_while_printing(const Index& index, Channel<int>& numbers) {
  for (int stream = 0; stream < 3; ++stream)
    if (write(stream, "garbage", 7) != -1 || errno != EBADF) return -1;
  return long{numbers.receive().value()} * index.answer;
}

// In a process of its own, which has closed them.
TEST_P(Launch, NothingOfOursTakesTheNumberOfAClosedOne) {
  const Start method = GetParam();
  Child process([method] {
    for (int stream = 0; stream < 3; ++stream) close(stream);
    ArenaOf<Index> of;
    auto numbers = make<int>({.name = "numbers"});
    if (!of.arena.freeze() || !numbers.try_send(1) || !numbers.try_send(2)) return 1;
    auto workers =
        value_of(start<use_while_printing>({.method = method, .count = 2}, of.ref, numbers));
    long sum = 0;
    for (const auto& result : value_of(workers.wait())) sum += result.value.value_or(-1000);
    const bool sent = numbers.try_send(3).has_value();
    return sent && sum == 126 && use_while_printing(*of.ref, numbers) == 126 ? 0 : 2;
  });
  EXPECT_EQ(process.wait(), 0);
}

using LaunchArenas = test::EveryMethod;
using test::inode_at;
using test::make_nodes;
using test::Node;

COWSHED_EVERY_METHOD(LaunchArenas);

// ---- Arenas that a worker builds and its parent has.

using Place = std::pair<std::uintptr_t, ino_t>;  // an address, and the inode of what is there

// With one node, which is published.
std::pair<Arena, Ref<Node>> make_result(bool frozen = true) {
  Arena arena = make_arena("result");
  const auto ref = value_of(publish(make_nodes(arena, 1)));
  if (frozen && !arena.freeze()) throw std::runtime_error("not frozen");
  return {std::move(arena), ref};
}

constexpr std::uint64_t kNodes = 100'000;

// Under the same name in all workers.
std::tuple<Arena, Ref<Node>, Place> build(const Worker& self) {
  Arena arena = make_arena("result");
  const Node* nodes = make_nodes(arena, kNodes + static_cast<std::uint64_t>(self.rank));
  const auto ref = value_of(publish("nodes", nodes));
  if (!arena.freeze()) throw std::runtime_error("not frozen");
  return {std::move(arena), ref, Place{reinterpret_cast<std::uintptr_t>(nodes), inode_at(nodes)}};
}

TEST_P(LaunchArenas, AResultIsUsedInPlaceAfterItsWorkerHasEnded) {
  auto workers = value_of(start<build>(with({.count = 3})));
  auto results = value_of(workers.wait());
  ASSERT_EQ(results.size(), 3U);
  for (auto& result : results) {
    ASSERT_TRUE(result.value) << result.error;
    EXPECT_EQ(kill(result.pid, 0), -1) << "it has not ended";
    const auto& [arena, ref, place] = *result.value;
    const Node* nodes = ref.try_get();
    ASSERT_NE(nodes, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(nodes), place.first);
    EXPECT_EQ(inode_at(nodes), place.second) << "not the worker's own pages";
    const std::uint64_t count = kNodes + static_cast<std::uint64_t>(result.rank);
    EXPECT_EQ(test::sum_of(nodes), count * (count + 1) / 2);
    EXPECT_EQ(value_of(arena.private_bytes()), 0U);
  }
  EXPECT_FALSE(find<Node>("nodes")) << "names stay in the workers";
  const Ref<Node> first = std::get<1>(*results[0].value);
  const ino_t first_inode = std::get<2>(*results[0].value).second;
  const Ref<Node> second = std::get<1>(*results[1].value);
  results[0].value.reset();
  for (const auto& mapping : test::all_mappings()) EXPECT_NE(mapping.inode, first_inode);
  EXPECT_THAT(first.get(), Fails(ErrorCode::released));
  EXPECT_NE(second.try_get(), nullptr);
}

Ref<Node> find_node(const std::string& name) { return value_of(find<Node>(name)); }

TEST_P(LaunchArenas, AReferenceToWhatTheParentHasComesBackEqual) {
  Arena arena = make_arena("result");
  const auto ref = value_of(publish("node", make_nodes(arena, 1)));
  ASSERT_TRUE(arena.freeze());
  const auto result = end_of(start<find_node>(one(), "node"));
  EXPECT_EQ(result.value, ref) << result.error;
}

std::pair<Arena, Ref<Node>> build_open() { return make_result(false); }

TEST_P(LaunchArenas, AnArenaThatIsNotFrozenIsAnError) {
  const auto result = end_of(start<build_open>(one()));
  EXPECT_FALSE(result.value);
  EXPECT_THAT(result.error, EndsWith("arena 'result' is not frozen; freeze() it first"));
}

Ref<Node> forget_the_arena() { return make_result().second; }

TEST_P(LaunchArenas, AReferenceWithoutItsArenaSaysWhatToReturn) {
  const auto result = end_of(start<forget_the_arena>(one()));
  EXPECT_FALSE(result.ok());
  EXPECT_THAT(result.error, StartsWith("the reference that it returned: "));
  EXPECT_THAT(result.error, HasSubstr("was published after this process was started"));
  EXPECT_THAT(result.error, EndsWith("as std::pair<Arena, Ref<T>>"));
  const auto nothing = end_of(start<[]() { return Ref<Node>(); }>(one()));
  EXPECT_TRUE(nothing.ok()) << nothing.error;
}

std::pair<Arena, Ref<Node>> build_for(int /*item*/) { return make_result(); }

TEST_P(LaunchArenas, MapCannotReturnThem) {
  const auto mapped = map<build_for>({.workers = one()}, std::vector<int>{1});
  EXPECT_THAT(mapped, Fails(ErrorCode::worker_failed, "item 0: its value has an arena"));
}

}  // namespace
}  // namespace cowshed
