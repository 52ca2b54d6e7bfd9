#include <cstdlib>

#include <cowshed/share/workers.h>

#include "family.h"
#include "start/workers.h"
#include "subject.h"

// All benchmarks of the library, by Google Benchmark.  COWSHED_BENCH_QUICK=1 makes all sizes tiny.
bool cowshed::bench::is_quick() { return std::getenv("COWSHED_BENCH_QUICK") != nullptr; }

int main(int argc, char** argv) {
  namespace bench = cowshed::bench;
  if (const auto code = bench::run_as_worker(argc, argv)) return *code;
  const cowshed::Runtime runtime(argc, argv);
  if (const auto code = bench::run_as_subject(argc, argv)) return *code;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  for (const auto add :
       {bench::add_fork, bench::add_fill, bench::add_freeze, bench::add_deref, bench::add_channel,
        bench::add_start, bench::add_settle, bench::add_memory})
    add();
  benchmark::RunSpecifiedBenchmarks();
}
