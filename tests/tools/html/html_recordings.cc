// html_recordings KIND FILE: writes a recording for cowtop_html_test.py to make a page of.  KIND is
// also a case of tests/tools/report/screens.  Without arguments: prints these.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>

#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tests/tools/report/screens.h>
#include <cowshed/tools/cowtop/recording/recorder.h>

namespace cowshed::cowtop {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::uint64_t kStart = 77 * kSecond;
constexpr std::uint64_t kRange = 2 << 20;

using Step = std::function<cow::Measurement(int)>;

struct Kind {
  int steps = 1;
  std::vector<std::string> command;
  Step measured;  // as of a step, from 0
};

cow::Measurement begun(int step) {
  cow::Measurement measurement = measurement_with({});
  measurement.duration_s = step + 1;
  measurement.taken_ns = kStart + static_cast<std::uint64_t>(step + 1) * kSecond;
  measurement.lost_events = 0;
  measurement.overhead = {1000, 90.0};
  measurement.sampling = {64, 1000, 1000, 0};
  return measurement;
}

cow::ProcessCopies root() {
  cow::ProcessCopies process = root_copier(100, "server", 10);
  process.ppid = 1;
  process.alive = true;
  process.start_ns = kStart;
  process.copied_file_pages = 2;
  return process;
}

cow::ProcessCopies worker(int number, std::uint64_t pages) {
  cow::ProcessCopies process = root();
  process.pid = 101 + number;
  process.ppid = 100;
  process.comm = "worker";
  process.role = cow::Role::child;
  process.start_ns = kStart + kSecond / 2;
  process.shared_at_fork_bytes = 512 << 20;
  process.copied_anon_pages = pages;
  process.copied_file_pages = 0;
  const std::uint64_t copied = std::min<std::uint64_t>(pages * cow::kPageSize, 512 << 20);
  process.memory = {(512 << 20) - copied, copied, kStart + kSecond};
  return process;
}

// As many stacks of about equally many samples, each of `frames` functions.
cow::SampledCopies sampled(std::uint64_t pages, int stacks, int frames, int first) {
  cow::SampledCopies result;
  const auto count = static_cast<std::uint64_t>(stacks);
  for (std::uint64_t i = 0; i < count; ++i) {
    std::string folded = "main";
    std::uint64_t path = static_cast<std::uint64_t>(first) + i;
    for (int frame = 0; frame < frames; ++frame) {
      folded += ";function_" + std::to_string(frame) + "_" + std::to_string(path % 7);
      path = path / 7 * 31 + i % 3;
    }
    const std::uint64_t copies = pages * (i + 1) / count - pages * i / count;
    result.stacks.push_back({folded, copies, copies});
  }
  result.samples = pages;
  const cow::Frame inner{"fill(int)", "/src/fill.cc", 12, "/bin/server", 0x1234, false};
  const cow::Frame outer{"serve()", "/src/serve.cc", 7, "/bin/server", 0x2345, false};
  result.sites = {{{inner}, {inner, outer}, pages, pages, true}};
  result.mappings = {{"[heap]", pages / 2, pages / 2}, {"anonymous", pages / 2, pages / 2}};
  result.types = {{"str", pages / 2, pages / 2}};
  result.ranges = {
      {0x5500'0000'0000, 0x5500'0000'0000 + kRange, "[heap]", pages / 2, pages / 2},
      {0x7f00'0000'0000, 0x7f00'0000'0000 + 4 * kRange, "anonymous", pages / 2, pages / 2}};
  return result;
}

cow::Measurement pool(int step) {
  cow::Measurement measurement = begun(step);
  measurement.memory = {600 << 20, 700 << 20, 0, 5, 0};
  measurement.processes = {root()};
  for (int i = 0; i < 4; ++i) {
    const auto pages = static_cast<std::uint64_t>((step + 1) * (i + 1) * 100);
    auto process = worker(i, pages);
    process.sampled = sampled(pages, 5, 4, i);
    process.patterns = {{"reference count", 0.75, 30, "add qword ptr [rcx], 1"},
                        {"unknown", 0.25, 10, "2 places"}};
    process.arenas = {{"index", 1 << 20, 3}};
    process.objects = {{"table", "app::Table", "index", 3}};
    measurement.processes.push_back(process);
  }
  measurement.sampled = sampled(1000, 3, 3, 0);
  measurement.sampled->ranges.clear();
  measurement.sampled->stacks.clear();
  return measurement;
}

// Every name tries to become markup, or to end the data.
cow::Measurement hostile(int step) {
  const std::string name =
      "</script><img src=x onerror=document.title='owned'><!--<script>\xff\x01&amp;]]>\"'\\";
  cow::Measurement measurement = pool(step);
  for (cow::ProcessCopies& process : measurement.processes) {
    process.comm = name;
    process.not_measured = name;
    process.transfers = {{name, name, name, name, 1, 1, 1}};
    if (!process.sampled) continue;
    process.arenas = {{name, 1 << 20, 3}};
    process.objects = {{name, name, name, 3}};
    process.patterns = {{name, 1, 3, name}};
    for (auto& each : process.sampled->stacks) each.folded += ";" + name;
    for (auto& each : process.sampled->mappings) each.name = name;
    for (auto& each : process.sampled->ranges) each.mapping = name;
  }
  for (auto& site : measurement.sampled->sites) {
    for (cow::Frames* frames : {&site.frames, &site.stack}) {
      std::vector<cow::Frame> renamed = frames->all();
      for (cow::Frame& frame : renamed) {
        frame.function = frame.file = name;
        frame.is_python = true;
      }
      *frames = std::move(renamed);
    }
  }
  for (auto& each : measurement.sampled->mappings) each.name = name;
  for (auto& each : measurement.sampled->types) each.name = name;
  return measurement;
}

// The pagemap backend's: most is not known.
cow::Measurement sparse(int step) {
  cow::Measurement measurement = begun(step);
  measurement.backend = "pagemap";
  measurement.exact = false;
  measurement.lost_events.reset();
  measurement.overhead.ns_per_event.reset();
  measurement.sampling.reset();
  measurement.not_seen = {1, std::nullopt};
  cow::ProcessCopies first = root();
  first.copied_anon_pages.reset();
  first.unreadable = true;
  measurement.processes = {first, worker(0, 12)};
  return measurement;
}

// A shell that started a server and a grep, which copied most of the little that it shared.  All
// that the server's site ran is the dynamic linker's.
cow::Measurement shell(int step) {
  cow::Measurement measurement = begun(step);
  cow::ProcessCopies executed = worker(0, 10);
  executed.shared_at_fork_bytes = 512 << 10;
  executed.execs = 1;
  executed.copied_pages_before_exec = 3;
  cow::ProcessCopies grep = worker(1, 20);
  grep.comm = "grep";
  grep.shared_at_fork_bytes = 108 << 10;
  cow::ProcessCopies worked = worker(2, 10'000);
  worked.ppid = executed.pid;
  measurement.processes = {root(), executed, grep, worked};
  cow::SampledCopies& all = measurement.sampled.emplace();
  all.samples = 100;
  const cow::Frame inner{"_dl_relocate_object", "", 0, "/lib64/ld-linux-x86-64.so.2", 0, false};
  const cow::Frame outer{"_start", "", 0, "/lib64/ld-linux-x86-64.so.2", 0, false};
  all.sites = {{{inner, outer}, {inner, outer}, 100, 5016, false}};
  return measurement;
}

cow::Measurement no_process(int step) { return begun(step); }

// In three generations.
void add_worker(cow::Measurement& measurement, int number, int copies, int stacks, int frames) {
  const auto pages = static_cast<std::uint64_t>(copies);
  auto process = worker(number, pages);
  if (number >= 30) process.ppid = 101 + number % 30;
  process.sampled = sampled(pages, stacks, frames, number * 41);
  process.patterns = {{"reference count", 1, pages, "add qword ptr [rcx], 1"}};
  measurement.processes.push_back(process);
}

// A million samples in a thousand processes, most of their stacks different ones.
cow::Measurement large(int step) {
  cow::Measurement measurement = begun(step);
  measurement.processes = {root()};
  for (int i = 0; i < 999; ++i)
    add_worker(measurement, i, 500 * (step + 1) + i, step == 0 ? 1 : 500, 12);
  return measurement;
}

// More than there are details of, each with a few stacks.
cow::Measurement crowd(int step) {
  cow::Measurement measurement = begun(step);
  measurement.processes = {root()};
  for (int i = 0; i < 4999; ++i) add_worker(measurement, i, (step + 1) * (i + 1), 5, 6);
  return measurement;
}

bool write(const Kind& kind, const char* path) {
  auto file = OutputFile::open(path);
  if (!file) return false;
  MeasureOptions options;
  options.command = kind.command;
  auto recorder = Recorder::start(std::move(*file), options);
  if (!recorder) return false;
  for (int step = 0; step + 1 < kind.steps; ++step)
    if (!recorder->append(kind.measured(step))) return false;
  return kind.steps == 0 || recorder->end(kind.measured(kind.steps - 1), 0).has_value();
}

}  // namespace
}  // namespace cowshed::cowtop

int main(int argc, char** argv) {
  using cowshed::cowtop::Kind;
  namespace cowtop = cowshed::cowtop;
  std::map<std::string, Kind> kinds = {
      {"pool", {400, {"./server", "--workers", "4"}, cowtop::pool}},
      {"full", {1, {"./server"}, [](int) { return cowtop::full_measurement(); }}},
      {"hostile", {2, {"</script><img src=x onerror=document.title='owned'>"}, cowtop::hostile}},
      {"sparse", {2, {"./server"}, cowtop::sparse}},
      {"shell", {1, {"sh", "run.sh"}, cowtop::shell}},
      {"no-process", {1, {"./server"}, cowtop::no_process}},
      {"large", {2, {"./server"}, cowtop::large}},
      {"crowd", {3, {"./server"}, cowtop::crowd}},
      {"begun", {0, {"./server"}, cowtop::no_process}},
  };
  for (const auto& [path, screens] : cowtop::all_screens())
    for (const cowtop::ScreenCase& each : screens) {
      if (each.name.empty()) continue;
      if (argc == 1) std::puts(each.name.c_str());
      kinds[each.name] = {1, {"./server"}, [&](int) { return cowtop::measurement_of(each); }};
    }
  if (argc == 1) return 0;
  const auto kind = kinds.find(argc == 3 ? argv[1] : "");
  if (kind == kinds.end() || !cowtop::write(kind->second, argv[2])) {
    static_cast<void>(std::fprintf(stderr, "usage: html_recordings KIND FILE\n"));
    return 1;
  }
  return 0;
}
