#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <empty_probes.skel.h>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <vector>

#include "family.h"
#include "machine.h"
#include "peer.h"
#include "subject.h"

// The work that observed.py watches: what it costs to be measured for each copied page, for a
// process beside the measured one, and for one that does not fault.
namespace cowshed::bench {
namespace {

constexpr std::size_t kPage = 4096;
constexpr int kTimes = 3;  // an answer is the median of so many times

std::byte* pages(std::size_t count) {
  void* memory =
      mmap(nullptr, count * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::system_error(errno, std::system_category(), "mmap");
  return static_cast<std::byte*>(memory);
}

void write_each(std::byte* memory, std::size_t count, std::size_t stride = 1) {
  for (std::size_t i = 0; i < count; ++i)
    *reinterpret_cast<volatile std::byte*>(memory + i * stride * kPage) = std::byte{1};
}

// A forked child writes to each page that it shares; with `stride` 2, each lies in a mapping of its
// own.
class Copies {
 public:
  Copies(std::size_t count, std::size_t stride)
      : count_(count),
        stride_(stride),
        memory_(pages(count * stride)),
        took_(static_cast<double*>(shared_memory(sizeof *took_))) {
    write_each(memory_, count, stride_);
    for (std::size_t i = 0; stride == 2 && i < count; ++i)
      if (mprotect(memory_ + (2 * i + 1) * kPage, kPage, PROT_READ) != 0)
        throw std::system_error(errno, std::system_category(), "mprotect");
  }

  double operator()() const {
    const pid_t pid = fork();
    if (pid == 0) {
      pin_to_cpu(0);
      const std::uint64_t before = now_ns();
      write_each(memory_, count_, stride_);
      *took_ = static_cast<double>(now_ns() - before) / static_cast<double>(count_);
      _exit(0);
    }
    int status = -1;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
      throw std::system_error(errno, std::system_category(), "fork");
    return *took_;
  }

 private:
  std::size_t count_;
  std::size_t stride_;  // in pages
  std::byte* memory_;
  double* took_;  // ns a page, shared with the child
};

// First touches of new pages.
double touch(std::size_t count) {
  std::byte* memory = pages(count);
  const std::uint64_t before = now_ns();
  write_each(memory, count);
  const auto took = static_cast<double>(now_ns() - before);
  munmap(memory, count * kPage);
  return took / static_cast<double>(count);
}

// Writes to memory that is its own already.
double compute(std::size_t count) {
  constexpr std::size_t kOwn = 64;
  static std::byte* const memory = pages(kOwn);
  const std::uint64_t before = now_ns();
  for (std::size_t i = 0; i < count; ++i) write_each(memory, kOwn);
  return static_cast<double>(now_ns() - before) / static_cast<double>(count);
}

// Answers a question with the median ns a page, or a round.
const SubjectKind kMeasured("measured", [](const Words& arguments) -> Answer {
  use_small_pages();
  const std::string work = arguments.at(0);
  const std::size_t count = std::stoull(arguments.at(1));
  const auto times = [](auto once) -> std::vector<double> {
    std::vector<double> all(kTimes);
    for (double& time : all) time = once();
    return {median(all)};
  };
  if (work == "copy" || work == "copy_in_many_mappings") {
    const Copies copies(count, work == "copy" ? 1 : 2);
    return [=](const Words&) { return times(copies); };
  }
  pin_to_cpu(0);
  if (work == "touch") return [=](const Words&) { return times([&] { return touch(count); }); };
  return [=](const Words&) { return times([&] { return compute(count); }); };
});

// BPF programs that return at once, on the events of cowtop's, until the process ends.
const SubjectKind kEmptyProbes("empty_probes", [](const Words&) -> Answer {
  libbpf_set_print(nullptr);
  empty_probes_bpf* skeleton = empty_probes_bpf__open_and_load();
  if (skeleton == nullptr || empty_probes_bpf__attach(skeleton) != 0)
    throw std::runtime_error("the empty programs cannot be attached: is this root?");
  const int statistics = bpf_enable_stats(BPF_STATS_RUN_TIME);
  touch(1);
  for (const bpf_program* program :
       {skeleton->progs.on_user_fault, skeleton->progs.on_page_alloc}) {
    bpf_prog_info info = {};
    __u32 size = sizeof info;
    if (bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &size) != 0 || info.run_cnt == 0)
      throw std::runtime_error("an empty program does not run on a fault");
  }
  close(statistics);
  return [](const Words&) { return std::vector<double>(); };
});

}  // namespace
}  // namespace cowshed::bench
