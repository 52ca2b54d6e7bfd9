#include <algorithm>
#include <cstring>
#include <elfutils/libdwfl.h>
#include <fmt/format.h>
#include <functional>
#include <iterator>
#include <optional>
#include <utility>

#include <cowshed/cow/dwfl_binary.h>
#include <cowshed/cow/stack_unwinder.h>

namespace cowshed::cow {
namespace {

constexpr std::size_t kMostFrames = 128;
constexpr std::size_t kMostKnown = 4000;
constexpr pid_t kThread = 1;  // any: a sample has one

bool is_file(const Mapping& mapping) { return mapping.inode != 0 && mapping.path.starts_with('/'); }

bool is_vdso(const Mapping& mapping) { return mapping.path == "[vdso]"; }

// Of code or, read-only, of what the linker put around it.
bool belongs_to_code(const Mapping& mapping) { return is_file(mapping) || is_vdso(mapping); }

}  // namespace

struct StackUnwinder::Walk {
  const CopySample* sample = nullptr;
  std::uint64_t misses =
      0;  // reads beyond the copy: libdwfl ends then as at a thread's first frame
  std::vector<std::uint64_t> callers;
};

struct StackUnwinder::Callbacks {
  // Debug information that some file next to a binary may have is not worth opening for its frames.
  static int find_debuginfo(Dwfl_Module* /*module*/, void** /*userdata*/, const char* /*name*/,
                            Dwarf_Addr /*base*/, const char* /*file*/, const char* /*link*/,
                            GElf_Word /*crc*/, char** /*found*/) {
    return -1;
  }

  static pid_t next_thread(Dwfl* /*dwfl*/, void* walk, void** thread) {
    if (*thread != nullptr) return 0;
    *thread = walk;
    return kThread;
  }

  static bool get_thread(Dwfl* /*dwfl*/, pid_t /*tid*/, void* walk, void** thread) {
    *thread = walk;
    return true;
  }

  static bool set_initial_registers(Dwfl_Thread* thread, void* argument) {
    const auto* walk = static_cast<const Walk*>(argument);
    return ::dwfl_thread_state_registers(thread, 0, kRegisters, walk->sample->registers.data());
  }

  static bool memory_read(Dwfl* /*dwfl*/, Dwarf_Addr address, Dwarf_Word* result, void* argument) {
    auto* walk = static_cast<Walk*>(argument);
    const auto& stack = walk->sample->stack;
    const std::uint64_t offset = address - (*walk->sample)[Register::rsp];
    if (address < (*walk->sample)[Register::rsp] || stack.size() < sizeof *result ||
        offset > stack.size() - sizeof *result) {
      ++walk->misses;
      return false;
    }
    std::memcpy(result, stack.data() + offset, sizeof *result);
    return true;
  }

  static int frame(Dwfl_Frame* state, void* argument) {
    auto* walk = static_cast<Walk*>(argument);
    Dwarf_Addr pc = 0;
    bool is_activation = false;
    if (!::dwfl_frame_pc(state, &pc, &is_activation) || pc == 0) return DWARF_CB_ABORT;
    // A return address may lie beyond the end of the function that made the call.
    const bool interrupted = walk->callers.empty() || is_activation;
    walk->callers.push_back(interrupted ? pc : pc - 1);
    return walk->callers.size() < kMostFrames ? DWARF_CB_OK : DWARF_CB_ABORT;
  }
};

void StackUnwinder::End::operator()(Dwfl* dwfl) const { ::dwfl_end(dwfl); }

StackUnwinder::StackUnwinder(const std::vector<Mapping>& mappings, pid_t pid, Binaries& binaries)
    : walk_(std::make_unique<Walk>()) {
  static char* no_path = nullptr;
  static const Dwfl_Callbacks callbacks = {.find_elf = find_reported_elf,
                                           .find_debuginfo = Callbacks::find_debuginfo,
                                           .section_address = ::dwfl_offline_section_address,
                                           .debuginfo_path = &no_path};
  for (const Mapping& mapping : mappings) {
    if (mapping.executable) {
      code_.push_back({mapping.begin, mapping.end, !mapping.is_memory()});
    }
  }
  dwfl_.reset(::dwfl_begin(&callbacks));
  if (!dwfl_) return;
  ::dwfl_report_begin(dwfl_.get());
  report_modules(mappings, pid, binaries);
  ::dwfl_report_end(dwfl_.get(), nullptr, nullptr);
  static const Dwfl_Thread_Callbacks thread = {
      .next_thread = Callbacks::next_thread,
      .get_thread = Callbacks::get_thread,
      .memory_read = Callbacks::memory_read,
      .set_initial_registers = Callbacks::set_initial_registers,
      .detach = nullptr,
      .thread_detach = nullptr};
  attached_ = ::dwfl_attach_state(dwfl_.get(), nullptr, kThread, &thread, walk_.get());
}

StackUnwinder::~StackUnwinder() = default;

// A file's mappings follow one another, with nothing or its .bss between.
void StackUnwinder::report_modules(const std::vector<Mapping>& mappings, pid_t pid,
                                   Binaries& binaries) {
  for (auto at = mappings.begin(); at != mappings.end();) {
    if (!belongs_to_code(*at)) {
      ++at;
      continue;
    }
    const auto first = at;
    const auto is_same = [&](const Mapping& each) {
      return each.path == first->path && each.inode == first->inode;
    };
    std::uint64_t end = at->end;
    auto code = mappings.end();
    for (; at != mappings.end() && is_same(*at); ++at) {
      if (at->executable) code = at;
      end = at->end;
    }
    if (code == mappings.end()) continue;
    const Binary* binary = is_vdso(*first) ? binaries.vdso() : binaries.open(*code, pid);
    if (!binary->elf && first->is_memory()) continue;  // generated code
    report_binary(*dwfl_, *binary, first->begin, end);
  }
}

std::string StackUnwinder::code_layout(const std::vector<Mapping>& mappings) {
  std::string text;
  for (const Mapping& mapping : mappings) {
    if (mapping.executable) {
      fmt::format_to(std::back_inserter(text), "{:x}-{:x} {} {}\n", mapping.begin, mapping.end,
                     mapping.inode, mapping.path);
    }
  }
  return text;
}

const StackUnwinder::Code* StackUnwinder::code_at(std::uint64_t word) const {
  const auto after =
      std::upper_bound(code_.begin(), code_.end(), word,
                       [](std::uint64_t value, const Code& code) { return value < code.begin; });
  return after != code_.begin() && word < std::prev(after)->end ? &*std::prev(after) : nullptr;
}

bool StackUnwinder::is_code(std::uint64_t word) const { return code_at(word) != nullptr; }

bool StackUnwinder::is_of_file(std::uint64_t pc) const {
  const Code* code = code_at(pc);
  return code != nullptr && code->of_file;
}

// All that decides how a stack is unwound: where it was, and which words in the registers and on
// the stack point to code or, counted from its top, into the stack.
std::size_t StackUnwinder::fingerprint(const CopySample& sample) const {
  const std::uint64_t top = sample[Register::rsp];
  std::string text;
  const auto add = [&](std::uint64_t place, std::uint64_t word) {
    const std::uint64_t depth = word - top;
    const bool in_stack = depth < sample.stack.size();
    if (!in_stack && !is_code(word)) return;
    const std::uint64_t value = in_stack ? depth : word;
    text.append(reinterpret_cast<const char*>(&place), sizeof place);
    text.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  for (std::size_t i = 0; i < kRegisters; ++i) add(UINT64_MAX - i, sample.registers[i]);
  for (std::size_t at = 0; at + sizeof(std::uint64_t) <= sample.stack.size();
       at += sizeof(std::uint64_t)) {
    std::uint64_t word = 0;
    std::memcpy(&word, sample.stack.data() + at, sizeof word);
    add(at, word);
  }
  return std::hash<std::string>()(text);  // the text takes kilobytes
}

CodeAddress StackUnwinder::located(std::uint64_t pc) const {
  Dwfl_Module* module = ::dwfl_addrmodule(dwfl_.get(), pc);
  std::uint64_t begin = 0;
  const Binary* binary = binary_of(module, begin);
  // libdwfl gives what lies in a gap to the module before it: generated code, say.
  if (binary == nullptr || !is_of_file(pc)) return {nullptr, pc};
  GElf_Addr bias = 0;
  if (::dwfl_module_getelf(module, &bias) == nullptr) bias = begin;
  return {binary, pc - bias};
}

CodeStack StackUnwinder::walk(const CopySample& sample) {
  walk_->sample = &sample;
  walk_->misses = 0;
  walk_->callers.clear();
  int outcome = -1;
  if (attached_) {
    outcome = ::dwfl_getthread_frames(dwfl_.get(), kThread, Callbacks::frame, walk_.get());
  }
  if (walk_->callers.empty()) walk_->callers.push_back(sample[Register::rip]);
  CodeStack stack;
  stack.truncated = outcome != 0 || walk_->misses != 0;
  for (const std::uint64_t pc : walk_->callers) stack.addresses.push_back(located(pc));
  return stack;
}

const CodeStack& StackUnwinder::unwind(const CopySample& sample) {
  if (known_.size() >= kMostKnown) known_.clear();
  const auto [entry, is_new] = known_.try_emplace(fingerprint(sample));
  if (is_new) entry->second = walk(sample);
  return entry->second;
}

}  // namespace cowshed::cow
