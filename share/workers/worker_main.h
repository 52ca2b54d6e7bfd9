#pragma once

#include <sys/types.h>

#include <cowshed/share/codec.h>
#include <cowshed/share/wire/message.h>
#include <cowshed/share/workers/job.h>

// The worker's side: runs its function and reports to the parent.  The same for every method.
namespace cowshed::launch {

// Runs the body, sends its value or its exception to `socket`, and ends the process by
// _exit().  With .die_with_parent the kernel kills the worker when `parent` ends.
[[noreturn]] void run_worker(const Worker& self, FileDescriptor socket, pid_t parent,
                             const WorkersOptions& options, const internal::WorkerTask::Body& body);

// The job of a worker that does not inherit it.  encode_job() writes the content of a message of
// kind `job`; run_job() reads it in the worker and does what run_worker() does.  The worker's
// parent is `forkserver`, or if that is 0 the process that encoded the job.
void encode_job(Encoder& to, const WorkersOptions& options, const internal::WorkerTask& task);
[[noreturn]] void run_job(Message message, FileDescriptor socket, pid_t forkserver = 0);

// A registered function by its name, as both a job and a warm-up have it.  take_function() throws
// if this program does not have it.
void put_function(Encoder& to, const internal::WorkerFunction& function);
const internal::WorkerFunction& take_function(Decoder& from);

// Flushes the standard streams only: fflush(nullptr) waits for a thread that reads from any stream.
void flush_streams();

}  // namespace cowshed::launch
