#include <algorithm>
#include <array>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <unistd.h>
#include <vector>

#include <cowshed/tests/probes/setting.h>
#include <cowshed/tests/probes/subject.h>
#include <cowshed/tests/support/subprocess.h>

// What cowtop says of programs that were written elsewhere, against taskstats' count of the same
// process at the moment when it has done its work and waits.

namespace cowshed::test {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr const char* kPython = "/usr/bin/python3";
constexpr const char* kGunicorn = "/usr/bin/gunicorn";
constexpr const char* kRuby = "/usr/bin/ruby";
constexpr const char* kPostgres = "/usr/lib/postgresql/15/bin/postgres";
// One copy in so many is sampled: then none is lost, however busy the machine is.
constexpr const char* kSeldom = "16";

// A process, by cowtop and by the kernel.
struct Comparison {
  Json ours;  // of cowtop's report
  std::optional<std::uint64_t> wpcopy;
};

class RealPrograms : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = cannot_probe(); !reason.empty()) GTEST_SKIP() << reason;
    if (::geteuid() != 0) GTEST_SKIP() << "needs root, to ask taskstats";
    delay_accounting_.emplace("/proc/sys/kernel/task_delayacct", "1");
    folder_ = fs::temp_directory_path() / ("real_programs." + std::to_string(::getpid()));
    fs::create_directory(folder_);
  }
  void TearDown() override {
    delay_accounting_.reset();
    if (!folder_.empty()) fs::remove_all(folder_);
  }

  static std::vector<std::string> cowtop(const std::string& report,
                                         const std::vector<std::string>& command,
                                         const char* period) {
    std::vector<std::string> arguments = {COWTOP, "--json", "--sites", "-c",
                                          period, "-o",     report,    "--"};
    arguments.insert(arguments.end(), command.begin(), command.end());
    return arguments;
  }

  // The process whose number the command prints after "ready " when it has done its work.
  static pid_t pid_of(const std::string& out) {
    constexpr std::string_view kReady = "ready ";
    const auto at = out.find(kReady);
    pid_t pid = 0;
    if (at != std::string::npos) {
      std::from_chars(out.data() + at + kReady.size(), out.data() + out.size(), pid);
    }
    return pid;
  }

  static Json process_of(const Json& report, pid_t pid) {
    for (const Json& process : report.at("processes")) {
      if (process.at("pid") == pid) return process;
    }
    return nullptr;
  }

  Json report() const {
    std::ifstream file(folder_ / "report.json");
    return Json::parse(file);
  }

  // Runs a command that prints "ready PID" of a child that has done its work, and waits until this
  // file is there.
  std::string done() const { return folder_ / "done"; }
  Comparison compare(const std::vector<std::string>& command, const char* period) {
    Subprocess run(cowtop(folder_ / "report.json", command, period));
    const pid_t pid = pid_of(run.read_until("ready ").out + run.read_until("\n").out);
    Comparison comparison;
    if (pid <= 0) {
      ADD_FAILURE() << run.finish().err;
      return comparison;
    }
    comparison.wpcopy = wpcopy_count(pid);
    std::ofstream(done()).close();
    const Finished finished = run.finish();
    EXPECT_EQ(finished.exit_status(), 0) << finished.err;
    fs::remove(done());
    comparison.ours = process_of(report(), pid);
    return comparison;
  }

  // taskstats counts anonymous copies, writes over the zero page, and those copies of files' pages
  // that were read before; and it may miss one in a thousand (see ground_truth_test.cc).  We see
  // the process's end besides.
  static void expect_agreement(const Comparison& comparison) {
    ASSERT_TRUE(comparison.wpcopy) << "this kernel's taskstats does not say";
    const auto at_least = comparison.ours.at("copied_anon_pages").get<std::int64_t>() +
                          comparison.ours.at("zero_page_writes").get<std::int64_t>();
    const auto at_most = at_least + comparison.ours.at("copied_file_pages").get<std::int64_t>();
    const auto independent = static_cast<std::int64_t>(*comparison.wpcopy);
    constexpr std::int64_t kAtItsEnd = 20;
    EXPECT_GE(independent + 8 + independent / 1000 + kAtItsEnd, at_least);
    EXPECT_LE(independent, at_most);
  }

  static double share(const Json& process, const std::string& pattern) {
    for (const Json& each : process.at("patterns")) {
      if (each.at("pattern") == pattern) return each.at("share");
    }
    return 0;
  }

  std::optional<Setting> delay_accounting_;
  fs::path folder_;
};

// A list of 300,000 strings that a child only reads.
std::vector<std::string> python(const std::string& before_fork, const std::string& done) {
  return {kPython, "-c",
          "import gc, os, sys, time\n"
          "items = [str(i) + 'x' * 10 for i in range(300000)]\n" +
              before_fork +
              "\npid = os.fork()\n"
              "if pid == 0:\n"
              "    total = 0\n"
              "    for item in items: total += len(item)\n"
              "    gc.collect()\n"
              "    print('ready', os.getpid(), flush=True)\n"
              "    while not os.path.exists(sys.argv[1]): time.sleep(0.01)\n"
              "    os._exit(0)\n"
              "os.waitpid(pid, 0)\n",
          done};
}

TEST_F(RealPrograms, PythonCopiesToCountReferencesAndThenToCollectGarbage) {
  if (!fs::exists(kPython)) GTEST_SKIP() << "no " << kPython;
  const Comparison plain = compare(python("", done()), kSeldom);
  ASSERT_TRUE(plain.ours.is_object());
  expect_agreement(plain);
  EXPECT_GT(plain.ours.at("copied_pages"), 4000);
  const Json& patterns = plain.ours.at("patterns");
  ASSERT_GE(patterns.size(), 2U) << patterns;
  EXPECT_EQ(patterns[0].at("pattern"), "reference count");
  EXPECT_GT(patterns[0].at("share"), 0.8);
  EXPECT_THAT(patterns[0].at("evidence"), ::testing::HasSubstr("add qword ptr ["));
  EXPECT_EQ(patterns[1].at("pattern"), "garbage collector");
  EXPECT_GT(patterns[1].at("share"), 0.01);
  EXPECT_THAT(plain.ours.at("mappings").at(0).at("name"), "anonymous");

  // Freezing takes from the collector what there is to mark, and nothing from the counts.
  const Comparison frozen = compare(python("gc.freeze()", done()), kSeldom);
  ASSERT_TRUE(frozen.ours.is_object());
  expect_agreement(frozen);
  EXPECT_EQ(frozen.ours.at("patterns").at(0).at("pattern"), "reference count");
  EXPECT_GT(share(frozen.ours, "reference count"), 0.9);
  EXPECT_LT(share(frozen.ours, "garbage collector"), 0.01);
  EXPECT_LT(frozen.ours.at("copied_pages"), plain.ours.at("copied_pages"));
}

TEST_F(RealPrograms, APythonPoolCopiesToCountReferences) {
  if (!fs::exists(kPython)) GTEST_SKIP() << "no " << kPython;
  const Comparison pool = compare({kPython, "-c",
                                   "import multiprocessing, os, sys, time\n"
                                   "items = [str(i) + 'x' * 10 for i in range(300000)]\n"
                                   "def read(_):\n"
                                   "    return os.getpid(), sum(len(item) for item in items)\n"
                                   "with multiprocessing.get_context('fork').Pool(1) as pool:\n"
                                   "    pid, total = pool.map(read, [0])[0]\n"
                                   "    print('ready', pid, flush=True)\n"
                                   "    while not os.path.exists(sys.argv[1]): time.sleep(0.01)\n",
                                   done()},
                                  kSeldom);
  ASSERT_TRUE(pool.ours.is_object());
  expect_agreement(pool);
  EXPECT_GT(pool.ours.at("copied_pages"), 4000);
  EXPECT_EQ(pool.ours.at("patterns").at(0).at("pattern"), "reference count");
  EXPECT_GT(share(pool.ours, "reference count"), 0.8);
}

// A list that the master has loaded, read by a worker in answer to a request.
TEST_F(RealPrograms, AGunicornWorkerThatReadsPreloadedDataCountsReferences) {
  if (!fs::exists(kGunicorn)) GTEST_SKIP() << "no " << kGunicorn;
  std::ofstream(folder_ / "app.py") << "import os\n"
                                       "items = [str(i) + 'x' * 10 for i in range(300000)]\n"
                                       "def app(environ, start_response):\n"
                                       "    total = sum(len(item) for item in items)\n"
                                       "    start_response('200 OK', [])\n"
                                       "    return [f'ready {os.getpid()}\\n'.encode()]\n";
  const std::string socket = folder_ / "socket";
  Subprocess server(cowtop(folder_ / "report.json",
                           {kPython, kGunicorn, "--preload", "-w", "1", "-b", "unix:" + socket,
                            "--chdir", folder_, "app:app"},
                           kSeldom));
  server.read_until("Booting worker");
  const Finished client = run({kPython, "-c",
                               "import socket, sys\n"
                               "link = socket.socket(socket.AF_UNIX)\n"
                               "link.connect(sys.argv[1])\n"
                               "link.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')\n"
                               "while text := link.recv(4096): sys.stdout.write(text.decode())\n",
                               socket});
  const pid_t worker = pid_of(client.out);
  ASSERT_GT(worker, 0) << client.out << client.err;
  Comparison comparison;
  comparison.wpcopy = wpcopy_count(worker);
  ::kill(server.pid(), SIGTERM);
  const Finished finished = server.finish();
  EXPECT_EQ(finished.exit_status(), 0) << finished.err;
  comparison.ours = process_of(report(), worker);
  ASSERT_TRUE(comparison.ours.is_object());
  ASSERT_TRUE(comparison.wpcopy);
  EXPECT_GT(*comparison.wpcopy, 4000U);
  // The interpreter takes itself apart when the worker ends, after the independent count.
  EXPECT_LE(*comparison.wpcopy, comparison.ours.at("copied_pages").get<std::uint64_t>() +
                                    comparison.ours.at("zero_page_writes").get<std::uint64_t>());
  EXPECT_EQ(comparison.ours.at("patterns").at(0).at("pattern"), "reference count");
  EXPECT_GT(share(comparison.ours, "reference count"), 0.5);
}

// Its collector marks in bits of its own and sweeps through all objects.  Debian's library has no
// symbols for that: then the pattern is unknown, and is not called by another's name.
TEST_F(RealPrograms, RubysCollectorIsNotTakenForReferenceCounts) {
  if (!fs::exists(kRuby)) GTEST_SKIP() << "no " << kRuby;
  const Comparison ruby = compare({kRuby, "-e",
                                   "items = Array.new(200000) { |i| i.to_s + 'x' * 30 }\n"
                                   "pid = fork do\n"
                                   "  total = 0\n"
                                   "  items.each { |item| total += item.size }\n"
                                   "  GC.start\n"
                                   "  puts \"ready #{Process.pid}\"\n"
                                   "  STDOUT.flush\n"
                                   "  sleep 0.01 until File.exist?(ARGV[0])\n"
                                   "  exit!(0)\n"
                                   "end\n"
                                   "Process.wait(pid)\n",
                                   done()},
                                  kSeldom);
  ASSERT_TRUE(ruby.ours.is_object());
  expect_agreement(ruby);
  EXPECT_GT(ruby.ours.at("copied_pages"), 500);
  EXPECT_LT(share(ruby.ours, "reference count"), 0.05);
  EXPECT_GT(share(ruby.ours, "unknown") + share(ruby.ours, "garbage collector"), 0.3);
}

std::vector<std::string> as_postgres(std::vector<std::string> command) {
  std::vector<std::string> whole = {"/usr/bin/setpriv", "--reuid=postgres", "--regid=postgres",
                                    "--clear-groups", "--"};
  whole.insert(whole.end(), command.begin(), command.end());
  return whole;
}

// A backend, from its fork to its end: at exit it releases OpenSSL's objects, which the postmaster
// had made.
TEST_F(RealPrograms, APostgresBackendCopiesMostWhenItExits) {
  if (!fs::exists(kPostgres)) GTEST_SKIP() << "no " << kPostgres;
  if (!fs::exists("/usr/bin/psql")) GTEST_SKIP() << "no psql";
  const std::string data = folder_ / "data";
  fs::permissions(folder_, fs::perms::all);
  const fs::path initdb = fs::path(kPostgres).parent_path() / "initdb";
  const Finished made = run(as_postgres({initdb, "-N", "-A", "trust", "-D", data}));
  ASSERT_EQ(made.exit_status(), 0) << made.err;

  Subprocess server(
      cowtop(folder_ / "report.json",
             as_postgres({kPostgres, "-D", data, "-k", folder_, "-c", "listen_addresses="}), "1"));
  server.read_until("ready to accept connections");
  Subprocess client(
      as_postgres({"/usr/bin/psql", "-h", folder_, "-d", "postgres", "-qtA", "-c",
                   "create temp table t as select generate_series(1, 20000)::text s", "-c",
                   "select sum(length(s)) from t", "-c", "select 'ready ' || pg_backend_pid()",
                   "-c", "select pg_sleep(120)"}));
  std::string said = client.read_until("ready ").out;
  said += client.read_until("\n").out;
  const pid_t backend = pid_of(said);
  ASSERT_GT(backend, 0) << said;
  Comparison comparison;
  comparison.wpcopy = wpcopy_count(backend);
  ::kill(backend, SIGTERM);
  client.finish();
  ::kill(server.pid(), SIGINT);
  const Finished finished = server.finish();
  EXPECT_EQ(finished.exit_status(), 0) << finished.err;

  comparison.ours = process_of(report(), backend);
  ASSERT_TRUE(comparison.ours.is_object());
  ASSERT_TRUE(comparison.wpcopy);
  // What it copies at its end comes after the independent count.
  const auto copied = comparison.ours.at("copied_pages").get<std::uint64_t>() +
                      comparison.ours.at("zero_page_writes").get<std::uint64_t>();
  EXPECT_LE(*comparison.wpcopy, copied);
  EXPECT_GT(copied, 100U);
  EXPECT_GT(share(comparison.ours, "allocator free list"), 0.1);
  const Json whole = report();
  for (const Json& process : whole.at("processes")) {
    if (process.at("role") != "root") continue;
    EXPECT_GT(share(process, "relocation"), 0.5);
  }
}

}  // namespace
}  // namespace cowshed::test
