#pragma once

#include <string_view>

// The thread that gives copies back.
namespace cowshed::undo {

// Starts the thread in this process, which has settled memory.  It sleeps until the process has
// used the CPU and pauses, or has been busy for long.  Then it calls reshare(), within `most_cpu`
// of a CPU.  It blocks all signals.  It ends, after log(reason), where reshare() is refused or the
// process enters a sandbox.  Returns whether it could start.
bool start_thread(double most_cpu, void (*log)(std::string_view reason));

}  // namespace cowshed::undo
