#pragma once

#include <cstdint>

namespace cowshed {

// Where a CPython interpreter (3.11 to 3.15, with its lock) keeps its threads, frames and code: an
// address, and offsets in bytes.  They differ between versions, and partly between builds.
struct PythonLayout {
  std::uint64_t runtime = 0;           // the address of _PyRuntime
  std::uint32_t interpreters = 0;      // in _PyRuntime: the first interpreter
  std::uint32_t next_interpreter = 0;  // in an interpreter
  std::uint32_t threads = 0;           // in an interpreter: its first thread
  std::uint32_t next_thread = 0;       // in a thread
  std::uint32_t thread_id = 0;         // in a thread: as pthread_self()
  std::uint32_t current_frame = 0;     // in a thread, or in a thread's cframe
  std::uint32_t cframe = 0;            // in a thread, before 3.13; 0: none
  std::uint32_t frame_bytes = 0;       // of a frame, without its variables; at most 128
  std::uint32_t previous = 0;          // in a frame: its caller
  std::uint32_t executable = 0;        // in a frame: its code object, with tags in the lowest bits
  std::uint32_t instruction = 0;       // in a frame: the address of the instruction that runs
  std::uint32_t owner = 0;             // in a frame, a byte: who allocated the frame
  std::uint32_t is_entry = 0;          // in a frame, a byte, in 3.11; 0: none
  std::uint32_t file = 0;              // in a code object, as the next three
  std::uint32_t function = 0;
  std::uint32_t line_table = 0;
  std::uint32_t first_line = 0;
  std::uint32_t code = 0;        // in a code object: its first instruction; at most 256
  std::uint32_t ascii_text = 0;  // in a str of ASCII: its text
  std::uint32_t wide_text = 0;   // in any other str

  bool operator==(const PythonLayout&) const = default;
};

}  // namespace cowshed
