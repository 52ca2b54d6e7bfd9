#include <algorithm>

#include <cowshed/tests/tools/live_recordings.h>
#include <cowshed/tests/tools/recordings.h>

namespace cowshed::cowtop {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::uint64_t kBegin = 1000 * kSecond;
constexpr std::uint64_t kPagesPerMiB = 256;

cow::Measurement measurement_after(int seconds) {
  cow::Measurement measurement = measurement_with({});
  measurement.duration_s = seconds;
  measurement.taken_ns = kBegin + static_cast<std::uint64_t>(seconds) * kSecond;
  measurement.lost_events = 0;
  measurement.overhead = {100'000, 100};
  return measurement;
}

cow::ProcessCopies process_of(pid_t pid, pid_t parent, const std::string& name) {
  cow::ProcessCopies process = copier(pid, name, 0);
  process.ppid = parent;
  process.alive = true;
  process.start_ns = kBegin + static_cast<std::uint64_t>(pid);
  process.shared_at_fork_bytes = 100 << 20;
  process.reused_pages = static_cast<std::uint64_t>(pid) % 7;
  process.zero_page_writes = static_cast<std::uint64_t>(pid) % 5;
  process.zero_filled_pages = 10;
  return process;
}

void end(cow::ProcessCopies& process, int second, int now, std::optional<int> status, int signal) {
  if (now < second) return;
  process.alive = false;
  process.end_ns = kBegin + static_cast<std::uint64_t>(second) * kSecond;
  process.exit_status = status;
  if (signal != 0) process.signal = signal;
}

// 10 MiB a second up to the time of its end.
void copy(cow::ProcessCopies& process, int mib_per_second, int seconds) {
  process.copied_anon_pages = static_cast<std::uint64_t>(mib_per_second) *
                              static_cast<std::uint64_t>(seconds) * kPagesPerMiB;
}

cow::SampledCopies sampled_of(std::uint64_t copies) {
  cow::SampledCopies sampled;
  const cow::Frame site{"Index::touch()", "/src/index.cc", 12, "/bin/server", 0x1234, false};
  const cow::Frame caller{"main", "/src/main.cc", 30, "/bin/server", 0x2345, false};
  sampled.samples = copies / 64;
  sampled.sites = {{{site}, {site, caller}, sampled.samples, copies, false}};
  sampled.mappings = {{"[heap]", sampled.samples, copies}};
  sampled.ranges = {{0x600000, 0x800000, "[heap]", sampled.samples / 2, 100},
                    {0x200000, 0x400000, "[heap]", sampled.samples / 2, 512}};
  sampled.stacks = {{"server;main;Index::touch()", sampled.samples, copies}};
  return sampled;
}

}  // namespace

cow::Measurement server_after(int seconds) {
  cow::Measurement measurement = measurement_after(seconds);
  measurement.sampling = {64, 100, 98, 2};
  cow::ProcessCopies server = process_of(100, 1, "server");
  server.role = cow::Role::root;
  server.shared_at_fork_bytes.reset();
  cow::ProcessCopies busy = process_of(101, 100, "worker-1");
  copy(busy, 4, seconds);
  busy.sampled = sampled_of(*busy.copied_anon_pages);
  busy.patterns = {{"reference count", 0.75, 8, "inc [rdi]"}, {"unknown", 0.25, 2, ""}};
  busy.arenas = {{"index", 64 << 20, 40}};
  busy.objects = {{{"words", "std::pmr::vector<Word>", "index", 30}}};
  busy.memory = {80 << 20, 20 << 20, measurement.taken_ns - kSecond / 2};
  cow::ProcessCopies idle = process_of(102, 100, "wörker-2\t\x1b[31m");
  copy(idle, 1, std::min(seconds, 1));
  cow::ProcessCopies ending = process_of(103, 100, "worker-3");
  copy(ending, 30, std::min(seconds, 2));
  end(ending, 2, seconds, 3, 0);
  cow::ProcessCopies helper = process_of(104, 101, "helper");
  copy(helper, 2, std::min(seconds, 3));
  end(helper, 3, seconds, std::nullopt, 9);
  cow::ProcessCopies unknown = process_of(105, 104, "grandchild");
  unknown.copied_anon_pages.reset();
  unknown.not_measured = "PID 105: not permitted";
  for (cow::ProcessCopies* each : {&server, &busy, &idle, &unknown}) end(*each, 21, seconds, 0, 0);
  measurement.processes = {server, busy, idle, ending, helper, unknown};
  return measurement;
}

cow::Measurement workers(int count) {
  cow::Measurement measurement = measurement_after(1);
  if (count > 0) {
    measurement.processes.push_back(process_of(1000, 1, "server"));
    measurement.processes[0].role = cow::Role::root;
  }
  for (int i = 1; i <= count; ++i) {
    measurement.processes.push_back(process_of(1000 + i, 1000, "worker-" + std::to_string(i)));
    measurement.processes.back().copied_anon_pages = static_cast<std::uint64_t>(i);
  }
  return measurement;
}

}  // namespace cowshed::cowtop
