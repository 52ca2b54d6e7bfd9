#include <cowshed/tests/tools/recordings.h>

namespace cowshed::cowtop {

cow::Measurement full_measurement() {
  cow::SampledCopies sampled;
  const cow::Frame frame{"fill()", "/src/fill.cc", 12, "/bin/fill", 0x1234, true};
  const cow::Frame line{"total", "/app/pool.py", 4, "/usr/bin/python3.11", 0, false, true};
  sampled.samples = 10;
  sampled.python_unread = 1;
  sampled.types = {{"str", 7, 448}};
  sampled.sites = {{{frame}, {frame, line}, 7, 448, true}};
  sampled.mappings = {{"[heap]", 10, 640}};
  sampled.ranges = {{0x200000, 0x400000, "[heap]", 10, 640}};
  sampled.stacks = {{"main;fill()", 10, 640, "reference count", "str"}};

  cow::ProcessCopies process = copier(41, "worker", 600, 40);
  process.cgroup = "/docker/" + std::string(64, 'a');
  process.alive = true;
  process.start_ns = 1'000'000'007;
  process.end_ns = 3'000'000'000;
  process.exit_status = 3;
  process.sender = {12, "boss"};
  process.out_of_memory = {true, "/build", 1 << 29, {{13, "hog", 1 << 28}}};
  process.shares_memory = true;
  process.not_measured = "because";
  process.shared_at_fork_bytes = 1 << 30;
  process.copied_file_pages = 40;
  process.reused_pages = 1;
  process.zero_page_writes = 2;
  process.zero_filled_pages = 3;
  process.huge_splits = 4;
  process.write_notify_faults = 5;
  process.failed_faults = 6;
  process.other_faults = 7;
  process.memory = {1 << 29, 1 << 20, 2'000'000'000, 7};
  process.resident_before_bytes = 5 << 20;
  process.shared_before_bytes = 4 << 20;
  process.most_risen_bytes = 8192;
  process.most_resident_bytes = 16384;
  process.held_at_end_bytes = 12288;
  process.peak = {1 << 28, 1'750'000'000};
  process.unreadable = true;
  process.execs = 2;
  process.copied_pages_before_exec = 9;
  process.arenas = {{"index", 1 << 20, 40}, {"gone", std::nullopt, 1}};
  process.files = {{"model.bin", 8 << 20, 3, 2, 1 << 20, 2 << 20}};
  process.objects = {{"table", "Table", "index", 30}};
  process.transfers = {{"channel", "jobs", "Job", "reference", 5, 6, 7}};
  process.sampled = sampled;
  process.patterns = {{"reference count", 0.75, 8, "inc [rdi]"}};

  cow::Measurement measurement = measurement_with({root_copier(40, "server", 3), process});
  measurement.duration_s = 2.5;
  measurement.taken_ns = 4'000'000'000;
  measurement.lost_events = 1;
  measurement.unsure_faults = 3;
  measurement.not_seen = {1, 2};
  measurement.overhead = {1234, 56.5};
  measurement.memory = {1 << 28, 1 << 29, 1 << 20, 2, 1};
  measurement.memory_cgroup = {1 << 30, 1, "/job"};
  measurement.sampling = {64, 12, 10, 2};
  measurement.sampled = sampled;
  measurement.new_memory = {9,
                            sampled.sites,
                            sampled.mappings,
                            {{{"import", "shop"}, 9, 576, 500}},
                            {{"run;total", 9, 576}},
                            2};
  return measurement;
}

cow::ProcessCopies copier(pid_t pid, const std::string& comm, std::uint64_t pages, pid_t ppid) {
  cow::ProcessCopies process;
  process.pid = pid;
  process.ppid = ppid;
  process.comm = comm;
  process.copied_anon_pages = pages;
  process.copied_file_pages = 0;
  return process;
}

cow::ProcessCopies root_copier(pid_t pid, const std::string& comm, std::uint64_t pages) {
  cow::ProcessCopies process = copier(pid, comm, pages);
  process.role = cow::Role::root;
  return process;
}

cow::Measurement measurement_with(std::vector<cow::ProcessCopies> processes) {
  cow::Measurement measurement;
  measurement.backend = "tracepoint";
  measurement.exact = true;
  measurement.processes = std::move(processes);
  return measurement;
}

}  // namespace cowshed::cowtop
