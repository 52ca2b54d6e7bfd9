#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include <cowshed/tests/probes/subject.h>
#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/setting.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/taskstats.h>
#include <cowshed/tests/support/test.h>

// What cowtop says of programs that were written elsewhere, against taskstats.  All limits are
// figures of taskstats: of the same run, or of the same program that leaves one thing out.
namespace cowshed::test {
namespace {

using ::testing::AnyOf;

namespace fs = std::filesystem;

using Command = std::vector<std::string>;

// What cowtop says of a program, and the questions that the tests have about that.
using Json = nlohmann::json;

struct MeasuredRun {
  Json report;                                 // cowtop's
  std::map<pid_t, std::uint64_t> independent;  // copies, by taskstats, of each process

  const Json& process(pid_t pid) const {
    for (const Json& process : report.at("processes"))
      if (process.at("pid") == pid) return process;
    throw std::runtime_error("cowtop has not seen PID " + std::to_string(pid));
  }
  // The last that the command itself forked.
  pid_t child() const {
    pid_t pid = 0;
    for (const Json& process : report.at("processes"))
      if (process.at("role") != "root") pid = process.at("pid");
    return pid;
  }
  double copies(pid_t pid) const { return static_cast<double>(independent.at(pid)); }
};

// What chance may add to the share of a process's samples, or take from it.
double noise(const Json& process, double share) {
  constexpr double kDeviations = 5;
  const auto samples = process.at("samples").get<double>();
  const double p = std::clamp(share, 0.0, 1.0);
  return kDeviations * std::sqrt(std::max(p * (1 - p), 1 / samples) / samples);
}

std::string place(const Json& frame) {
  const std::string module = frame.at("module");
  std::string text = frame.at("function");
  if (text.empty()) text = "??";
  return text + " (" + module.substr(module.rfind('/') + 1) + ")";
}

std::vector<std::string> names(const Json& items, const char* field, std::size_t most) {
  std::vector<std::string> names;
  for (const Json& each : items)
    if (names.size() < most) names.push_back(each.at(field));
  return names;
}

// What an assertion that failed has left running has come to be this process's child.
void end_orphans() {
  for (bool any = true; any;) {
    any = false;
    for (const auto& task : fs::directory_iterator("/proc/self/task")) {
      std::ifstream children(task.path() / "children");
      for (pid_t child = 0; children >> child;) {
        any = true;
        ::kill(child, SIGKILL);
        ::waitpid(child, nullptr, 0);
      }
    }
  }
}

// taskstats counts anonymous copies, writes over the zero page, and those copies of files' pages
// that were read before.
void expect_agreement(const MeasuredRun& run) {
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

double share(const Json& process, const std::string& pattern) {
  for (const Json& each : process.at("patterns"))
    if (each.at("pattern") == pattern) return each.at("share");
  return 0;
}

// But for what chance does to the share of a process's samples.
void expect_share(const Json& process, const std::string& pattern, double least, double most) {
  const double found = share(process, pattern);
  EXPECT_GE(found, least - noise(process, least)) << pattern << ' ' << process.at("patterns");
  EXPECT_LE(found, most + noise(process, most)) << pattern << ' ' << process.at("patterns");
}

// The code site has copied about what the kernel counted.
void expect_copies(const Json& site, const Json& process, double least, double most) {
  const double all = process.at("all_copied_pages");
  const double found = site.at("estimated_copies");
  EXPECT_GE(found, least - all * noise(process, least / all)) << site;
  EXPECT_LE(found, most + all * noise(process, most / all)) << site;
}

// Whether the function is on the site's stack.
bool calls(const Json& site, const std::string& function) {
  const Json& stack = site.at("stack");
  return std::any_of(stack.begin(), stack.end(), [&](const Json& frame) {
    return frame.at("function").get<std::string>() == function;
  });
}

// Those with most copies, first.  Of a code site "function (module) < caller (module) < ...", from
// its place on or, where that has no name, from the nearest caller that has one; "?? (module)"
// where none has.  With debug symbols more functions have names.
std::vector<std::string> places(const Json& process, std::size_t most) {
  std::vector<std::string> places;
  for (const Json& site : process.at("sites")) {
    if (places.size() == most) break;
    const Json& stack = site.at("stack");
    const auto inner = static_cast<std::ptrdiff_t>(site.at("frames").size()) - 1;
    const auto named = std::find_if(stack.begin() + inner, stack.end(), [](const Json& frame) {
      return !frame.at("function").get<std::string>().empty();
    });
    std::string names = place(named == stack.end() ? *(stack.begin() + inner) : *named);
    for (auto frame = named; frame != stack.end(); ++frame) names += " < " + place(*frame);
    places.push_back(std::move(names));
  }
  return places;
}

// Where a site of Python is, as the report shows it.
std::string line_of(const Json& site) {
  const Json& frame = site.at("frames").back();
  const std::string file = frame.at("file").get<std::string>();
  return frame.at("function").get<std::string>() + " (" + file.substr(file.rfind('/') + 1) + ":" +
         std::to_string(frame.at("line").get<int>()) + ")";
}

std::vector<std::string> mappings(const Json& process, std::size_t most = SIZE_MAX) {
  return names(process.at("mappings"), "name", most);
}

std::vector<std::string> patterns(const Json& process) {
  return names(process.at("patterns"), "pattern", SIZE_MAX);
}

// The number after "ready " in what a program printed; 0: there is none.
pid_t pid_of(const std::string& out) {
  constexpr std::string_view kReady = "ready ";
  const auto at = out.find(kReady);
  pid_t pid = 0;
  if (at != std::string::npos)
    std::from_chars(out.data() + at + kReady.size(), out.data() + out.size(), pid);
  return pid;
}

// Tests of one program, which are skipped where it is not installed.
class RealProgram : public ::testing::Test {
 protected:
  // One copy in so many is sampled.  Seldom: then none is lost, however busy the machine is.
  static constexpr const char* kSeldom = "8";
  static constexpr const char* kEach = "1";

  explicit RealProgram(std::vector<std::string> needs) : needs_(std::move(needs)) {}
  void SetUp() override {
    for (const std::string& program : needs_)
      if (!fs::exists(program)) GTEST_SKIP() << "no " << program;
    if (const std::string reason = cannot_probe(); !reason.empty()) GTEST_SKIP() << reason;
    if (::geteuid() != 0) GTEST_SKIP() << "needs root, to ask taskstats";
    delay_accounting_.emplace("/proc/sys/kernel/task_delayacct", "1");
    if (!wpcopy_count(::getpid())) GTEST_SKIP() << "this kernel's taskstats does not count copies";
    accounts_.emplace();
    ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  }
  void TearDown() override {
    end_orphans();
    accounts_.reset();
    delay_accounting_.reset();
  }

  // Of this test's folder.
  const std::filesystem::path& folder() const { return folder_.path(); }
  std::string file(const std::string& name) const { return folder_ / name; }
  std::string write(const std::string& name, const std::string& text) const {
    return folder_.write(name, text);
  }

  // The arguments that start a command measured; finish() waits for its end.
  std::vector<std::string> cowtop(const std::vector<std::string>& command,
                                  const char* period) const {
    std::vector<std::string> arguments = {COWTOP, "--json", "-c", period, "-o", file("report.json"),
                                          "--"};
    arguments.insert(arguments.end(), command.begin(), command.end());
    return arguments;
  }
  MeasuredRun finish(Subprocess& command) {
    MeasuredRun run;
    const Finished finished = command.finish();
    EXPECT_EQ(finished.exit_status(), 0) << finished.err;
    std::ifstream report(file("report.json"));
    run.report = Json::parse(report, nullptr, false);
    run.independent = accounts_->wpcopy_counts();
    expect_agreement(run);
    return run;
  }
  // From its start to its end.
  MeasuredRun measure(const std::vector<std::string>& command) {
    Subprocess started(cowtop(command, kSeldom));
    return finish(started);
  }

 private:
  std::vector<std::string> needs_;
  std::optional<Setting> delay_accounting_;
  std::optional<ExitAccounts> accounts_;
  Folder folder_;
};

constexpr const char* kPython = "/usr/bin/python3";
constexpr const char* kCurl = "/usr/bin/curl";
constexpr const char* kGunicorn = "/usr/bin/gunicorn";
constexpr const char* kRuby = "/usr/bin/ruby";
constexpr const char* kPhp = "/usr/bin/php8.2";
constexpr const char* kPhpFpm = "/usr/sbin/php-fpm8.2";
constexpr const char* kPostgres = "/usr/lib/postgresql/15/bin/postgres";
constexpr const char* kInitdb = "/usr/lib/postgresql/15/bin/initdb";
constexpr const char* kPsql = "/usr/bin/psql";

template <const char* const&... needed>
class Programs : public RealProgram {
 protected:
  Programs() : RealProgram({needed...}) {}
};

using Gunicorn = Programs<kPython, kGunicorn, kCurl>;

// Its one worker has a list of 300,000 strings: GET /none reads nothing, GET /all the whole list.
TEST_F(Gunicorn, AWorkerThatReadsItsParentsListCountsReferences) {
  write("app.py", R"(
import os
items = [str(i) + 'x' * 10 for i in range(300000)]
def application(environ, start_response):
    which = items if environ['PATH_INFO'] == '/all' else []
    total = sum(len(item) for item in which)
    start_response('200 OK', [])
    return [f'ready {os.getpid()}\n'.encode()]
)");
  Subprocess measured(cowtop({kPython, kGunicorn, "--preload", "-w", "1", "-b",
                              "unix:" + file("socket"), "--chdir", folder(), "app"},
                             kSeldom));
  measured.read_until("Booting worker");
  const auto get = [&](const std::string& path) {
    return pid_of(run({kCurl, "-s", "--unix-socket", file("socket"), "http://app" + path}).out);
  };
  const pid_t worker = get("/none");
  ASSERT_GT(worker, 0);
  const auto copies_of = [&](const std::string& path) {
    const auto before = static_cast<double>(wpcopy_count(worker).value_or(0));
    EXPECT_EQ(get(path), worker);
    return static_cast<double>(wpcopy_count(worker).value_or(0)) - before;
  };
  const double for_nothing = copies_of("/none");
  const double for_reading = copies_of("/all");
  EXPECT_GT(for_reading, 10 * for_nothing);
  ::kill(measured.pid(), SIGTERM);
  const MeasuredRun measurement = finish(measured);
  const Json& ours = measurement.process(worker);
  // At its end the interpreter takes itself apart, and counts on.
  const double all = ours.at("all_copied_pages");
  expect_share(ours, "reference count", (for_reading - for_nothing) / all, 1);
  EXPECT_EQ(patterns(ours).at(0), "reference count");
  EXPECT_EQ(patterns(ours).at(1), "program exit");
  EXPECT_EQ(line_of(ours.at("sites").at(0)), "application.<locals>.<genexpr> (app.py:6)");
  EXPECT_EQ(mappings(ours, 1), std::vector<std::string>{"anonymous"});
  EXPECT_THAT(mappings(ours, 3),
              UnorderedElementsAre("anonymous", "[heap]", EndsWith("/python3.11")));
  expect_copies(ours.at("sites").at(0), ours, for_reading - for_nothing, for_reading);
}

using PythonFork = Programs<kPython>;

// A list of 300,000 strings, and a child.  A sanitized cowtop needs the time to read the mappings.
Command python(const std::string& before_fork, const std::string& in_child) {
  return {kPython, "-c",
          "import gc, os, time\n"
          "items = [str(i) + 'x' * 10 for i in range(300000)]\n" +
              before_fork + "\ntime.sleep(0.5); pid = os.fork()\nif pid == 0:\n" + in_child +
              "    os._exit(0)\nos.waitpid(pid, 0)\n"};
}

TEST_F(PythonFork, CopiesToCountReferencesAndThenToCollectGarbage) {
  const std::string read_all = "    for item in items: len(item)\n";
  const std::string collect = "    gc.collect()\n";
  // All but the counts: what else a child does, the collector's own lists among it.
  const MeasuredRun idle = measure(python("gc.freeze()", collect));
  const MeasuredRun plain = measure(python("", read_all + collect));
  // Freezing takes from the collector what there is to mark, and nothing from the counts.
  const MeasuredRun frozen = measure(python("gc.freeze()", read_all + collect));
  const Json& ours = plain.process(plain.child());

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
  EXPECT_THAT(ours.at("patterns").at(0).at("evidence"), HasSubstr("add qword ptr ["));
  EXPECT_EQ(patterns(ours).at(0), "reference count");
  EXPECT_EQ(patterns(ours).at(1), "garbage collector");
  const Json& without = frozen.process(frozen.child());
  expect_share(without, "reference count", 1 - for_nothing / for_counts, 1);
  expect_share(without, "garbage collector", 0, for_nothing / for_counts);

  EXPECT_EQ(mappings(ours, 1), std::vector<std::string>{"anonymous"});
  EXPECT_EQ(line_of(ours.at("sites").at(0)), "<module> (<string>:6)");
  EXPECT_EQ(ours.at("types").at(0).at("name"), "str");
  for (const Json& process : {ours, without})
    expect_copies(process.at("sites").at(0), process, for_counts - for_nothing, for_counts);
}

using Ruby = Programs<kRuby>;

// Its collector marks in bits of its own and, in each object, its age; and it sweeps through all
// objects.  Debian's library has no symbols for that: the objects show it.
TEST_F(Ruby, ItsCollectorIsNotTakenForReferenceCounts) {
  const auto ruby = [](const std::string& in_child) -> Command {
    return {kRuby, "-e",
            "items = Array.new(200000) { |i| i.to_s + 'x' * 30 }\n"
            "pid = fork do\n  items.each { |item| item.size }\n" +
                in_child + "  exit!(0)\nend\nProcess.wait(pid)\n"};
  };
  const MeasuredRun reading = measure(ruby(""));
  const MeasuredRun collecting = measure(ruby("  GC.start\n"));
  const Json& ours = collecting.process(collecting.child());
  const double for_all = collecting.copies(collecting.child());
  const double for_reading = reading.copies(reading.child());
  EXPECT_GT(for_all, 10 * for_reading);
  expect_share(ours, "reference count", 0, for_reading / for_all);
  EXPECT_EQ(patterns(ours).at(0), "garbage collector");
  EXPECT_LT(share(ours, "unknown"), 0.2);
  // Two that have no name, called from the interpreter's loop; and what frees a swept object's
  // text.
  EXPECT_THAT(places(ours, 3), UnorderedElementsAre(StartsWith("rb_vm_exec (libruby"),
                                                    StartsWith("ruby_sized_xfree (libruby"),
                                                    StartsWith("rb_vm_exec (libruby")));
  EXPECT_THAT(mappings(ours, 2), UnorderedElementsAre("anonymous", "[heap]"));
}

using PhpJit = Programs<kPhp>;

// Counts references, too: here in code that the program generated, and names in its perf map.
TEST_F(PhpJit, GeneratedCodeIsNamedByItsPerfMap) {
  const auto php = [&](const std::string& in_child) -> Command {
    const std::string script = write("program.php", R"(<?php
function total($items) {
  $total = 0;
  foreach ($items as $item) { $total += strlen($item); }
  return $total;
}
$items = [];
for ($i = 0; $i < 200000; $i++) $items[] = str_repeat('x', 20) . $i;
$pid = pcntl_fork();
// It lives until cowtop has looked at its mappings, which takes long under a sanitizer.
if ($pid == 0) { )" + in_child + R"( usleep(200000); exit(0); }
pcntl_wait($status);
)");
    Command command = {kPhp, "-n"};
    for (const char* setting :
         {"zend_extension=opcache", "opcache.enable_cli=1", "opcache.file_update_protection=0",
          "opcache.jit=1205", "opcache.jit_buffer_size=16M", "opcache.jit_debug=16"}) {
      command.insert(command.end(), {"-d", setting});
    }
    command.push_back(script);
    return command;
  };
  const MeasuredRun idle = measure(php(""));
  const MeasuredRun busy = measure(php("total($items);"));
  for (const MeasuredRun& measured : {idle, busy})
    for (const Json& process : measured.report.at("processes"))
      std::filesystem::remove("/tmp/perf-" + process.at("pid").dump() + ".map");
  const Json& ours = busy.process(busy.child());
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

using PhpFpm = Programs<kPhpFpm, kPython>;

// What a script of one worker answers to FastCGI.
std::string fastcgi(const std::string& socket, const std::string& script) {
  return run({kPython, "-c", R"(
import socket, struct, sys
def record(kind, body):
    return struct.pack('>BBHHBB', 1, kind, 1, len(body), 0, 0) + body
def pair(name, value):
    return bytes([len(name), len(value)]) + name.encode() + value.encode()
link = socket.socket(socket.AF_UNIX)
link.connect(sys.argv[1])
said = pair('SCRIPT_FILENAME', sys.argv[2]) + pair('REQUEST_METHOD', 'GET')
link.sendall(record(1, struct.pack('>HB5x', 1, 0)) + record(4, said) + record(4, b'')
             + record(5, b''))
while text := link.recv(65536): sys.stdout.write(text.decode(errors='replace'))
)",
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
  const std::string script = write("read.php", R"(<?php
$total = 0;
foreach (require 'table.php' as $item) $total += strlen($item);
if (!opcache_is_script_cached(__DIR__ . '/table.php')) die('not cached');
echo "ready ", getmypid(), "\n";
)");
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
  constexpr std::uint64_t kBytesOfAnItem = 16 + 24 + 8;  // a zval, and a string without its text
  EXPECT_LT(for_reading, kItems * kBytesOfAnItem / 4096 / 100);
  EXPECT_THAT(mappings(ours, 2), UnorderedElementsAre(EndsWith("/php-fpm8.2 .bss"), "[heap]"));
  EXPECT_THAT(mappings(ours, 3), Contains(AnyOf("[stack]", "anonymous")));
  EXPECT_THAT(mappings(ours), Each(Not(HasSubstr("/dev/zero")))) << "opcache's";
  // Clears its variables for each request.  All others are of a few copies.
  EXPECT_THAT(places(ours, 1), ElementsAre(StartsWith("zend_activate (php-fpm8.2)")));
  EXPECT_TRUE(calls(ours.at("sites").at(0), "php_request_startup")) << ours.at("sites").at(0);
  EXPECT_EQ(patterns(ours).at(0), "own writes");
  EXPECT_THAT(patterns(ours), Contains("bulk fill"));
}

using PostgreSql = Programs<kPostgres, kInitdb, kPsql>;

Command as_postgres(const Command& command) {
  Command whole = {"/usr/bin/setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups",
                   "--"};
  whole.insert(whole.end(), command.begin(), command.end());
  return whole;
}

// A backend, from its fork to its end: at exit it releases OpenSSL's objects, which the postmaster
// had made.
TEST_F(PostgreSql, ABackendCopiesMostWhenItExits) {
  const std::string data = file("data");
  std::filesystem::permissions(folder(), std::filesystem::perms::all);
  const Finished made = run(as_postgres({kInitdb, "-N", "-A", "trust", "-D", data}));
  ASSERT_EQ(made.exit_status(), 0) << made.err;

  Subprocess server(cowtop(
      as_postgres({kPostgres, "-D", data, "-k", folder(), "-c", "listen_addresses="}), kEach));
  server.read_until("ready to accept connections");
  Subprocess client(
      as_postgres({kPsql, "-h", folder(), "-d", "postgres", "-qtA", "-c",
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
  const MeasuredRun measured = finish(server);
  const Json& ours = measured.process(backend);
  const double all = measured.copies(backend);
  EXPECT_LT(before_its_end, all / 2);
  double at_its_end = 0;
  for (const Json& site : ours.at("sites"))
    if (calls(site, "proc_exit")) at_its_end += site.at("estimated_copies").get<double>();
  EXPECT_LE(at_its_end, all - before_its_end);
  for (const std::size_t i : {0U, 1U, 2U})
    EXPECT_TRUE(calls(ours.at("sites").at(i), "proc_exit")) << ours.at("sites").at(i);
  EXPECT_THAT(places(ours, 3), UnorderedElementsAre(StartsWith("OPENSSL_LH_flush (libcrypto"),
                                                    StartsWith("EVP_CIPHER_free (libcrypto"),
                                                    StartsWith("proc_exit (postgres)")));
  EXPECT_EQ(mappings(ours, 1), std::vector<std::string>{"[heap]"});
  EXPECT_THAT(mappings(ours, 3),
              UnorderedElementsAre("[heap]", "anonymous", HasSubstr("postgres .bss")));
  EXPECT_EQ(patterns(ours).at(0), "program exit");
  for (const Json& process : measured.report.at("processes")) {
    if (process.at("role") != "root") continue;
    EXPECT_EQ(patterns(process).at(0), "relocation");
  }
}

}  // namespace
}  // namespace cowshed::test
