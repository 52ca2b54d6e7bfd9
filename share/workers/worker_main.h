#pragma once

#include <functional>
#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/share/codec.h>
#include <cowshed/share/wire/content.h>
#include <cowshed/share/wire/message.h>
#include <cowshed/share/workers/function.h>

// A worker's side of its life, the same under every start method.
namespace cowshed::launch {

// What is done in the worker before its function.
struct Setup {
  pid_t parent = 0;  // whose death ends it, if asked
  bool die_with_parent = true;
  std::vector<std::string> environment;  // "NAME=value"
};

void encode(Encoder& to, const Setup& setup);
Setup decode_setup(Decoder& from);

using Body = std::function<int(const Worker&, Encoder& value)>;

// Does what `setup` says, runs the body, tells `socket` of its end, and leaves by _exit().
[[noreturn]] void run_worker(const Worker& self, FileDescriptor socket, const Setup& setup,
                             const Body& body);

// The same for a message of kind job, whose content is setup, function and arguments.
// `parent`: 0 where the setup has it.
[[noreturn]] void run_job(Message message, FileDescriptor socket, pid_t parent = 0);

// Standard streams only: fflush(nullptr) waits for a thread that sits in a read of any stream.
void flush_streams();

}  // namespace cowshed::launch
