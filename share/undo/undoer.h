#pragma once

#include <string_view>

// The thread that gives copies back.
namespace cowshed::undo {

// Keeps in mind in which sandbox (seccomp) the process began.
void note_sandbox();
// Whether a thread is in another one now.  A sandbox may end a thread that calls what reshare() or
// the handler of settle()'s signal calls, and a process that has such a thread.
bool is_any_thread_in_sandbox();

// Starts the thread in this process, which has settled memory.  It sleeps until the process has
// used the CPU and pauses, or has been busy for long.  Then it calls reshare(), within `most_cpu`
// of a CPU.  It blocks all signals.  It ends, after log(reason), where reshare() is refused or the
// process enters a sandbox.  Returns whether it could start.
bool start_thread(double most_cpu, void (*log)(std::string_view reason));
// Ends it now, and waits for that.  It must have started in this process.
void end_thread();

}  // namespace cowshed::undo
