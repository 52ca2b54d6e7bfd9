#include "observer.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cerrno>
#include <cstdlib>
#include <empty_probes.skel.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sched.h>
#include <sstream>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <cowshed/probes/support.h>

#include "accounting.h"
#include "helper.h"
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
    check();
  }
  ~EmptyPrograms() override { empty_probes_bpf__destroy(skeleton_); }
  std::uint64_t stop() override {
    empty_probes_bpf__detach(skeleton_);
    return 0;
  }

 private:
  // That a fault of ours runs them: the kernel counts their runs while it is asked to.
  void check() const {
    static bool is_checked = false;
    if (std::exchange(is_checked, true)) return;
    const int statistics = bpf_enable_stats(BPF_STATS_RUN_TIME);
    if (statistics < 0) throw std::system_error(errno, std::system_category(), "BPF_ENABLE_STATS");
    constexpr std::size_t kSize = 4096;
    void* page = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page != MAP_FAILED) *static_cast<volatile char*>(page) = 1;
    munmap(page, kSize);
    for (bpf_program* program : {skeleton_->progs.on_user_fault, skeleton_->progs.on_page_alloc}) {
      bpf_prog_info info = {};
      __u32 size = sizeof info;
      if (bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &size) != 0 ||
          info.run_cnt == 0) {
        throw std::runtime_error(fmt::format("the empty program {} does not run on a fault",
                                             bpf_program__name(program)));
      }
    }
    close(statistics);
  }

  empty_probes_bpf* skeleton_;
};

class CowtopObserver : public Observer {
 public:
  explicit CowtopObserver(pid_t pid, const std::vector<std::string>& options = {})
      : tool_(command(pid, options)) {
    tool_.wait_for("attached to");
  }
  pid_t pid() const override { return tool_.pid(); }
  std::uint64_t stop() override {
    const std::string& output = tool_.stop();
    const auto report = json_said(output);
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
  pid_t pid() const override { return tool_.pid(); }
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
  pid_t pid() const override { return tool_.pid(); }
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
  pid_t pid() const override { return tool_.pid(); }
  std::uint64_t stop() override {
    const std::string& output = tool_.stop();
    const bool has_samples = output.find(" samples) ]") != std::string::npos;
    return has_samples ? number_after(output, ".data (") : 0;
  }

 private:
  fs::path file_;
  Tool tool_;
};

class Taskstats final : public Observer {
 public:
  std::uint64_t stop() override {
    std::uint64_t copies = 0;
    for (const auto& [pid, count] : accounting_.copies()) copies += count;
    accounting_.stop();
    return copies;
  }

 private:
  Accounting accounting_;
};

// What a script does: smaps_rollup of the process and of its children, again and again.
class SmapsPolling final : public Observer {
 public:
  explicit SmapsPolling(pid_t pid)
      : helper_([pid](int end, auto ready) {
          bool has_seen = true;
          if (!ready()) return false;
          do {
            has_seen = look(pid) && has_seen;
            std::ifstream children(fmt::format("/proc/{0}/task/{0}/children", pid));
            for (pid_t child = 0; children >> child;) look(child);  // which may end meanwhile
          } while (!Helper::has_ended(end, kEveryMs));
          return has_seen;
        }) {}
  pid_t pid() const override { return helper_.pid(); }
  std::uint64_t stop() override {
    if (!helper_.has_done()) throw std::runtime_error("smaps_rollup could not be read");
    return 0;
  }

 private:
  // The copies of one sample take some 20: each has at least one look then.
  static constexpr int kEveryMs = 10;

  static bool look(pid_t pid) {
    std::ifstream file(fmt::format("/proc/{}/smaps_rollup", pid));
    std::stringstream text;
    text << file.rdbuf();
    return text.str().find("Private_Dirty:") != std::string::npos;
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
      {"none", "nobody watches", 0, watch<Nothing>},
      {"empty programs", "BPF programs that return at once, on the events of cowtop's", 0,
       watch<EmptyPrograms>},
      {"cowtop", "cowtop --json -p PID", 1, watch<CowtopObserver>},
      {"cowtop --latency", "cowtop --latency --json -p PID", 1, watch<CowtopLatency>},
      {"smaps polling",
       "/proc/PID/smaps_rollup of the process and its children, 100 times a second", 0,
       watch<SmapsPolling>}};
  // It counts a copy only if it took some time by a clock that stands still where ticks come late,
  // as on a busy machine: one in six was missed there.  Without the setting it counts none.
  constexpr double kLeastByTaskstats = 0.5;
  if (cannot_account().empty()) {
    all.push_back({"taskstats",
                   "kernel.task_delayacct=1, by which the kernel counts and times copies, and what "
                   "it sends by netlink at the end of each process",
                   kLeastByTaskstats, watch<Taskstats>});
  }
  if (is_installed("bpftrace")) {
    all.push_back(
        {"bpftrace", fmt::format("bpftrace -e '{}'", kByProcess), 1, watch<BpftraceByProcess>});
    all.push_back({"bpftrace sum", fmt::format("bpftrace -e '{}'", kSum), 1, watch<BpftraceSum>});
  }
  if (is_installed("perf")) {
    all.push_back({"perf stat", "perf stat -e minor-faults -p PID", 1, watch<PerfStat>});
    all.push_back({"perf record", "perf record -e page-faults -c 1 -p PID", 1, watch<PerfRecord>});
  }
  return all;
}

}  // namespace cowshed::bench
