#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cowshed/tests/programs/real_program.h>

namespace cowshed::test {
namespace {

using ::testing::ElementsAre;
using ::testing::StartsWith;

constexpr const char* kPhp = "/usr/bin/php8.2";

class PhpJit : public RealProgram {
 protected:
  PhpJit() : RealProgram({kPhp}) {}
};

// Counts references, too: here in code that the program generated, and names in its perf map.
TEST_F(PhpJit, GeneratedCodeIsNamedByItsPerfMap) {
  const auto php = [&](const std::string& in_child) -> std::vector<std::string> {
    const std::string script = write(
        "program.php",
        "<?php\n"
        "function total($items) {\n"
        "  $total = 0;\n"
        "  foreach ($items as $item) { $total += strlen($item); }\n"
        "  return $total;\n"
        "}\n"
        "$items = [];\n"
        "for ($i = 0; $i < 200000; $i++) $items[] = str_repeat('x', 20) . $i;\n"
        "$pid = pcntl_fork();\n"
        // It lives until cowtop has looked at its mappings, which takes long under a sanitizer.
        "if ($pid == 0) { " +
            in_child +
            " usleep(200000); exit(0); }\n"
            "pcntl_wait($status);\n");
    return {kPhp,  "-n",
            "-d",  "zend_extension=opcache",
            "-d",  "opcache.enable_cli=1",
            "-d",  "opcache.file_update_protection=0",
            "-d",  "opcache.jit=1205",
            "-d",  "opcache.jit_buffer_size=16M",
            "-d",  "opcache.jit_debug=16",
            script};
  };
  const MeasuredRun idle = measure(php(""));
  const MeasuredRun busy = measure(php("total($items);"));
  for (const MeasuredRun& measured : {idle, busy}) {
    for (const Json& process : measured.report.at("processes")) {
      std::filesystem::remove("/tmp/perf-" + std::to_string(process.at("pid").get<pid_t>()) +
                              ".map");
    }
  }
  const Json& ours = busy.process(busy.child());
  ASSERT_TRUE(ours.is_object() && idle.child() != 0);
  show("php", busy, busy.child());
  const double for_all = busy.copies(busy.child());
  const double for_reading = for_all - idle.copies(idle.child());
  EXPECT_GT(for_reading, for_all / 2);
  expect_share(ours, "reference count", for_reading / for_all, 1);
  EXPECT_EQ(patterns(ours).at(0), "reference count");
  // All others are of its exit, and of a few copies.
  EXPECT_THAT(places(ours, 1), ElementsAre(StartsWith("JIT$total (perf-")));
  EXPECT_THAT(mappings(ours, 2), ElementsAre("anonymous", "[heap]"));
  expect_copies(ours.at("sites").at(0), ours, for_reading, for_all);
}

}  // namespace
}  // namespace cowshed::test
