#include <algorithm>
#include <charconv>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <unistd.h>
#include <vector>

#include <cowshed/tests/probes/setting.h>
#include <cowshed/tests/probes/subject.h>
#include <cowshed/tests/probes/taskstats.h>
#include <cowshed/tests/support/subprocess.h>

// What cowtop says of programs that were written elsewhere, against taskstats: what the kernel
// itself has counted of each process by its end, and of some between two requests.  All thresholds
// are its figures: of the same run, or of the same program that leaves one thing out.

namespace cowshed::test {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr const char* kPython = "/usr/bin/python3";
constexpr const char* kGunicorn = "/usr/bin/gunicorn";
constexpr const char* kUwsgi = "/usr/bin/uwsgi";
constexpr const char* kRuby = "/usr/bin/ruby";
constexpr const char* kPhp = "/usr/bin/php8.2";
constexpr const char* kPhpFpm = "/usr/sbin/php-fpm8.2";
constexpr const char* kPostgres = "/usr/lib/postgresql/15/bin/postgres";
// One copy in so many is sampled: then none is lost, however busy the machine is.
constexpr const char* kSeldom = "8";
constexpr const char* kEach = "1";

struct Measured {
  Json report;                                 // cowtop's
  std::map<pid_t, std::uint64_t> independent;  // copies, by taskstats, of each process
  std::string out;

  const Json& process(pid_t pid) const {
    static const Json none;
    if (!report.is_object()) return none;
    for (const Json& process : report.at("processes")) {
      if (process.at("pid") == pid) return process;
    }
    return none;
  }
  // The last that the command itself forked.
  pid_t child() const {
    pid_t pid = 0;
    if (!report.is_object()) return pid;
    for (const Json& process : report.at("processes")) {
      if (process.at("role") != "root") pid = process.at("pid");
    }
    return pid;
  }
  double copies(pid_t pid) const {
    const auto found = independent.find(pid);
    return found == independent.end() ? 0 : static_cast<double>(found->second);
  }
};

double share(const Json& process, const std::string& pattern) {
  for (const Json& each : process.at("patterns")) {
    if (each.at("pattern") == pattern) return each.at("share");
  }
  return 0;
}

// What chance may add to the share of a process's samples, or take from it.
double noise(const Json& process, double share) {
  constexpr double kDeviations = 5;
  const auto samples = process.at("samples").get<double>();
  const double p = std::clamp(share, 0.0, 1.0);
  return kDeviations * std::sqrt(std::max(p * (1 - p), 1 / samples) / samples);
}

void expect_share(const Json& process, const std::string& pattern, double least, double most) {
  const double found = share(process, pattern);
  EXPECT_GE(found, least - noise(process, least)) << pattern << ' ' << process.at("patterns");
  EXPECT_LE(found, most + noise(process, most)) << pattern << ' ' << process.at("patterns");
}

bool calls(const Json& site, const std::string& function) {
  const Json& stack = site.at("stack");
  return std::any_of(stack.begin(), stack.end(), [&](const Json& frame) {
    return frame.at("function").get<std::string>() == function;
  });
}

std::string innermost_module(const Json& site) { return site.at("stack").at(0).at("module"); }

// The code site has copied about what the kernel counted.
void expect_copies(const Json& site, const Json& process, double least, double most) {
  const double all = process.at("copied_pages");
  const double found = site.at("estimated_copies");
  EXPECT_GE(found, least - all * noise(process, least / all)) << site;
  EXPECT_LE(found, most + all * noise(process, most / all)) << site;
}

std::vector<std::string> mappings(const Json& process, std::size_t most) {
  std::vector<std::string> names;
  for (const Json& each : process.at("mappings")) {
    if (names.size() < most) names.push_back(each.at("name"));
  }
  return names;
}

std::string place(const Json& frame) {
  const std::string module = frame.at("module");
  std::string text = frame.at("function");
  if (text.empty()) text = "??";
  return text + " (" + module.substr(module.rfind('/') + 1) + ")";
}

// For who reads the test's output, and for the documentation.
void show(const std::string& name, const Measured& run, pid_t pid) {
  const Json& ours = run.process(pid);
  std::cout << name << ": copied " << ours.at("copied_anon_pages") << " + zero page "
            << ours.at("zero_page_writes") << " + files " << ours.at("copied_file_pages")
            << "; taskstats " << run.copies(pid) << '\n';
  for (std::size_t i = 0; i < std::min<std::size_t>(3, ours.at("sites").size()); ++i) {
    const Json& site = ours.at("sites").at(i);
    std::cout << "  site " << site.at("estimated_copies") << ' ';
    for (std::size_t k = 0; k < std::min<std::size_t>(4, site.at("stack").size()); ++k) {
      std::cout << (k == 0 ? "" : " < ") << place(site.at("stack").at(k));
    }
    std::cout << '\n';
  }
  for (std::size_t i = 0; i < std::min<std::size_t>(3, ours.at("mappings").size()); ++i) {
    const Json& mapping = ours.at("mappings").at(i);
    std::cout << "  mapping " << mapping.at("estimated_copies") << ' ' << mapping.at("name")
              << '\n';
  }
  for (const Json& pattern : ours.at("patterns")) {
    std::cout << "  pattern " << pattern.at("share") << ' ' << pattern.at("pattern") << ": "
              << pattern.at("evidence") << '\n';
  }
}

// Each process of the run, by cowtop and by the kernel.  taskstats counts anonymous copies, writes
// over the zero page, and those copies of files' pages that were read before.
void expect_agreement(const Measured& run) {
  // See ExitAccounts.
  constexpr std::int64_t kAfterItsAccount = 2;
  ASSERT_TRUE(run.report.is_object());
  for (const Json& process : run.report.at("processes")) {
    const auto found = run.independent.find(process.at("pid"));
    ASSERT_NE(found, run.independent.end()) << "taskstats says nothing of " << process.at("pid");
    const auto independent = static_cast<std::int64_t>(found->second);
    const auto least = process.at("copied_anon_pages").get<std::int64_t>() +
                       process.at("zero_page_writes").get<std::int64_t>();
    EXPECT_LE(least, independent + most_unseen(found->second) + kAfterItsAccount) << process;
    // The command is measured from a moment after its fork, which a sanitizer fills.
    if (process.at("role") == "root") continue;
    EXPECT_GE(least + process.at("copied_file_pages").get<std::int64_t>(), independent) << process;
  }
}

// The number after "ready " in what a program printed.
pid_t pid_of(const std::string& out) {
  constexpr std::string_view kReady = "ready ";
  const auto at = out.find(kReady);
  pid_t pid = 0;
  if (at != std::string::npos) {
    std::from_chars(out.data() + at + kReady.size(), out.data() + out.size(), pid);
  }
  return pid;
}

class RealPrograms : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = cannot_probe(); !reason.empty()) GTEST_SKIP() << reason;
    if (::geteuid() != 0) GTEST_SKIP() << "needs root, to ask taskstats";
    delay_accounting_.emplace("/proc/sys/kernel/task_delayacct", "1");
    if (!wpcopy_count(::getpid())) GTEST_SKIP() << "this kernel's taskstats does not count copies";
    folder_ = fs::temp_directory_path() / ("real_programs." + std::to_string(::getpid()));
    fs::create_directory(folder_);
    accounts_.emplace();
  }
  void TearDown() override {
    accounts_.reset();
    delay_accounting_.reset();
    if (!folder_.empty()) fs::remove_all(folder_);
  }

  std::string file(const std::string& name) const { return folder_ / name; }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(file(name)) << text;
    return file(name);
  }

  std::vector<std::string> cowtop(const std::vector<std::string>& command,
                                  const char* period) const {
    std::vector<std::string> arguments = {COWTOP, "--json", "--sites",           "-c",
                                          period, "-o",     file("report.json"), "--"};
    arguments.insert(arguments.end(), command.begin(), command.end());
    return arguments;
  }

  // Of a command that cowtop has been started with.
  Measured finish(Subprocess& command) {
    Measured run;
    const Finished finished = command.finish();
    EXPECT_EQ(finished.exit_status(), 0) << finished.err;
    run.out = finished.out;
    std::ifstream report(file("report.json"));
    run.report = Json::parse(report, nullptr, false);
    run.independent = accounts_->wpcopy_counts();
    expect_agreement(run);
    return run;
  }

  Measured measure(const std::vector<std::string>& command, const char* period = kSeldom) {
    Subprocess started(cowtop(command, period));
    return finish(started);
  }

  std::optional<Setting> delay_accounting_;
  std::optional<ExitAccounts> accounts_;
  fs::path folder_;
};

// A list of 300,000 strings, and a child.
std::vector<std::string> python(const std::string& before_fork, const std::string& in_child) {
  return {kPython, "-c",
          "import gc, os\n"
          "items = [str(i) + 'x' * 10 for i in range(300000)]\n" +
              before_fork +
              "\npid = os.fork()\n"
              "if pid == 0:\n" +
              in_child +
              "    os._exit(0)\n"
              "os.waitpid(pid, 0)\n"};
}

constexpr const char* kReadAll = "    for item in items: len(item)\n";

TEST_F(RealPrograms, PythonCopiesToCountReferencesAndThenToCollectGarbage) {
  if (!fs::exists(kPython)) GTEST_SKIP() << "no " << kPython;
  const std::string collect = "    gc.collect()\n";
  const Measured idle = measure(python("", ""));
  const Measured plain = measure(python("", kReadAll + collect));
  // Freezing takes from the collector what there is to mark, and nothing from the counts.
  const Measured frozen = measure(python("gc.freeze()", kReadAll + collect));
  const Json& ours = plain.process(plain.child());
  ASSERT_TRUE(ours.is_object() && frozen.child() != 0 && idle.child() != 0);
  show("python", plain, plain.child());
  show("python, gc.freeze()", frozen, frozen.child());

  const double for_nothing = idle.copies(idle.child());
  const double for_counts = frozen.copies(frozen.child());
  const double for_all = plain.copies(plain.child());
  const double unknown = for_nothing / for_all;
  EXPECT_GT(for_counts, 10 * for_nothing);
  EXPECT_GT(for_all, for_counts);
  expect_share(ours, "reference count", (for_counts - for_nothing) / for_all, for_counts / for_all);
  expect_share(ours, "garbage collector", (for_all - for_counts) / for_all - unknown,
               (for_all - for_counts) / for_all + unknown);
  EXPECT_GT(share(ours, "garbage collector"), 0);
  EXPECT_EQ(ours.at("patterns").at(0).at("pattern"), "reference count");
  EXPECT_THAT(ours.at("patterns").at(0).at("evidence"), HasSubstr("add qword ptr ["));
  EXPECT_EQ(ours.at("patterns").at(1).at("pattern"), "garbage collector");
  const Json& without = frozen.process(frozen.child());
  expect_share(without, "reference count", 1 - for_nothing / for_counts, 1);
  expect_share(without, "garbage collector", 0, for_nothing / for_counts);

  EXPECT_EQ(mappings(ours, 1), std::vector<std::string>{"anonymous"});
  for (const Json& process : {ours, without}) {
    const Json& site = process.at("sites").at(0);
    EXPECT_THAT(innermost_module(site), HasSubstr("python3"));
    EXPECT_TRUE(calls(site, "_PyEval_EvalFrameDefault")) << site;
    expect_copies(site, process, for_counts - for_nothing, for_counts);
  }
}

TEST_F(RealPrograms, APythonPoolCopiesToCountReferences) {
  if (!fs::exists(kPython)) GTEST_SKIP() << "no " << kPython;
  const auto pool = [](const std::string& what) -> std::vector<std::string> {
    return {kPython, "-c",
            "import multiprocessing\n"
            "items = [str(i) + 'x' * 10 for i in range(300000)]\n"
            "def read(which): return sum(len(item) for item in which)\n"
            "def work(_): return read(" +
                what +
                ")\n"
                "with multiprocessing.get_context('fork').Pool(1) as pool: pool.map(work, [0])\n"};
  };
  const Measured idle = measure(pool("[]"));
  const Measured busy = measure(pool("items"));
  const Json& ours = busy.process(busy.child());
  ASSERT_TRUE(ours.is_object() && idle.child() != 0);
  show("multiprocessing pool", busy, busy.child());
  const double for_all = busy.copies(busy.child());
  const double for_reading = for_all - idle.copies(idle.child());
  EXPECT_GT(for_reading, for_all / 2);
  expect_share(ours, "reference count", for_reading / for_all, 1);
  EXPECT_EQ(ours.at("patterns").at(0).at("pattern"), "reference count");
  EXPECT_EQ(mappings(ours, 1), std::vector<std::string>{"anonymous"});
  const Json& site = ours.at("sites").at(0);
  EXPECT_TRUE(calls(site, "_PyEval_EvalFrameDefault")) << site;
  expect_copies(site, ours, for_reading, for_all);
}

// A server of preloaded data, on a socket, and what one request for it copies.
class RealServers : public RealPrograms {
 protected:
  std::string socket() const { return file("socket"); }

  // What it answers; the path says what of.
  std::string get(const std::string& path) const {
    return run({kPython, "-c",
                "import socket, sys\n"
                "link = socket.socket(socket.AF_UNIX)\n"
                "link.connect(sys.argv[1])\n"
                "link.sendall(b'GET ' + sys.argv[2].encode() + b' HTTP/1.0\\r\\n\\r\\n')\n"
                "while text := link.recv(4096): sys.stdout.write(text.decode())\n",
                socket(), path})
        .out;
  }

  // A Python application that reads all of its list in answer to /all.
  void write_application() const {
    write("app.py",
          "import os\n"
          "items = [str(i) + 'x' * 10 for i in range(300000)]\n"
          "def application(environ, start_response):\n"
          "    which = items if environ['PATH_INFO'] == '/all' else []\n"
          "    total = sum(len(item) for item in which)\n"
          "    start_response('200 OK', [])\n"
          "    return [f'ready {os.getpid()}\\n'.encode()]\n");
  }

  // Asks a server of that application, which has said that it accepts, and ends it.
  void expect_counted_references(const std::string& name, Subprocess& server, int end) {
    const pid_t worker = pid_of(get("/none"));
    ASSERT_GT(worker, 0) << server.read_until("\n").err;
    const double for_nothing = copies_of_request("/none", worker);
    const double for_reading = copies_of_request("/all", worker);
    EXPECT_GT(for_reading, 10 * for_nothing);
    ::kill(server.pid(), end);
    const Measured run = finish(server);
    const Json& ours = run.process(worker);
    ASSERT_TRUE(ours.is_object());
    show(name, run, worker);
    std::cout << "  the request: " << for_reading << " by taskstats\n";
    // At its end the interpreter takes itself apart, and counts on.
    const double all = ours.at("copied_pages");
    expect_share(ours, "reference count", for_reading / all, 1);
    EXPECT_EQ(ours.at("patterns").at(0).at("pattern"), "reference count");
    EXPECT_EQ(mappings(ours, 1), std::vector<std::string>{"anonymous"});
    const Json& site = ours.at("sites").at(0);
    EXPECT_TRUE(calls(site, "_PyEval_EvalFrameDefault")) << site;
    expect_copies(site, ours, for_reading - for_nothing, for_reading);
  }

  double copies_of_request(const std::string& path, pid_t worker) const {
    const auto before = static_cast<double>(wpcopy_count(worker).value_or(0));
    EXPECT_EQ(pid_of(get(path)), worker);
    return static_cast<double>(wpcopy_count(worker).value_or(0)) - before;
  }
};

TEST_F(RealServers, AGunicornWorkerThatReadsPreloadedDataCountsReferences) {
  if (!fs::exists(kGunicorn)) GTEST_SKIP() << "no " << kGunicorn;
  write_application();
  Subprocess server(cowtop({kPython, kGunicorn, "--preload", "-w", "1", "-b", "unix:" + socket(),
                            "--chdir", folder_, "app"},
                           kSeldom));
  server.read_until("Booting worker");
  expect_counted_references("gunicorn --preload", server, SIGTERM);
}

TEST_F(RealServers, AUwsgiWorkerThatReadsPreloadedDataCountsReferences) {
  if (!fs::exists(kUwsgi)) GTEST_SKIP() << "no " << kUwsgi;
  write_application();
  Subprocess server(
      cowtop({kUwsgi, "--plugin", "python3", "--http-socket", socket(), "--master", "--processes",
              "1", "--die-on-term", "--chdir", folder_, "--module", "app"},
             kSeldom));
  server.read_until("spawned uWSGI worker 1");
  expect_counted_references("uWSGI", server, SIGTERM);
}

// Its collector marks in bits of its own and, in each object, its age; and it sweeps through all
// objects.  Debian's library has no symbols for that: then the pattern is unknown, and is not
// called by another's name.
TEST_F(RealPrograms, RubysCollectorIsNotTakenForReferenceCounts) {
  if (!fs::exists(kRuby)) GTEST_SKIP() << "no " << kRuby;
  const auto ruby = [](const std::string& in_child) -> std::vector<std::string> {
    return {kRuby, "-e",
            "items = Array.new(200000) { |i| i.to_s + 'x' * 30 }\n"
            "pid = fork do\n" +
                in_child +
                "  exit!(0)\n"
                "end\n"
                "Process.wait(pid)\n"};
  };
  const std::string read = "  items.each { |item| item.size }\n";
  const Measured reading = measure(ruby(read));
  const Measured collecting = measure(ruby(read + "  GC.start\n"));
  const Json& ours = collecting.process(collecting.child());
  ASSERT_TRUE(ours.is_object() && reading.child() != 0);
  show("ruby", collecting, collecting.child());
  const double for_all = collecting.copies(collecting.child());
  const double for_reading = reading.copies(reading.child());
  EXPECT_GT(for_all, 10 * for_reading);
  expect_share(ours, "reference count", 0, for_reading / for_all);
  for (const std::size_t i : {0U, 1U, 2U}) {
    const Json& stack = ours.at("sites").at(i).at("stack");
    EXPECT_TRUE(std::any_of(stack.begin(), stack.end(), [](const Json& frame) {
      return frame.at("module").get<std::string>().find("libruby") != std::string::npos;
    })) << stack;
  }
  EXPECT_THAT(mappings(ours, 2), ::testing::UnorderedElementsAre("anonymous", "[heap]"));
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
  const std::string data = file("data");
  fs::permissions(folder_, fs::perms::all);
  const fs::path initdb = fs::path(kPostgres).parent_path() / "initdb";
  const Finished made = run(as_postgres({initdb, "-N", "-A", "trust", "-D", data}));
  ASSERT_EQ(made.exit_status(), 0) << made.err;

  Subprocess server(cowtop(
      as_postgres({kPostgres, "-D", data, "-k", folder_, "-c", "listen_addresses="}), kEach));
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
  const auto before_its_end = static_cast<double>(wpcopy_count(backend).value_or(0));
  ::kill(backend, SIGTERM);
  client.finish();
  ::kill(server.pid(), SIGINT);
  const Measured measured = finish(server);
  const Json& ours = measured.process(backend);
  ASSERT_TRUE(ours.is_object());
  show("postgres backend", measured, backend);
  const double all = measured.copies(backend);
  std::cout << "  before its end: " << before_its_end << " by taskstats\n";
  EXPECT_LT(before_its_end, all / 2);
  double at_its_end = 0;
  for (const Json& site : ours.at("sites")) {
    if (calls(site, "proc_exit")) at_its_end += site.at("estimated_copies").get<double>();
  }
  EXPECT_LE(at_its_end, all - before_its_end);
  for (const std::size_t i : {0U, 1U, 2U}) {
    EXPECT_TRUE(calls(ours.at("sites").at(i), "proc_exit")) << ours.at("sites").at(i);
  }
  for (const std::size_t i : {0U, 1U}) {
    const Json& site = ours.at("sites").at(i);
    EXPECT_TRUE(calls(site, "OPENSSL_LH_free") || calls(site, "EVP_CIPHER_free")) << site;
  }
  EXPECT_EQ(mappings(ours, 1), std::vector<std::string>{"[heap]"});
  EXPECT_THAT(mappings(ours, 3),
              ::testing::UnorderedElementsAre("[heap]", "anonymous", HasSubstr("postgres .bss")));
  std::vector<std::string> named;
  for (const Json& pattern : ours.at("patterns")) {
    if (pattern.at("pattern") != "unknown") named.push_back(pattern.at("pattern"));
  }
  EXPECT_EQ(named.at(0), "allocator free list");
  EXPECT_EQ(named.at(1), "reference count");
  for (const Json& process : measured.report.at("processes")) {
    if (process.at("role") != "root") continue;
    EXPECT_EQ(process.at("patterns").at(0).at("pattern"), "relocation");
  }
}

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
TEST_F(RealPrograms, APhpFpmWorkerReadsOpcachesTableAndCopiesNothingOfIt) {
  if (!fs::exists(kPhpFpm)) GTEST_SKIP() << "no " << kPhpFpm;
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
  const Measured measured = finish(server);
  const Json& ours = measured.process(worker);
  ASSERT_TRUE(ours.is_object());
  show("PHP-FPM worker", measured, worker);
  std::cout << "  the second request: " << for_reading << " by taskstats\n";
  constexpr std::uint64_t kBytesOfAnItem = 16 + 24 + 8;  // a zval, and a string without its text
  EXPECT_LT(for_reading, kItems * kBytesOfAnItem / 4096 / 100);
  EXPECT_THAT(mappings(ours, 2),
              ::testing::UnorderedElementsAre(HasSubstr("php-fpm8.2 .bss"), "[heap]"));
  for (const std::string& mapping : mappings(ours, SIZE_MAX)) {
    EXPECT_THAT(mapping, ::testing::Not(HasSubstr("/dev/zero"))) << "opcache's";
  }
  EXPECT_TRUE(calls(ours.at("sites").at(0), "php_request_startup")) << ours.at("sites").at(0);
}

// Counts references, too: here in code that the program generated, and names in its perf map.
TEST_F(RealPrograms, PhpsGeneratedCodeIsNamedByItsPerfMap) {
  if (!fs::exists(kPhp)) GTEST_SKIP() << "no " << kPhp;
  const auto php = [&](const std::string& in_child) -> std::vector<std::string> {
    const std::string script =
        write("program.php",
              "<?php\n"
              "function total($items) {\n"
              "  $total = 0;\n"
              "  foreach ($items as $item) { $total += strlen($item); }\n"
              "  return $total;\n"
              "}\n"
              "$items = [];\n"
              "for ($i = 0; $i < 200000; $i++) $items[] = str_repeat('x', 20) . $i;\n"
              "$pid = pcntl_fork();\n"
              "if ($pid == 0) { " +
                  in_child +
                  " exit(0); }\n"
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
  const Measured idle = measure(php(""));
  const Measured busy = measure(php("total($items);"));
  for (const Measured& measured : {idle, busy}) {
    for (const Json& process : measured.report.at("processes")) {
      fs::remove("/tmp/perf-" + std::to_string(process.at("pid").get<pid_t>()) + ".map");
    }
  }
  const Json& ours = busy.process(busy.child());
  ASSERT_TRUE(ours.is_object() && idle.child() != 0);
  show("php", busy, busy.child());
  const double for_all = busy.copies(busy.child());
  const double for_reading = for_all - idle.copies(idle.child());
  EXPECT_GT(for_reading, for_all / 2);
  expect_share(ours, "reference count", for_reading / for_all, 1);
  const Json& site = ours.at("sites").at(0);
  EXPECT_TRUE(calls(site, "JIT$total")) << site;
  expect_copies(site, ours, for_reading, for_all);
}

}  // namespace
}  // namespace cowshed::test
