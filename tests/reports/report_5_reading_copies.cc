// The report: after fork the memory of each child grows although it "only reads".

#include <array>
#include <cstdlib>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <memory>
#include <memory_resource>
#include <string>
#include <utility>
#include <vector>

#include <cowshed/base/size_literals.h>
#include <cowshed/share/arena.h>
#include <cowshed/share/immortal_ptr.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/workers.h>

#include "old_way.h"

namespace cowshed {
namespace {

using nlohmann::json;

// What a forked child of a Python program with 300,000 strings copies while it reads them.
std::uint64_t copied_by_python(const std::string& before_fork) {
  const auto old = test::run_python(
      R"(
import gc, os
def private_bytes():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_Dirty")) << 10
words = [str(i) * 3 for i in range(300_000)]
)" + before_fork +
          R"(
reader, writer = os.pipe()
if os.fork() == 0:
    before = private_bytes()
    for word in words:
        pass
    gc.collect()
    os.write(writer, str(private_bytes() - before).encode())
    os._exit(0)
os.wait()
print(os.read(reader, 1000).decode())
)",
      std::chrono::seconds(60));
  EXPECT_EQ(old.exit_status, 0) << old.err;
  return old.json().get<std::uint64_t>();
}

TEST(ReadingCopies, TheOldWay) {
  const std::uint64_t plain = copied_by_python("");
  const std::uint64_t frozen = copied_by_python("gc.disable(); gc.freeze()");
  test::tell("Python: a child that reads 300,000 strings copies " + std::to_string(plain >> 20U) +
             " MiB, " + std::to_string(frozen >> 20U) + " MiB after gc.freeze()");
  EXPECT_GT(plain, 10_MiB) << "the old failure is gone";
  EXPECT_GT(frozen, 10_MiB) << "gc.freeze() is enough now";
}

struct Word {
  explicit Word(std::pmr::string content) : text(std::move(content)) {}
  std::pmr::string text;
};
using Words = std::pmr::vector<ImmortalPtr<const Word>>;

TEST(ReadingCopies, WithCowshedNothingIsCopied) {
  auto arena = Arena::create({.name = "words", .capacity = 1_GiB}).value();
  auto* words = arena.make<Words>().value();
  std::vector<void*> late;
  for (int i = 0; i < 300'000; ++i) {
    auto* word = arena.make<Word>(std::pmr::string(std::string(30, 'w'), arena.resource())).value();
    words->emplace_back(word);
    if (i % 10 == 0) {
      late.push_back(arena.resource()->allocate(64));
    }
  }
  const auto ref = publish("words", static_cast<const Words*>(words)).value();
  ASSERT_TRUE(arena.freeze());
  const auto work = [&](const Words& shared) {
    std::size_t length = 0;
    std::vector<std::shared_ptr<const Word>> counted;
    for (const auto& word : shared) {
      length += word->text.size();
      counted.emplace_back(word);  // a reference taken
    }
    counted.clear();  // and dropped
    for (void* block : late) {
      arena.resource()->deallocate(block, 64);
    }
    if (length != std::size_t{30} * 300'000 || arena.stats().dropped_frees != late.size()) {
      return 1;
    }
    return arena.private_bytes().value() == 0 ? 0 : 2;
  };
  auto workers = start({.count = 2, .name = "reader"}, work, ref).value();
  const auto exits = workers.wait().value();
  for (const WorkerExit& exit : exits) {
    EXPECT_TRUE(exit.ok()) << exit.error;
  }
  test::tell(
      "cowshed: 2 children read 300,000 strings, took and dropped 300,000 references and "
      "freed 30,000 blocks: 0 bytes copied");
}

// What cowtop says of a command's children.
json children_of(std::vector<std::string> command) {
  command.insert(command.begin(), {COWTOP, "--json", "--"});
  const auto measured = test::run_old_way(command, std::chrono::seconds(60));
  EXPECT_EQ(measured.exit_status, 0) << measured.err;
  json children = json::array();
  const json report = measured.json();
  for (const json& process : report["processes"]) {
    if (process["role"] == "child") {
      children.push_back(process);
    }
  }
  return children;
}

// Arenas' names are sampled: on a busy machine cowtop may come too late, and then has another try.
constexpr std::array kLingerMs = {"300", "1500", "6000"};

TEST(ReadingCopies, CowtopShowsBoth) {
  // The leak checker of a sanitized subject is a process of its own.
  ::setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
  const json old = children_of({"/usr/bin/python3", "-c", R"(
import os, time
words = [str(i) * 3 for i in range(300_000)]
if os.fork() == 0:
    for word in words:
        pass
    time.sleep(0.3)  # to be seen without privileges, too
    os._exit(0)
os.wait()
)"});
  ASSERT_EQ(old.size(), 1U);
  const std::uint64_t copied = old[0]["copied_bytes"];
  EXPECT_GT(copied, 10_MiB);

  json children;
  std::uint64_t of_arena = 0;
  std::size_t seen = 0;
  for (const char* linger_ms : kLingerMs) {
    children = children_of({ARENA_SUBJECT, "strict", "5000", "0", linger_ms});
    ASSERT_EQ(children.size(), 2U);
    of_arena = seen = 0;
    for (const json& child : children) {
      for (const json& arena : child["arenas"]) {
        of_arena += arena["copied_pages"].get<std::uint64_t>();
        ++seen;
      }
    }
    if (seen == 2) break;
  }
  ASSERT_EQ(seen, 2U) << children;
  test::tell("cowtop: the Python child copied " + std::to_string(copied >> 20U) +
             " MiB, two children of a frozen arena " + std::to_string(of_arena) + " pages of it");
  EXPECT_EQ(of_arena, 0U);
}

}  // namespace
}  // namespace cowshed
