// A process tree whose write faults are known: ground_truth_subject KIND N.
//
// The measured process prints "measured PID", does N times what KIND says, prints "done" and ends
// when its standard input does.  Nothing else may depend on N, so that the same tree with N = 0 is
// the baseline; hence no allocation, no stdio, one CPU and real-time scheduling: a forked child
// runs when its parent blocks, never before, and the pages that both write are always paid for by
// the same one.

#include "ground_truth/steps.h"

int main(int argc, char** argv) {
  using namespace ground_truth;
  if (argc != 3) fail("usage: ground_truth_subject KIND N\n");
  program = argv[0];
  count = std::atol(argv[2]);
  sched_param priority = {.sched_priority = 1};
  sched_setscheduler(0, SCHED_FIFO, &priority);
  for (const Kind* kind = Kind::first; kind != nullptr; kind = kind->next) {
    if (kind->name != argv[1]) continue;
    kind->run();
    return 0;
  }
  fail("unknown kind\n");
}
