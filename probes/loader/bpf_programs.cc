#include <algorithm>
#include <array>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <string>
#include <sys/mman.h>
#include <sys/resource.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/base/try.h>
#include <cowshed/probes/loader/bpf_programs.h>
#include <cowshed/probes/loader/btf_constants.h>
#include <cowshed/probes/loader/libbpf_log.h>
#include <cowshed/probes/loader/online_cpus.h>

// The skeleton needs the types of record.h.
#include <cow.skel.h>

namespace cowshed {
namespace {

constexpr std::size_t kMostDescriptors = 56;  // of programs, maps and links

std::size_t open_descriptors(std::size_t limit) {
  std::error_code failed;
  const std::filesystem::directory_iterator own("/proc/self/fd", failed);
  return failed ? limit : static_cast<std::size_t>(std::distance(own, {})) - 1;
}

tl::unexpected<Error> refused(std::string_view step, int error, const LibbpfLog& text) {
  const int number = error < 0 ? -error : error;
  const bool is_permission = number == EPERM || number == EACCES;
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  const std::size_t open = std::min<rlim_t>(open_descriptors(limit.rlim_cur), limit.rlim_cur);
  // libbpf reports a lack of descriptors only for some calls, and in its own words.
  if (const std::size_t left = limit.rlim_cur - open; left < kMostDescriptors && !is_permission) {
    return tl::make_unexpected(
        Error{ErrorCode::unsupported, EMFILE,
              std::string(step) + ": they need more file descriptors than the " +
                  std::to_string(left) + " that are left; raise the limit (ulimit -n " +
                  std::to_string(std::max<std::size_t>(256, open + 2 * kMostDescriptors)) + ")"});
  }
  const auto code = is_permission ? ErrorCode::permission_denied : ErrorCode::unsupported;
  std::string reason = text.reason();
  // Where securityfs is not mounted, as in a container, probe_support() does not see the lockdown.
  if (reason.find("bpf_probe_read") != reason.npos) {
    reason =
        "the kernel lets no program read its memory, as in lockdown mode confidentiality (boot "
        "with lockdown=integrity or without it)";
  }
  return tl::make_unexpected(
      Error{code, number,
            std::string(step) + ": " + (reason.empty() ? std::strerror(number) : reason.c_str())});
}

// Runs an iterator once, by reading from it, and appends its output to `output`.
Expected<void> run_iterator(const bpf_link* link, std::vector<char>& output) {
  const int fd = bpf_iter_create(bpf_link__fd(link));
  if (fd < 0) return system_error("bpf_iter_create", -fd);
  std::array<char, 65536> chunk;
  ssize_t got = 0;
  do {
    got = read(fd, chunk.data(), chunk.size());
    if (got > 0) output.insert(output.end(), chunk.begin(), chunk.begin() + got);
  } while (got > 0 || (got < 0 && (errno == EINTR || errno == EAGAIN)));
  const int error = errno;
  close(fd);
  if (got < 0) return system_error("reading a BPF iterator", error);
  return {};
}

// Whether a program may run where the kernel enters the function of that BTF ID, which takes a
// function tracer, and a machine that permits it.
bool may_enter(std::uint32_t function) {
  const std::array<bpf_insn, 2> nothing = {
      bpf_insn{.code = BPF_ALU64 | BPF_MOV | BPF_K,
               .dst_reg = BPF_REG_0,
               .src_reg = 0,
               .off = 0,
               .imm = 0},
      bpf_insn{.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0}};
  bpf_prog_load_opts options = {};
  options.sz = sizeof options;
  options.expected_attach_type = BPF_TRACE_FENTRY;
  options.attach_btf_id = function;
  const FileDescriptor program(bpf_prog_load(BPF_PROG_TYPE_TRACING, "cowshed_may", "Dual BSD/GPL",
                                             nothing.data(), nothing.size(), &options));
  return function != 0 && program &&
         FileDescriptor(bpf_raw_tracepoint_open(nullptr, program.get()));
}

// Runs a program of the type "syscall".  Its result is in the programs' variables.
void run_once(int program, const void* context, std::size_t size) {
  bpf_test_run_opts options = {};
  options.sz = sizeof options;
  options.ctx_in = context;
  options.ctx_size_in = static_cast<__u32>(size);
  bpf_prog_test_run_opts(program, &options);
}

// Lets a program find the direct map, through which the others read page tables, and the zero page.
// Without it (in another memory layout) they count the faults whose class is unsure.
void find_direct_map(int program) {
  constexpr std::size_t kWords = 4;  // TOKEN_WORDS of page_table.bpf.h
  struct Token {
    std::uint64_t address = 0;
    std::array<std::uint64_t, kWords> words = {};
    std::uint64_t untouched = 0;
  };
  alignas(64) std::array<std::uint64_t, kWords> token = {};  // on one page
  if (getentropy(token.data(), sizeof token) != 0) return;
  void* page = mmap(nullptr, COWSHED_PAGE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page != MAP_FAILED) (void)*static_cast<volatile char*>(page);  // maps the zero page
  Token searched = {reinterpret_cast<std::uintptr_t>(token.data()), token,
                    reinterpret_cast<std::uintptr_t>(page)};
  run_once(program, &searched, sizeof searched);
  if (page != MAP_FAILED) munmap(page, COWSHED_PAGE_BYTES);
}

// Lets a program find where the kernel counts the runs of on_page_alloc that it skips.  Without it
// each fault without an allocation is looked up in the page table.
void find_page_alloc_stats(cow_bpf& skeleton) {
  bpf_prog_info info = {};
  __u32 size = sizeof info;
  if (bpf_obj_get_info_by_fd(bpf_program__fd(skeleton.progs.on_page_alloc), &info, &size) != 0)
    return;
  skeleton.bss->page_alloc_id = info.id;
  const std::unique_ptr<bpf_link, int (*)(bpf_link*)> link(
      bpf_program__attach(skeleton.progs.find_page_alloc_stats), bpf_link__destroy);
  std::vector<char> nothing;
  if (link) (void)run_iterator(link.get(), nothing);
}

}  // namespace

struct Programs::State {
  std::unique_ptr<cow_bpf, void (*)(cow_bpf*)> skeleton{cow_bpf__open(), cow_bpf__destroy};
  BtfConstants constants;
  bool counts_forks = false;
  std::vector<int> descriptors;
  std::vector<int> must_not_miss;
};

Programs::Programs(std::unique_ptr<State> state) : state_(std::move(state)) {}
Programs::Programs(Programs&&) noexcept = default;
Programs& Programs::operator=(Programs&&) noexcept = default;
Programs::~Programs() = default;

Expected<Programs> Programs::load(const SamplingOptions& sampling) {
  const LibbpfLog text;
  auto state = std::make_unique<State>();
  cow_bpf* skeleton = state->skeleton.get();
  if (skeleton == nullptr) return refused("opening the BPF programs", errno, text);
  const BtfConstants& constants = state->constants = read_btf_constants();
  skeleton->rodata->gfp_movable = constants.gfp_movable;
  skeleton->rodata->gfp_zero = constants.gfp_zero;
  skeleton->rodata->gfp_page_cache = constants.gfp_write | constants.gfp_noretry;
  skeleton->rodata->vm_events_from_runqueue = constants.vm_events_from_runqueue;
  if (sampling.period != 0) {
    skeleton->rodata->sample_period = sampling.period;
    skeleton->rodata->samples_of_period = sampling.samples_of_period;
    skeleton->rodata->samples_per_second = std::max(sampling.samples_per_second, 1U);
    skeleton->rodata->sample_stack_bytes =
        std::min<std::uint32_t>(sampling.stack_bytes, COWSHED_STACK_BYTES);
    if (const int error = bpf_map__set_max_entries(skeleton->maps.samples, sampling.buffer_bytes);
        error != 0) {
      return refused("sizing the ring buffer of samples", error, text);
    }
  } else {
    for (bpf_map* map :
         {skeleton->maps.forks, skeleton->maps.interpreters, skeleton->maps.python_ids}) {
      bpf_map__set_max_entries(map, 1);
    }
  }
  const auto& programs = skeleton->progs;
  skeleton->rodata->may_be_preempted = constants.may_be_preempted ? 1 : 0;
  skeleton->rodata->has_collapse_order = constants.has_collapse_order ? 1 : 0;
  const auto load_if = [](bool wanted, std::initializer_list<bpf_program*> some) {
    for (bpf_program* program : some) bpf_program__set_autoload(program, wanted);
  };
  const bool enters = may_enter(constants.kernel_clone);
  state->counts_forks = enters || constants.has_events_of_memory;
  load_if(enters, {programs.on_fork, programs.on_fork_end, programs.on_fork_end_again});
  load_if(!enters && constants.has_events_of_memory,
          {programs.on_new_memory, programs.on_freed_memory, programs.on_forked});
  load_if(constants.has_collapse_events, {programs.on_isolate, programs.on_collapse});
  load_if(!constants.may_be_preempted, {programs.on_new_task});
  load_if(constants.may_be_preempted,
          {programs.on_wakeup_new, programs.on_prepare_exec, programs.on_prepare_exec_again,
           programs.on_exit_again, programs.on_free, programs.find_page_alloc_stats});
  bpf_program__set_autoattach(programs.find_page_alloc_stats, false);
  if (const int error = cow_bpf__load(skeleton); error != 0)
    return refused("loading the BPF programs", error, text);
  find_direct_map(bpf_program__fd(programs.find_direct_map));
  if (constants.may_be_preempted) find_page_alloc_stats(*skeleton);
  for (const int cpu : online_cpus()) {
    const auto number = static_cast<std::uint64_t>(cpu);
    run_once(bpf_program__fd(programs.add_cpu), &number, sizeof number);
  }
  if (const int error = cow_bpf__attach(skeleton); error != 0)
    return refused("attaching the BPF programs", error, text);
  const auto append = [](std::vector<int>& to, std::initializer_list<const bpf_program*> some) {
    for (const bpf_program* program : some)
      if (const int fd = bpf_program__fd(program); fd >= 0) to.push_back(fd);
  };
  append(state->must_not_miss, {programs.on_fork, programs.on_forked});
  if (constants.may_be_preempted) {
    append(state->must_not_miss, {programs.on_wakeup_new, programs.on_signal, programs.on_free,
                                  programs.on_isolate, programs.on_collapse});
  }
  append(state->descriptors,
         {programs.on_user_fault, programs.on_kernel_fault, programs.on_page_alloc,
          programs.on_new_task, programs.on_wakeup_new, programs.on_rename,
          programs.on_prepare_exec, programs.on_prepare_exec_again, programs.on_signal,
          programs.on_sent_signal, programs.on_exit, programs.on_exit_again, programs.on_free,
          programs.on_fork, programs.on_fork_end, programs.on_fork_end_again});
  return Programs(std::move(state));
}

int Programs::processes_map() const { return bpf_map__fd(state_->skeleton->maps.processes); }
int Programs::arenas_map() const { return bpf_map__fd(state_->skeleton->maps.arenas); }
int Programs::fork_costs_map() const { return bpf_map__fd(state_->skeleton->maps.fork_costs); }
int Programs::roots_map() const { return bpf_map__fd(state_->skeleton->maps.roots); }
bool Programs::takes_samples() const { return state_->skeleton->rodata->sample_period != 0; }
int Programs::samples_map() const { return bpf_map__fd(state_->skeleton->maps.samples); }
int Programs::alarms_map() const { return bpf_map__fd(state_->skeleton->maps.alarms); }
int Programs::interpreters_map() const { return bpf_map__fd(state_->skeleton->maps.interpreters); }
int Programs::sample_counts_map() const {
  return bpf_map__fd(state_->skeleton->maps.sample_counts);
}
const cowshed_losses& Programs::losses() const { return state_->skeleton->bss->losses; }
cowshed_memory Programs::memory(std::uint64_t id) const {
  return state_->skeleton->bss->memories[id % COWSHED_MEMORIES];
}
std::uint64_t Programs::slow_lookups() const { return state_->skeleton->bss->slow_lookups; }
std::uint64_t Programs::processes_added() const {
  return __atomic_load_n(&state_->skeleton->bss->processes_added, __ATOMIC_ACQUIRE);
}
std::uint64_t Programs::arenas_added() const {
  return __atomic_load_n(&state_->skeleton->bss->arenas_added, __ATOMIC_ACQUIRE);
}
std::optional<std::uint64_t> Programs::record_changes() const {
  // In this order, because the number of changes done is never greater than that of changes begun.
  const std::uint64_t done =
      __atomic_load_n(&state_->skeleton->bss->record_changes_done, __ATOMIC_ACQUIRE);
  const std::uint64_t begun =
      __atomic_load_n(&state_->skeleton->bss->record_changes_begun, __ATOMIC_ACQUIRE);
  if (begun != done) return std::nullopt;
  return begun;
}
bool Programs::counts_splits() const { return state_->constants.counts_splits; }
bool Programs::counts_collapses() const { return state_->constants.has_collapse_events; }
bool Programs::counts_forks() const { return state_->counts_forks; }
bool Programs::may_be_preempted() const { return state_->constants.may_be_preempted; }
std::span<const int> Programs::descriptors() const { return state_->descriptors; }
std::span<const int> Programs::must_not_miss() const { return state_->must_not_miss; }

Expected<cowshed_adoption> Programs::adopt(cowshed_adopt_mode mode) {
  cowshed_adoption& request = state_->skeleton->bss->adoption;
  request = {};
  request.mode = mode;
  std::vector<char> nothing;
  auto ran = run_iterator(state_->skeleton->links.adopt, nothing);
  const cowshed_adoption answer = request;
  request = {};
  if (!ran) return tl::make_unexpected(ran.error());
  return answer;
}

Expected<std::vector<cowshed_thread_record>> Programs::dump_threads() const {
  std::vector<char> bytes;
  TRY_VOID(run_iterator(state_->skeleton->links.dump_threads, bytes));
  std::vector<cowshed_thread_record> records(bytes.size() / sizeof(cowshed_thread_record));
  if (!records.empty())
    std::memcpy(records.data(), bytes.data(), records.size() * sizeof(cowshed_thread_record));
  return records;
}

}  // namespace cowshed
