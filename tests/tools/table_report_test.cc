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
  const std::string table = table_report(of(process));
  for (const char* text :
       {"pagemap backend, sampled", "4711", "  worker", "2.0", "50.0%", "SIGTERM",
        "arena 'index' of 8.0 MiB: 0 pages copied by PID 4711", "total copied: 2.0 MiB"}) {
    EXPECT_THAT(table, HasSubstr(text));
  }
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
