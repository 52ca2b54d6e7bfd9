#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <functional>
#include <future>
#include <limits>
#include <memory>
#include <pty.h>
#include <regex>
#include <stdexcept>
#include <string>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include "machine.h"
#include "observer.h"
#include "peer.h"
#include "program.h"
#include "statistics.h"
#include "tool.h"

// What cowtop itself takes: CPU and memory, by the number of processes and how long it goes on.
namespace cowshed::bench {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using std::chrono::duration;

constexpr std::size_t kPage = 4096;
constexpr double kMiB = 0x1p20;
constexpr double kHour = 3600;
constexpr std::size_t kCopiesASecond = 10'000;  // of all processes of a recording

void sleep_s(double seconds) { std::this_thread::sleep_for(duration<double>(seconds)); }

// A process that nothing is left of when its parent ends.
template <class Life>
void start(Life life) {
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) throw std::system_error(errno, std::system_category(), "fork");
  if (pid != 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() == parent) life();
  _exit(0);
}

// Copies `pages` pages of a private file each second, for ever.
void copy_each_second(int file, std::size_t pages) {
  void* memory = mmap(nullptr, pages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
  if (memory == MAP_FAILED) return;
  auto* bytes = static_cast<volatile char*>(memory);
  for (;;) {
    for (std::size_t i = 0; i < pages; ++i) bytes[i * kPage] = 1;
    madvise(memory, pages * kPage, MADV_DONTNEED);
    sleep_s(1);
  }
}

// A tree of processes that lives as its configuration says.
class Tree final : public SubjectWork {
 public:
  explicit Tree(const json& configuration) {
    const int processes = configuration["processes"];
    const std::size_t pages = configuration["pages"];
    const int file = memfd_create("pages", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, static_cast<off_t>(pages * kPage)) != 0)
      throw std::system_error(errno, std::system_category(), "memfd_create");
    for (int i = 0; i < processes; ++i) {
      start([&] {
        if (pages == 0) pause();
        sleep_s(static_cast<double>(i) / processes);
        copy_each_second(file, pages);
      });
    }
  }
  json facts() const override { return {{"pid", getpid()}}; }
  json answer(const json&) override { return json::object(); }
};

std::unique_ptr<SubjectWork> make_work(const json& configuration) {
  return std::make_unique<Tree>(configuration);
}

double cpu_s(pid_t pid) { return cpu_ns(pid) / 1e9; }

double memory_mib(pid_t pid) {
  return static_cast<double>(proc_bytes(fmt::format("/proc/{}/status", pid), "VmRSS")) / kMiB;
}

double now_s() { return static_cast<double>(now_ns()) / 1e9; }

enum class Use { watch, record, record_sites };

// Throws where it has seen fewer processes, or not a quarter of the copies a second.
void check_seen(std::size_t seen, int processes, double rate, std::size_t to_be_seen) {
  if (seen < static_cast<std::size_t>(processes) || rate < static_cast<double>(to_be_seen) / 4) {
    throw std::runtime_error(
        fmt::format("cowtop has seen {} processes and {:.0f} copies a second, of {} and {}", seen,
                    rate, processes, to_be_seen));
  }
}

// cowtop that watches, or records, a tree; its file goes with it.
class Cowtop {
 public:
  explicit Cowtop(const Subject& tree, Use use = Use::watch)
      : file_(fs::temp_directory_path() /
              fmt::format("cowshed-bench-{}.cowtop", tree.facts()["pid"].get<pid_t>())),
        use_(use),
        began_s_(now_s()),
        tool_(command(tree.facts()["pid"], use)) {
    tool_.wait_for("attached to");
    ready_s_ = now_s() - began_s_;
  }
  Cowtop(const Cowtop&) = delete;
  Cowtop& operator=(const Cowtop&) = delete;
  ~Cowtop() {
    std::error_code ignored;
    fs::remove(file_, ignored);
  }
  pid_t pid() const { return tool_.pid(); }
  double ready_s() const { return ready_s_; }  // how long it took until it measured
  double file_mib() const { return static_cast<double>(fs::file_size(file_)) / kMiB; }

  // Ends it; its memory at its peak.
  double stop() {
    said_ = tool_.stop();
    return tool_.memory_mib();
  }
  // The copies a second that it said, or recorded; after stop().  Throws where these are not a
  // quarter of those that were to be seen, or the processes are fewer.
  double check_copies(int processes, std::size_t to_be_seen) const {
    const json measured = report();
    double pages = 0;
    for (const json& process : measured["processes"])
      pages += process["copied_pages"].get<double>();
    const double rate = pages / measured["duration_s"].get<double>();
    check_seen(measured["processes"].size(), processes, rate, to_be_seen);
    return rate;
  }

 private:
  json report() const {
    if (use_ == Use::watch) return json_said(said_);
    Tool report({cowtop_path(), "report", "--json", file_.string()});
    return json::parse(report.read_to_end());
  }

  std::vector<std::string> command(pid_t pid, Use use) const {
    const std::string tree = std::to_string(pid);
    if (use == Use::watch) return {cowtop_path(), "--json", "--no-sites", "-p", tree};
    std::vector<std::string> command{cowtop_path(), "record", "-o", file_.string(), "-p", tree};
    if (use == Use::record) command.emplace_back("--no-sites");
    return command;
  }

  fs::path file_;
  Use use_;
  double began_s_;
  Tool tool_;
  std::string said_;
  double ready_s_ = 0;
};

// cowtop that shows a tree on a terminal, of which somebody reads.
class LiveCowtop {
 public:
  explicit LiveCowtop(const Subject& tree) {
    const std::string path = cowtop_path();
    const std::string root = std::to_string(tree.facts()["pid"].get<pid_t>());
    const winsize size{40, 120, 0, 0};
    pid_ = forkpty(&terminal_, nullptr, nullptr, &size);
    if (pid_ < 0) throw std::system_error(errno, std::system_category(), "forkpty");
    if (pid_ == 0) {
      setenv("TERM", "xterm-256color", 1);
      setenv("LC_ALL", "C.UTF-8", 1);
      execl(path.c_str(), path.c_str(), "--wide", "-p", root.c_str(), nullptr);
      _exit(127);
    }
    read_until("copied:");  // it measures
    reader_ = std::thread([this] {
      while (read_more(text_))
        if (!quitting_) text_.clear();
    });
  }
  LiveCowtop(const LiveCowtop&) = delete;
  LiveCowtop& operator=(const LiveCowtop&) = delete;
  ~LiveCowtop() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    if (reader_.joinable()) reader_.join();
    close(terminal_);
  }
  pid_t pid() const { return pid_; }
  // Ends it, and reads what it has seen from the table that it then prints.
  void check_copies(int processes, std::size_t to_be_seen) {
    quitting_ = true;
    if (write(terminal_, "q", 1) != 1) throw std::runtime_error("cowtop's terminal is gone");
    reader_.join();
    std::smatch first;
    std::smatch last;
    if (!std::regex_search(text_, first, std::regex(R"(exact; (\d+) processes in ([\d.]+) s)")) ||
        !std::regex_search(text_, last, std::regex(R"(total copied: ([\d.]+) MiB)"))) {
      throw std::runtime_error("the live view has ended without its table");
    }
    const double rate = std::stod(last[1]) * 256 / std::stod(first[2]);
    check_seen(std::stoul(first[1]), processes, rate, to_be_seen);
  }

 private:
  void read_until(const std::string& word) const {
    for (std::string text; text.find(word) == std::string::npos;)
      if (!read_more(text)) throw std::runtime_error("cowtop ended: " + text);
  }
  bool read_more(std::string& text) const {
    std::array<char, 4096> buffer;
    const ssize_t got = read(terminal_, buffer.data(), buffer.size());
    if (got > 0) text.append(buffer.data(), static_cast<std::size_t>(got));
    return got > 0;
  }

  pid_t pid_ = 0;
  int terminal_ = -1;
  std::string text_;  // the last that was read; all of it when quitting
  std::atomic<bool> quitting_ = false;
  std::thread reader_;
};

struct Sizes {
  int processes;
  double settle_s;
  double window_s;
  double recording_s;
};

Sizes sizes_of(const Options& options) {
  if (options.quick) return {20, 0.1, 0.2, 2.5};
  return {1000, 15, 5, 120};
}

Subject tree_of(int processes, std::size_t pages) {
  return Subject(json{{"processes", processes}, {"pages", pages}});
}

// Shares of a CPU, in percent, one for each window.
std::vector<double> shares(pid_t pid, const Sizes& sizes, int windows) {
  std::vector<double> result;
  for (int i = 0; i < windows; ++i) {
    const double cpu = cpu_s(pid);
    const double time = now_s();
    sleep_s(sizes.window_s);
    result.push_back(100 * (cpu_s(pid) - cpu) / (now_s() - time));
  }
  return result;
}

struct Running {
  double start_s;              // of CPU time
  std::vector<double> shares;  // of a CPU
  double memory_mib;
};

Running look_at(pid_t pid, const Options& options) {
  const Sizes sizes = sizes_of(options);
  sleep_s(sizes.settle_s);
  const double start_s = cpu_s(pid);
  auto measured = shares(pid, sizes, options.pairs);
  return {start_s, std::move(measured), memory_mib(pid)};
}

void print_running(const std::string& group, const std::string& command, const Running& running,
                   Report& report) {
  report.figure(group, command + ", CPU time of the start", running.start_s, "s");
  report.goal({fmt::format("{}: CPU of {}", group, command), Goal::Bound::at_most, 1, "%"},
              median(running.shares), bootstrap_median(running.shares));
  report.goal({fmt::format("{}: memory of {}", group, command), Goal::Bound::at_most, 32, "MiB"},
              running.memory_mib);
}

// All at the same time, for nothing happens: each one's CPU time is its own.
void measure_idle(const Options& options, Report& report) {
  const int processes = sizes_of(options).processes;
  const Subject tree = tree_of(processes, 0);
  Cowtop watching(tree);
  Cowtop recording(tree, Use::record);
  LiveCowtop live(tree);
  const auto look = [&options](pid_t pid) {
    return std::async(std::launch::async, look_at, pid, std::cref(options));
  };
  auto watched = look(watching.pid());
  auto recorded = look(recording.pid());
  auto shown = look(live.pid());
  print_running("idle", "cowtop", watched.get(), report);
  print_running("idle", "cowtop record", recorded.get(), report);
  print_running("idle", "the live view", shown.get(), report);
  for (Cowtop* cowtop : {&watching, &recording}) {
    cowtop->stop();
    cowtop->check_copies(processes, 0);
  }
  live.check_copies(processes, 0);
}

void measure_copying(const Options& options, Report& report) {
  constexpr std::size_t kPages = 10;  // a second, of each
  const int processes = sizes_of(options).processes;
  const Subject tree = tree_of(processes, kPages);
  for (const auto& [command, use] :
       {std::pair("cowtop", Use::watch), std::pair("cowtop record", Use::record)}) {
    Cowtop cowtop(tree, use);
    print_running("copying", command, look_at(cowtop.pid(), options), report);
    cowtop.stop();
    cowtop.check_copies(processes, kPages * static_cast<std::size_t>(processes));
  }
}

// What grows, by the hour: from the second half of the time.
struct Growth {
  double memory_mib = 0;  // at the end
  double memory_mib_an_hour = 0;
  double file_mib_an_hour = 0;
};

// The least of several looks in that time: between two appends, as what an append takes for a
// moment is no growth.
double kept_memory_mib(pid_t pid, double seconds) {
  constexpr int kLooks = 100;
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < kLooks; ++i) {
    sleep_s(seconds / kLooks);
    least = std::min(least, memory_mib(pid));
  }
  return least;
}

Growth growth_of(const Cowtop& cowtop, double seconds) {
  constexpr double kLooked = 1.0 / 6;  // of the time, by kept_memory_mib()
  const double pause_s = (0.5 - kLooked) * seconds;
  sleep_s(pause_s);
  const double memory = kept_memory_mib(cowtop.pid(), kLooked * seconds);
  const double file = cowtop.file_mib();
  const double begin = now_s();
  sleep_s(pause_s);
  Growth growth;
  growth.memory_mib = kept_memory_mib(cowtop.pid(), kLooked * seconds);
  const double hours = (now_s() - begin) / kHour;
  growth.memory_mib_an_hour = (growth.memory_mib - memory) / hours;
  growth.file_mib_an_hour = (cowtop.file_mib() - file) / hours;
  return growth;
}

struct Recorded {
  std::string group;
  Use use;
  int processes;
};

// All at the same time: what is looked at, memory and files, is each one's own.
void measure_recordings(const std::vector<Recorded>& all, const Options& options, Report& report) {
  struct Recording {
    Subject tree;
    Cowtop cowtop;
    std::future<Growth> growth;

    Recording(const Recorded& what, double seconds)
        : tree(tree_of(what.processes, kCopiesASecond / static_cast<std::size_t>(what.processes))),
          cowtop(tree, what.use),
          growth(std::async(std::launch::async, growth_of, std::cref(cowtop), seconds)) {}
  };
  std::vector<std::unique_ptr<Recording>> recordings;
  recordings.reserve(all.size());
  for (const Recorded& each : all)
    recordings.push_back(std::make_unique<Recording>(each, sizes_of(options).recording_s));
  for (std::size_t i = 0; i < all.size(); ++i) {
    const std::string& group = all[i].group;
    const Growth growth = recordings[i]->growth.get();
    const double peak = recordings[i]->cowtop.stop();
    report.figure(group, "copies",
                  recordings[i]->cowtop.check_copies(all[i].processes, kCopiesASecond), "a second");
    report.figure(group, "memory", growth.memory_mib, "MiB");
    report.figure(group, "memory at its peak", peak, "MiB");
    report.figure(group, "memory, growth", growth.memory_mib_an_hour, "MiB an hour");
    report.figure(group, "file", growth.file_mib_an_hour, "MiB an hour");
    report.goal({group + ": memory after an hour", Goal::Bound::at_most, 50, "MiB"},
                std::max(peak, growth.memory_mib + growth.memory_mib_an_hour));
  }
}

void measure_start(const Options& options, Report& report) {
  const int processes = sizes_of(options).processes;
  const Subject tree = tree_of(processes, 0);
  std::vector<double> times(static_cast<std::size_t>(options.pairs));
  for (double& time : times) {
    Cowtop cowtop(tree);
    time = 1000 * cowtop.ready_s();
    cowtop.stop();
    cowtop.check_copies(processes, 0);
  }
  report.goal({"start: until it measures", Goal::Bound::at_most, 200, "ms"}, median(times),
              bootstrap_median(times));
}

void measure(const Options& options, Report& report) {
  report.setting(
      "idle",
      "1,000 processes that sleep; measured from 15 s after the start on, 5 s each; cowtop, "
      "cowtop record and the live view at the same time");
  report.setting("copying", "1,000 processes, each of which copies 10 pages a second");
  report.setting(
      "recording",
      "the same, for 120 s; memory is the least of the last sixth, between two appends; growth is "
      "what that is more than at the half, by the hour; the goal is about the peak, or what an "
      "hour comes to");
  report.setting("recorded sites", "the same with samples, of 20 processes");
  report.setting("start", "the same as idle: from the start until it says that it is attached");
  if (const std::string reason = cannot_observe(); !reason.empty()) {
    report.setting("not measured", reason);
    return;
  }
  if (options.wants("idle")) measure_idle(options, report);
  if (options.wants("copying")) measure_copying(options, report);
  std::vector<Recorded> recorded = {
      {"recording", Use::record, sizes_of(options).processes},
      {"recorded sites", Use::record_sites, 20},
  };
  std::erase_if(recorded, [&](const Recorded& each) { return !options.wants(each.group); });
  measure_recordings(recorded, options, report);
  if (options.wants("start")) measure_start(options, report);
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  return cowshed::bench::run_program(argc, argv,
                                     {.name = "own_cost",
                                      .question = "what cowtop itself takes",
                                      .pairs = 4,
                                      .measure = cowshed::bench::measure,
                                      .make_work = cowshed::bench::make_work});
}
