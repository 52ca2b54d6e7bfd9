#include <array>
#include <cstdlib>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include <cowshed/tests/support/subprocess.h>

namespace cowshed::cowtop {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

// Sampled: on a busy machine cowtop may come too late, and then has another try.
constexpr std::array kSenderLingerMs = {"300", "1500", "6000"};

class CowtopTransfers : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    // The leak checker of a sanitized subject is a process of its own.
    ::setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
  }

  // Nothing without the backend.
  static std::string report(const char* linger_ms, bool json) {
    std::vector<std::string> arguments = {COWTOP, "--backend", GetParam()};
    if (json) arguments.emplace_back("--json");
    arguments.insert(arguments.end(), {"--", TRANSFER_SUBJECT, linger_ms});
    const auto finished = test::run(arguments);
    if (finished.exit_status() == 125) return {};
    EXPECT_EQ(finished.exit_status(), 0) << finished.err;
    return finished.out;
  }
};

Json of(int messages) {
  return Json{{{"origin", "channel"},
               {"name", "numbers"},
               {"type", "int"},
               {"kind", "value"},
               {"messages", messages},
               {"objects", messages},
               {"bytes", 4 * messages}}};
}

TEST_P(CowtopTransfers, AreCountedForEachProcess) {
  Json processes;
  for (const char* linger_ms : kSenderLingerMs) {
    const std::string text = report(linger_ms, true);
    if (text.empty()) GTEST_SKIP() << "no " << GetParam() << " backend here";
    processes = Json::parse(text).at("processes");
    ASSERT_EQ(processes.size(), 2U);
    if (processes[0].value("transfers", Json()) == of(5) &&
        processes[1].value("transfers", Json()) == of(2)) {
      return;
    }
  }
  FAIL() << processes;
}

TEST_P(CowtopTransfers, AreLinesOfTheTable) {
  std::string text;
  for (const char* linger_ms : kSenderLingerMs) {
    text = report(linger_ms, false);
    if (text.empty()) GTEST_SKIP() << "no " << GetParam() << " backend here";
    if (text.find("'numbers': 2 messages") != std::string::npos &&
        text.find("'numbers': 5 messages") != std::string::npos) {
      break;
    }
  }
  EXPECT_THAT(text,
              HasSubstr("channel 'numbers': 5 messages of int, 0.0 MiB by value, sent by PID "));
  EXPECT_THAT(text,
              HasSubstr("channel 'numbers': 2 messages of int, 0.0 MiB by value, sent by PID "));
}

INSTANTIATE_TEST_SUITE_P(Backends, CowtopTransfers, ::testing::Values("tracepoint", "pagemap"),
                         [](const auto& backend) { return backend.param; });

}  // namespace
}  // namespace cowshed::cowtop
