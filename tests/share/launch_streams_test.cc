// Standard streams of workers, and what becomes of those that are closed.

#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <iostream>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

#include <cowshed/share/arena.h>
#include <cowshed/share/channel.h>
#include <cowshed/share/registry.h>

#include "every_method.h"
#include "process.h"

namespace cowshed {
namespace {

using testing::HasSubstr;
using LaunchStreams = test::EveryMethod;
using test::end_of;
using test::value_of;

COWSHED_EVERY_METHOD(LaunchStreams);

void copy_line() {
  std::string line;
  std::getline(std::cin, line);
  std::cout << "out " << line << '\n';
  std::fputs("err\n", stderr);
}

std::string text_of(const std::filesystem::path& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST_P(LaunchStreams, StandardStreamsGoToFilesAndDescriptors) {
  const auto folder =
      std::filesystem::temp_directory_path() /
      ("launch_streams_test." + std::to_string(getpid()) + test::name_of_method({GetParam(), 0}));
  std::filesystem::create_directory(folder);
  std::ofstream(folder / "in") << "hello\n";
  const int errors = memfd_create("errors", MFD_CLOEXEC);
  const auto exit = end_of(
      start<copy_line>(with({.input = folder / "in", .output = folder / "out", .error = errors})));
  EXPECT_TRUE(exit.ok()) << exit.error;
  EXPECT_EQ(text_of(folder / "out"), "out hello\n");
  EXPECT_EQ(text_of("/proc/self/fd/" + std::to_string(errors)), "err\n");
  close(errors);
  const auto missing = start<copy_line>(with({.input = folder / "missing"}));
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().message, HasSubstr("missing: No such file or directory"));
  std::filesystem::remove_all(folder);
}

TEST_P(LaunchStreams, AllWorkersAppendToAFile) {
  const auto file = std::filesystem::temp_directory_path() /
                    ("launch_streams_test.out." + std::to_string(getpid()));
  std::ofstream(file) << "old\n";
  auto workers =
      value_of(start<[](const Worker&) { std::puts("line"); }>(with({.count = 3, .output = file})));
  ASSERT_TRUE(workers.wait());
  EXPECT_EQ(text_of(file), "line\nline\nline\n");
  std::filesystem::remove(file);
}

std::string read_line() {
  std::string line;
  std::getline(std::cin, line);
  return line;
}

TEST_P(LaunchStreams, EachWorkerReadsAllOfAFile) {
  const auto file = std::filesystem::temp_directory_path() /
                    ("launch_streams_test.in." + std::to_string(getpid()));
  std::ofstream(file) << "hello\n";
  auto workers = value_of(start<read_line>(with({.count = 3, .input = file})));
  std::filesystem::remove(file);
  const auto results = value_of(workers.wait());
  for (const auto& result : results) {
    EXPECT_EQ(result.value, "hello") << result.error;
  }
}

struct Index {
  int answer = 42;
};

long use_while_printing(const Index& index, Channel<int>& numbers) {
  for (int stream = 0; stream < 3; ++stream) {
    if (write(stream, "garbage", 7) != -1 || errno != EBADF) {
      return -1;
    }
  }
  return long{numbers.receive().value()} * index.answer;
}

// In a process of its own, which has closed them.
TEST_P(LaunchStreams, NothingOfOursTakesTheNumberOfAClosedOne) {
  const Start method = GetParam();
  test::Process process([method] {
    for (int stream = 0; stream < 3; ++stream) {
      close(stream);
    }
    Arena arena = value_of(Arena::create({.name = "index", .capacity = 64_MiB}));
    const auto ref = value_of(publish("index", value_of(arena.make<Index>())));
    auto numbers = value_of(Channel<int>::create({.name = "numbers"}));
    if (!arena.freeze() || !numbers.try_send(1) || !numbers.try_send(2)) {
      return 1;
    }
    auto workers =
        value_of(start<use_while_printing>({.method = method, .count = 2}, ref, numbers));
    long sum = 0;
    for (const auto& result : value_of(workers.wait())) {
      sum += result.value.value_or(-1000);
    }
    const bool sent = numbers.try_send(3).has_value();
    return sent && sum == 126 && use_while_printing(*ref, numbers) == 126 ? 0 : 2;
  });
  EXPECT_EQ(process.wait(), 0);
}

}  // namespace
}  // namespace cowshed
