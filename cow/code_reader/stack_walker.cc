#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

#include <cowshed/cow/code_reader/stack_walker.h>

namespace cowshed::cow {
namespace {

constexpr pid_t kThread = 1;  // any number: a sample has one thread

}  // namespace

struct StackWalker::State {
  StackWalker* walker = nullptr;
  AtWorkOn at_work_on;
  const CopySample* sample = nullptr;
  // Reads beyond the copied stack.  libdwfl then ends the walk as if at a thread's first frame.
  std::uint64_t misses = 0;
  struct Caller {
    std::uint64_t pc = 0;
    std::uint64_t depth = CodeReader::Location::kNotOnStack;
  };
  std::vector<Caller> callers;
  std::vector<Caller> reads;  // the words, and where they are
  std::size_t next_read = 0;  // reads before it are of known callers
};

struct StackWalker::Callbacks {
  static pid_t next_thread(Dwfl* /*dwfl*/, void* state, void** thread) {
    if (*thread != nullptr) return 0;
    *thread = state;
    return kThread;
  }

  static bool get_thread(Dwfl* /*dwfl*/, pid_t /*tid*/, void* state, void** thread) {
    *thread = state;
    return true;
  }

  static bool set_initial_registers(Dwfl_Thread* thread, void* argument) {
    const auto* state = static_cast<const State*>(argument);
    const auto& registers = state->sample->registers;
    return ::dwfl_thread_state_registers(thread, 0, arch::kRegisters, registers.data());
  }

  static bool memory_read(Dwfl* /*dwfl*/, Dwarf_Addr address, Dwarf_Word* result, void* argument) {
    auto* state = static_cast<State*>(argument);
    const auto& stack = state->sample->stack;
    const std::uint64_t offset = address - (*state->sample)[Register::stack_pointer];
    if (address < (*state->sample)[Register::stack_pointer] || stack.size() < sizeof *result ||
        offset > stack.size() - sizeof *result) {
      ++state->misses;
      return false;
    }
    std::memcpy(result, stack.data() + offset, sizeof *result);
    state->reads.push_back({*result, offset});
    return true;
  }

  static int frame(Dwfl_Frame* frame, void* argument) {
    auto* state = static_cast<State*>(argument);
    Dwarf_Addr pc = 0;
    bool is_activation = false;
    if (!::dwfl_frame_pc(frame, &pc, &is_activation) || pc == 0) return DWARF_CB_ABORT;
    // A return address may lie beyond the end of the function that made the call.
    const bool interrupted = state->callers.empty() || is_activation;
    State::Caller caller{interrupted ? pc : pc - 1};
    const auto rest = state->reads.begin() + static_cast<std::ptrdiff_t>(state->next_read);
    const auto read = std::ranges::find(rest, state->reads.end(), pc, &State::Caller::pc);
    if (read != state->reads.end()) {
      caller.depth = read->depth;
      state->next_read = static_cast<std::size_t>(read - state->reads.begin()) + 1;
    }
    state->callers.push_back(caller);
    state->at_work_on(state->walker->located(caller.pc).binary);
    return state->callers.size() < CodeReader::kMostFrames ? DWARF_CB_OK : DWARF_CB_ABORT;
  }
};

StackWalker::StackWalker(const std::vector<Module>& modules, AtWorkOn at_work_on)
    : state_(std::make_unique<State>()), dwfl_(::dwfl_begin(dwfl_callbacks())) {
  state_->walker = this;
  state_->at_work_on = std::move(at_work_on);
  if (!dwfl_) return;
  ::dwfl_report_begin(dwfl_.get());
  for (const Module& module : modules)
    report_binary(*dwfl_, *module.binary, module.begin, module.end);
  ::dwfl_report_end(dwfl_.get(), nullptr, nullptr);
  static const Dwfl_Thread_Callbacks thread = {
      .next_thread = Callbacks::next_thread,
      .get_thread = Callbacks::get_thread,
      .memory_read = Callbacks::memory_read,
      .set_initial_registers = Callbacks::set_initial_registers,
      .detach = nullptr,
      .thread_detach = nullptr};
  attached_ = ::dwfl_attach_state(dwfl_.get(), nullptr, kThread, &thread, state_.get());
}

StackWalker::~StackWalker() = default;

CodeReader::Location StackWalker::located(std::uint64_t pc) const {
  Dwfl_Module* module = ::dwfl_addrmodule(dwfl_.get(), pc);
  std::uint64_t begin = 0;
  const DwflBinary* binary = binary_of(module, begin);
  if (binary == nullptr) return {0, pc, pc};
  GElf_Addr bias = 0;
  if (::dwfl_module_getelf(module, &bias) == nullptr) bias = begin;
  return {binary->id, pc - bias, pc};
}

CodeReader::Walk StackWalker::walk(const CopySample& sample) {
  state_->sample = &sample;
  state_->misses = 0;
  state_->callers.clear();
  state_->reads.clear();
  state_->next_read = 0;
  int outcome = -1;
  if (attached_)
    outcome = ::dwfl_getthread_frames(dwfl_.get(), kThread, Callbacks::frame, state_.get());
  if (state_->callers.empty()) state_->callers.push_back({sample[Register::instruction_pointer]});
  CodeReader::Walk walk;
  walk.truncated = outcome != 0 || state_->misses != 0;
  for (const State::Caller& caller : state_->callers)
    walk.locations.emplace_back(located(caller.pc)).depth = caller.depth;
  return walk;
}

}  // namespace cowshed::cow
