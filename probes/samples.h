#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/base/arch/arch.h>

// Samples of copies, of new memory, and of accesses that ended in a signal, with the state of the
// thread.
namespace cowshed {

struct SamplingOptions {
  // One in this many copies of each thread is sampled, at a random position.  1: all; 0: none, at
  // no cost.
  std::uint32_t period = 0;
  // After this many samples of all processes beyond `samples_per_second`, and when the buffer
  // fills, the period of all doubles; the same of new memory.  0: never.
  std::uint32_t samples_of_period = 0;
  std::uint32_t samples_per_second = 32;
  std::uint32_t stack_bytes = 8192;      // of each sample; at most 16384
  std::uint32_t buffer_bytes = 4 << 20;  // for pending samples; a power of two of pages
};

using arch::Register;

// failed: no copy, but an access that the kernel answered with SIGSEGV or SIGBUS.  Sampled are the
// first two of each thread, and the one that ends the process.  fresh: no copy, but a page of new
// anonymous memory.
enum class CopyClass : std::uint8_t { anonymous, file, failed, fresh };

enum class AccessFailure : std::uint8_t {
  none,
  not_inherited,  // the parent has it, with MADV_DONTFORK
  not_mapped,
  read_only,
  no_access,
  not_executable,
  no_page,  // beyond the end of a file, say
  other,
};

// What a system call's first argument is, as a file descriptor.
enum class Descriptor : std::uint8_t {
  none,    // it is no open descriptor, or a 32-bit program's
  file,    // a file, or a block device
  stream,  // a pipe, a FIFO or a socket
  other,   // a terminal, /dev/urandom, an eventfd...
};

// The memory around a written address, as it was before the write: three lines of 64 bytes, with
// the address in the middle one, as far as they are in its page.
struct MemoryAround {
  static constexpr std::size_t kLineBytes = 64;
  static constexpr std::size_t kLines = 3;
  std::array<std::uint64_t, kLines * kLineBytes / sizeof(std::uint64_t)> words{};
  std::uint64_t begin = 0;                 // the address of the first word
  std::array<bool, kLines> is_readable{};  // by line

  // Returns the aligned word of 8 bytes at `address`; nullopt: not read.
  std::optional<std::uint64_t> word(std::uint64_t address) const {
    const std::uint64_t offset = address - begin;
    if (address % sizeof(std::uint64_t) != 0 || offset >= kLines * kLineBytes) return std::nullopt;
    if (!is_readable.at(offset / kLineBytes)) return std::nullopt;
    return words.at(offset / sizeof(std::uint64_t));
  }
};

// A code object of CPython, read when a sample first met it.
struct PythonCode {
  std::string function;  // co_qualname
  std::string file;      // co_filename
  int first_line = 0;
  std::vector<std::uint8_t> lines;  // co_linetable, its readable beginning
};

// A call of a Python function that a sampled thread was in.
struct PythonFrame {
  std::shared_ptr<const PythonCode> code;  // null: could not be read
  std::uint32_t instruction = 0;           // in code units of 2 bytes
  bool is_entry = false;                   // called by C code, whose native frames come next
};

// The numbers of a 32-bit program's system calls are others.  They begin here.
inline constexpr std::uint64_t kSystemCallsOf32Bits = std::uint64_t{1} << 32U;

// One copy, and the thread at that moment.  A value.
struct CopySample {
  std::uint64_t process_id = 0;   // ProcessCounts::id
  int pid = 0;                    // as ProcessCounts::pid
  std::uint64_t execs = 0;        // of the process before the copy: tells its programs apart
  std::uint64_t copies = 1;       // or fresh pages, that this sample stands for
  std::uint64_t missed = 0;       // fresh pages before, for whose samples there was no room
  std::uint64_t address = 0;      // that was written, or not accessible
  std::uint64_t risen_bytes = 0;  // of new memory, as ProcessCounts::most_risen_bytes: until then
  CopyClass copy_class = CopyClass::anonymous;
  AccessFailure failure = AccessFailure::none;
  bool is_handled = false;   // the failure: by the program's handler of the signal
  std::string arena;         // name of the frozen arena, as in ArenaCount; empty: none
  bool is_of_stack = false;  // between the stack pointer and the end of the stack
  bool user_mode = true;     // else the kernel wrote for the program
  bool is_32_bit = false;    // the code that runs, or that made the system call
  Descriptor descriptor = Descriptor::none;  // of `system_call`
  // The number of the system call in which the kernel copied; nullopt: none, as in the delivery of
  // a signal.
  std::optional<std::uint64_t> system_call;
  // The user registers at the store.  If the kernel wrote: at the entry of the system call, with
  // rip after the instruction, without rcx and r11.
  std::array<std::uint64_t, arch::kRegisters> registers{};
  // In user mode: the readable bytes at rip.
  std::array<std::uint8_t, 16> instruction{};
  std::size_t instruction_bytes = 0;
  MemoryAround around;
  std::vector<std::uint8_t> stack;  // the readable part from rsp upwards
  // Of a thread of CPython, innermost first.  Empty: it is none, or its interpreter is not known.
  std::vector<PythonFrame> python;
  bool is_python_cut = false;  // `python` lacks callers, which could not be read
  bool is_in_code = false;     // of Python that runs: the interpreter rewrites it
  // The type of the Python object to which the address belongs, as far as its header says it, and
  // the distance of the address from it: -16 for the collector's links.  Empty: none.
  std::string object_type;
  std::int32_t object_offset = 0;
  // The address of the type's name, which the process itself may not have in memory; 0: no type.
  std::uint64_t object_type_name_at = 0;
  // The parent's stack at the fork that made the process; at most with its first sample.
  std::shared_ptr<const CopySample> fork;

  std::uint64_t operator[](Register name) const {
    return registers[static_cast<std::size_t>(name)];  // NOLINT(*-constant-array-index)
  }
};

// Samples, and the copies that they stand for.
struct SampleSum {
  std::uint64_t samples = 0;
  std::uint64_t copies = 0;
  SampleSum& operator+=(const SampleSum& other) {
    samples += other.samples;
    copies += other.copies;
    return *this;
  }
  SampleSum& operator-=(const SampleSum& other) {
    samples -= other.samples;
    copies -= other.copies;
    return *this;
  }
};

// The samples since the probes were loaded, without those of new memory.  emitted == received +
// lost, once all were taken.
struct SampleCounts {
  std::uint64_t emitted = 0;
  std::uint64_t received = 0;
  std::uint64_t lost = 0;  // the buffer was full
};

}  // namespace cowshed
