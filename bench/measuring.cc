#include <bpf/libbpf.h>
#include <cerrno>
#include <empty_probes.skel.h>
#include <sys/mman.h>
#include <system_error>

#include <cowshed/base/arch/arch.h>

#include "family.h"
#include "process.h"
#include "subject.h"

// The work that observed.py watches: what it costs to be measured for each copied page, for a
// process beside the measured one, and for one that does not fault.
namespace cowshed::bench {
namespace {

using arch::kPage;

std::byte* pages(std::size_t count) {
  void* memory =
      mmap(nullptr, count * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::system_error(errno, std::system_category(), "mmap");
  return static_cast<std::byte*>(memory);
}

void write_each(std::byte* memory, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i)
    *reinterpret_cast<volatile std::byte*>(memory + i * kPage) = std::byte{1};
}

double ns_each(std::size_t count, const auto& work) {
  const std::uint64_t before = now_ns();
  work();
  return static_cast<double>(now_ns() - before) / static_cast<double>(count);
}

// A forked child writes to each page that it shares.
double copy(std::byte* memory, std::size_t count) {
  static auto* const took = static_cast<double*>(shared_memory(sizeof(double)));
  Child(0, [=] { *took = ns_each(count, [=] { write_each(memory, count); }); }).join();
  return *took;
}

// First touches of new pages.
double touch(std::size_t count) {
  std::byte* memory = pages(count);
  const double took = ns_each(count, [=] { write_each(memory, count); });
  munmap(memory, count * kPage);
  return took;
}

// Rounds of writes to memory that is its own already.
double compute(std::byte* memory, std::size_t count) {
  return ns_each(count, [=] {
    for (std::size_t i = 0; i < count; ++i) write_each(memory, 64);
  });
}

// Answers a question with the median of three times.
const SubjectKind measured_kind("measured", [](const Words& arguments) -> Answer {
  use_small_pages();
  const std::string work = arguments.at(0);
  const std::size_t count = std::stoull(arguments.at(1));
  std::byte* memory = pages(std::max<std::size_t>(count, 64));
  if (work == "copy") write_each(memory, count);
  else pin_to_cpu(0);
  return [=](const Words&) -> std::vector<double> {
    std::vector<double> times(3);
    for (double& time : times)
      if (work == "touch") time = touch(count);
      else time = work == "copy" ? copy(memory, count) : compute(memory, count);
    return {median(times)};
  };
});

// Until the process ends.
const SubjectKind empty_probes_kind("empty_probes", [](const Words&) -> Answer {
  empty_probes_bpf* skeleton = empty_probes_bpf__open_and_load();
  if (skeleton == nullptr || empty_probes_bpf__attach(skeleton) != 0)
    throw std::runtime_error("the empty programs cannot be attached: is this root?");
  return [](const Words&) { return std::vector<double>(); };
});

}  // namespace
}  // namespace cowshed::bench
