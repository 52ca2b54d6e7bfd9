#include "observer.h"

#include <array>
#include <bpf/libbpf.h>
#include <cerrno>
#include <cstdlib>
#include <empty_probes.skel.h>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <nlohmann/json.hpp>
#include <poll.h>
#include <sched.h>
#include <sstream>
#include <stdexcept>
#include <sys/mount.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <cowshed/probes/support.h>

#include "tool.h"

namespace cowshed::bench {
namespace {

namespace fs = std::filesystem;

// Faults on present pages, by process as cowtop counts them, and in one sum.
constexpr const char* kByProcess =
    "tracepoint:exceptions:page_fault_user,tracepoint:exceptions:page_fault_kernel "
    "/(args->error_code & 3) == 3/ { @[pid, comm] = count(); }";
constexpr const char* kSum =
    "tracepoint:exceptions:page_fault_user,tracepoint:exceptions:page_fault_kernel "
    "/(args->error_code & 3) == 3/ { @total = count(); }";
constexpr const char* kReady = " interval:ms:100 { printf(\"ready\\n\"); }";

std::uint64_t number_after(const std::string& text, const std::string& words) {
  const auto at = text.rfind(words);
  if (at == std::string::npos) throw std::runtime_error("no figure in: " + text);
  return std::strtoull(text.c_str() + at + words.size(), nullptr, 10);
}

class Nothing final : public Observer {
 public:
  std::uint64_t stop() override { return 0; }
};

class EmptyPrograms final : public Observer {
 public:
  EmptyPrograms() : skeleton_(empty_probes_bpf__open_and_load()) {
    if (skeleton_ == nullptr || empty_probes_bpf__attach(skeleton_) != 0) {
      throw std::runtime_error("the empty programs cannot be attached");
    }
  }
  ~EmptyPrograms() override { empty_probes_bpf__destroy(skeleton_); }
  std::uint64_t stop() override {
    empty_probes_bpf__detach(skeleton_);
    return 0;
  }

 private:
  empty_probes_bpf* skeleton_;
};

class CowtopObserver : public Observer {
 public:
  explicit CowtopObserver(pid_t pid, const std::vector<std::string>& options = {})
      : tool_(command(pid, options)) {
    tool_.wait_for("attached to");
  }
  std::uint64_t stop() override {
    const std::string& output = tool_.stop();
    const auto report = nlohmann::json::parse(output.substr(output.find('{')));
    if (report.at("backend") != "tracepoint" || report.at("lost_events") != 0) {
      throw std::runtime_error("cowtop was not exact: " + output);
    }
    std::uint64_t copied = 0;
    for (const auto& process : report.at("processes")) {
      copied += process.at("copied_pages").get<std::uint64_t>();
    }
    return copied;
  }

 private:
  static std::vector<std::string> command(pid_t pid, const std::vector<std::string>& options) {
    std::vector<std::string> result = {cowtop_path(), "--json", "-p", std::to_string(pid)};
    result.insert(result.end(), options.begin(), options.end());
    return result;
  }

  Tool tool_;
};

class CowtopLatency final : public CowtopObserver {
 public:
  explicit CowtopLatency(pid_t pid) : CowtopObserver(pid, {"--latency"}) {}
};

class Bpftrace : public Observer {
 public:
  explicit Bpftrace(const std::string& program) : tool_({"bpftrace", "-e", program + kReady}) {
    tool_.wait_for("ready\n");  // not as it quotes its program in an error
  }
  // The values of its map.
  std::uint64_t stop() override {
    std::istringstream lines(tool_.stop());
    std::uint64_t total = 0;
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with('@')) total += number_after(line, ": ");
    }
    return total;
  }

 private:
  Tool tool_;
};

class BpftraceByProcess final : public Bpftrace {
 public:
  BpftraceByProcess() : Bpftrace(kByProcess) {}
};

class BpftraceSum final : public Bpftrace {
 public:
  BpftraceSum() : Bpftrace(kSum) {}
};

std::vector<std::string> perf(std::vector<std::string> arguments, pid_t pid) {
  arguments.insert(arguments.begin(), "perf");
  for (const std::string& more :
       {std::string("-p"), std::to_string(pid),
        fmt::format("--control=fd:{},{}", Tool::kControlFd, Tool::kAnswerFd)}) {
    arguments.push_back(more);
  }
  return arguments;
}

class PerfStat final : public Observer {
 public:
  explicit PerfStat(pid_t pid) : tool_(perf({"stat", "-x;", "-e", "minor-faults"}, pid)) {
    tool_.ping();
  }
  std::uint64_t stop() override {
    const std::string& output = tool_.stop();
    const auto line = output.rfind(";;minor-faults");
    if (line == std::string::npos) throw std::runtime_error("perf stat: " + output);
    const auto begin = output.rfind('\n', line);
    return std::strtoull(output.c_str() + (begin == std::string::npos ? 0 : begin + 1), nullptr,
                         10);
  }

 private:
  Tool tool_;
};

class PerfRecord final : public Observer {
 public:
  explicit PerfRecord(pid_t pid)
      : file_(fs::temp_directory_path() / fmt::format("cowshed-bench-{}.data", getpid())),
        tool_(perf({"record", "-e", "page-faults", "-c", "1", "-o", file_.string()}, pid)) {
    tool_.ping();
  }
  ~PerfRecord() override {
    std::error_code ignored;
    fs::remove(file_, ignored);
  }
  std::uint64_t stop() override {
    const std::string& output = tool_.stop();
    const bool has_samples = output.find(" samples) ]") != std::string::npos;
    return has_samples ? number_after(output, ".data (") : 0;
  }

 private:
  fs::path file_;
  Tool tool_;
};

// A process beside this one that ends, and tidies up, with it or at stop(); not with its process
// group, for whoever interrupts that would leave things as they are.
class Helper final {
 public:
  // `watch` runs until the descriptor that it is given has ended.
  template <class Watch>
  explicit Helper(Watch watch) {
    std::array<int, 2> ready{};
    std::array<int, 2> end{};
    if (pipe2(ready.data(), O_CLOEXEC) != 0 || pipe2(end.data(), O_CLOEXEC) != 0) {
      throw std::runtime_error("pipe2 failed");
    }
    pid_ = fork();
    if (pid_ == 0) {
      setpgid(0, 0);
      close(end[1]);
      watch(end[0], [&] { return write(ready[1], "", 1) == 1; });
      _exit(0);
    }
    close(ready[1]);
    close(end[0]);
    end_ = end[1];
    char byte = 0;
    const bool is_ready = pid_ > 0 && read(ready[0], &byte, 1) == 1;
    close(ready[0]);
    if (!is_ready) throw std::runtime_error("a helper could not begin");
  }
  Helper(const Helper&) = delete;
  Helper& operator=(const Helper&) = delete;
  ~Helper() { stop(); }
  void stop() {
    if (pid_ <= 0) return;
    close(end_);
    waitpid(std::exchange(pid_, -1), nullptr, 0);
  }

 private:
  pid_t pid_ = -1;
  int end_ = -1;
};

// Whether it ended within so many milliseconds; -1: when it does.
bool has_ended(int descriptor, int ms) {
  pollfd ends{descriptor, 0, 0};
  return poll(&ends, 1, ms) != 0;
}

// The kernel's own count of copies, by process and with their times: delay accounting, whose
// figures taskstats gives.  It is for processes that are forked while it is on.
class Taskstats final : public Observer {
 public:
  std::uint64_t stop() override {
    helper_.stop();
    return 0;
  }

 private:
  static constexpr const char* kSetting = "/proc/sys/kernel/task_delayacct";

  Helper helper_{[](int end, auto ready) {
    int before = 0;
    std::ifstream(kSetting) >> before;
    std::ofstream setting(kSetting);
    if (!(setting << 1 << std::flush) || !ready()) return;
    has_ended(end, -1);
    std::ofstream(kSetting) << before;
  }};
};

// What a script does: smaps_rollup of the process and of its children, ten times a second.
class SmapsPolling final : public Observer {
 public:
  explicit SmapsPolling(pid_t pid)
      : helper_([pid](int end, auto ready) {
          if (!ready()) return;
          do {
            look(pid);
            std::ifstream children(fmt::format("/proc/{0}/task/{0}/children", pid));
            for (pid_t child = 0; children >> child;) look(child);
          } while (!has_ended(end, 100));
        }) {}
  std::uint64_t stop() override {
    helper_.stop();
    return 0;
  }

 private:
  static void look(pid_t pid) {
    std::ifstream file(fmt::format("/proc/{}/smaps_rollup", pid));
    std::stringstream text;
    text << file.rdbuf();
  }

  Helper helper_;
};

bool is_installed(const std::string& command) {
  return std::system(fmt::format("command -v {} >/dev/null 2>&1", command).c_str()) == 0;
}

// bpftrace and perf read of tracepoints in tracefs.  Where it is not mounted it is, for this
// process and those that it starts.
void mount_tracefs() {
  constexpr const char* kTracefs = "/sys/kernel/tracing";
  if (fs::exists(std::string(kTracefs) + "/events")) return;
  if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      mount("tracefs", kTracefs, "tracefs", 0, nullptr) != 0) {
    throw std::runtime_error(fmt::format("{} is not mounted, nor can it be: {}", kTracefs,
                                         std::system_category().message(errno)));
  }
}

template <typename T>
std::unique_ptr<Observer> watch(pid_t pid) {
  if constexpr (std::is_constructible_v<T, pid_t>) {
    return std::make_unique<T>(pid);
  } else {
    return std::make_unique<T>();
  }
}

}  // namespace

std::string cannot_observe() {
  const auto support = probe_support();
  return support ? "" : support.error().message;
}

std::vector<ObserverKind> observers() {
  libbpf_set_print(nullptr);
  mount_tracefs();
  std::vector<ObserverKind> all = {
      {"none", "nobody watches", false, watch<Nothing>},
      {"empty programs", "BPF programs that return at once, on the events of cowtop's", false,
       watch<EmptyPrograms>},
      {"cowtop", "cowtop --json -p PID", true, watch<CowtopObserver>},
      {"cowtop --latency", "cowtop --latency --json -p PID", true, watch<CowtopLatency>},
      {"taskstats", "kernel.task_delayacct=1, by which the kernel counts and times copies", false,
       watch<Taskstats>},
      {"smaps polling", "/proc/PID/smaps_rollup of the process and its children, 10 times a second",
       false, watch<SmapsPolling>}};
  if (is_installed("bpftrace")) {
    all.push_back(
        {"bpftrace", fmt::format("bpftrace -e '{}'", kByProcess), true, watch<BpftraceByProcess>});
    all.push_back(
        {"bpftrace sum", fmt::format("bpftrace -e '{}'", kSum), true, watch<BpftraceSum>});
  }
  if (is_installed("perf")) {
    all.push_back({"perf stat", "perf stat -e minor-faults -p PID", true, watch<PerfStat>});
    all.push_back(
        {"perf record", "perf record -e page-faults -c 1 -p PID", true, watch<PerfRecord>});
  }
  return all;
}

}  // namespace cowshed::bench
