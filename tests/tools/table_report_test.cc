#include <csignal>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cowshed/tools/cowtop/table_report.h>

namespace cowshed::cowtop {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

cow::Measurement of(const cow::ProcessCopies& process) {
  cow::Measurement measurement;
  measurement.backend = "pagemap";
  measurement.processes.push_back(process);
  return measurement;
}

TEST(TableReport, ShowsWhatWasCopied) {
  cow::ProcessCopies process;
  process.pid = 4711;
  process.comm = "worker";
  process.copied_anon_pages = 512;
  process.copied_file_pages = 0;
  process.shared_at_fork_bytes = 4ULL << 20;
  process.signal = SIGTERM;
  process.arenas.push_back({"index", 8ULL << 20, 0});
  process.end_ns = 3'000'000'000;
  process.memory = {2ULL << 20, 1ULL << 20, 2'500'000'000};
  const std::string table = table_report(of(process));
  for (const char* text :
       {"pagemap backend, sampled", "4711", "  worker", "2.0", "50.0%", "SIGTERM",
        "PID 4711: 2.0 MiB still shared, 1.0 MiB its own; sampled 0.5 s before its end",
        "arena 'index' of 8.0 MiB: 0 pages copied by PID 4711", "total copied: 2.0 MiB"}) {
    EXPECT_THAT(table, HasSubstr(text));
  }
}

TEST(TableReport, SaysWhy) {
  cow::ProcessCopies process;
  process.pid = 4711;
  process.comm = "python3";
  process.patterns = {{"reference count", 0.951, 951, "add [rdx], 1"},
                      {"garbage collector", 0.045, 45, "mov [rdx + 8], rax"},
                      {"stack", 0.004, 4, "push rbx"}};
  cow::CopyDiff diff;
  diff.compared_pages = 100;
  diff.unchanged_pages = 90;
  diff.changed_bytes = 4096;
  diff.changes = 20;
  diff.changes_of_width = 19;
  diff.width_bytes = 8;
  diff.changes_at_stride = 5;
  diff.stride_bytes = 64;
  diff.cost_ns = 1'500'000;
  process.diff = diff;
  const std::string table = table_report(of(process));
  EXPECT_THAT(table, HasSubstr("why: PID 4711 (python3): 95% reference count (add [rdx], 1), "
                               "4% garbage collector\n"));
  EXPECT_THAT(table, HasSubstr("diff: PID 4711 (python3): 100 pages compared, 4096 bytes changed "
                               "(1.00%), 90 pages unchanged; 19 of 20 changes are 8 bytes, 5 at a "
                               "stride of 64; took 1.5 ms\n"));
}

TEST(TableReport, ANameCannotSendEscapesToTheTerminal) {
  cow::ProcessCopies process;
  process.comm = "a\x1b[31m\nb";
  const std::string table = table_report(of(process));
  EXPECT_THAT(table, HasSubstr("a?[31m?b"));
  EXPECT_THAT(table, Not(HasSubstr("\x1b")));
}

}  // namespace
}  // namespace cowshed::cowtop
