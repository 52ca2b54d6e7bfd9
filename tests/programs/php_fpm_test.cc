#include <csignal>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <iostream>

#include <cowshed/tests/programs/real_program.h>

namespace cowshed::test {
namespace {

using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

constexpr const char* kPhpFpm = "/usr/sbin/php-fpm8.2";

class PhpFpm : public RealProgram {
 protected:
  PhpFpm() : RealProgram({kPhpFpm, kPython}) {}
};

// What a script of one worker answers to FastCGI.
std::string fastcgi(const std::string& socket, const std::string& script) {
  return run({kPython, "-c",
              "import socket, struct, sys\n"
              "def record(kind, body):\n"
              "    return struct.pack('>BBHHBB', 1, kind, 1, len(body), 0, 0) + body\n"
              "def pair(name, value):\n"
              "    return bytes([len(name), len(value)]) + name.encode() + value.encode()\n"
              "link = socket.socket(socket.AF_UNIX)\n"
              "link.connect(sys.argv[1])\n"
              "said = pair('SCRIPT_FILENAME', sys.argv[2]) + pair('REQUEST_METHOD', 'GET')\n"
              "link.sendall(record(1, struct.pack('>HB5x', 1, 0)) + record(4, said) + record(4, "
              "b'')\n"
              "             + record(5, b''))\n"
              "while text := link.recv(65536): sys.stdout.write(text.decode(errors='replace'))\n",
              socket, script})
      .out;
}

// A worker that reads a table of 100,000 strings which opcache keeps in shared memory, of constants
// that nobody counts references to: the pages that a request for it copies are as many as one for
// nothing does.
TEST_F(PhpFpm, AWorkerReadsOpcachesTableAndCopiesNothingOfIt) {
  std::string table = "<?php return [";
  constexpr std::uint64_t kItems = 100'000;
  for (std::uint64_t i = 0; i < kItems; ++i) table += "'item number " + std::to_string(i) + "',";
  write("table.php", table + "];\n");
  const std::string script =
      write("read.php",
            "<?php\n"
            "$total = 0;\n"
            "foreach (require 'table.php' as $item) $total += strlen($item);\n"
            "if (!opcache_is_script_cached(__DIR__ . '/table.php')) die('not cached');\n"
            "echo \"ready \", getmypid(), \"\\n\";\n");
  const std::string socket = file("socket");
  const std::string configuration = write("fpm.conf",
                                          "[global]\nerror_log = /dev/stderr\n"
                                          "daemonize = no\n[www]\npm = static\n"
                                          "pm.max_children = 1\nlisten = " +
                                              socket + "\n");
  Subprocess server(cowtop({kPhpFpm, "-n", "-d", "zend_extension=opcache", "-d",
                            "opcache.file_update_protection=0", "-y", configuration, "-R"},
                           kEach));
  server.read_until("ready to handle connections");
  const pid_t worker = pid_of(fastcgi(socket, script));  // compiles it
  ASSERT_GT(worker, 0);
  const auto before = wpcopy_count(worker).value_or(0);
  ASSERT_EQ(pid_of(fastcgi(socket, script)), worker);
  const auto for_reading = wpcopy_count(worker).value_or(0) - before;
  ::kill(server.pid(), SIGTERM);
  const MeasuredRun measured = finish(server);
  const Json& ours = measured.process(worker);
  ASSERT_TRUE(ours.is_object());
  show("PHP-FPM worker", measured, worker);
  std::cout << "  the second request: " << for_reading << " by taskstats\n";
  constexpr std::uint64_t kBytesOfAnItem = 16 + 24 + 8;  // a zval, and a string without its text
  EXPECT_LT(for_reading, kItems * kBytesOfAnItem / 4096 / 100);
  EXPECT_THAT(mappings(ours, 2), UnorderedElementsAre(EndsWith("/php-fpm8.2 .bss"), "[heap]"));
  EXPECT_THAT(mappings(ours, 3), Contains(AnyOf("[stack]", "anonymous")));
  EXPECT_THAT(mappings(ours), Each(Not(HasSubstr("/dev/zero")))) << "opcache's";
  // Clears its variables for each request.  All others are of a few copies.
  EXPECT_THAT(places(ours, 1), ElementsAre("zend_activate (php-fpm8.2)"));
  EXPECT_TRUE(calls(ours.at("sites").at(0), "php_request_startup")) << ours.at("sites").at(0);
  EXPECT_EQ(patterns(ours).at(0), "unknown");
  EXPECT_THAT(patterns(ours), Contains("bulk fill"));
}

}  // namespace
}  // namespace cowshed::test
