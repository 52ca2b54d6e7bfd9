#include "kernel_counts.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cerrno>
#include <exceptions.skel.h>
#include <wp_faults.skel.h>

namespace cowshed::test {
namespace {

template <class Skeleton>
Expected<void> start(Skeleton* skeleton, const char* what, int (*load)(Skeleton*),
                     int (*attach)(Skeleton*)) {
  // Where it is refused, that is no news: libbpf need not print it.
  const auto before = libbpf_set_print(nullptr);
  int error = skeleton == nullptr ? -ENOMEM : load(skeleton);
  if (error == 0) error = attach(skeleton);
  libbpf_set_print(before);
  if (error != 0) return system_error(what, -error);
  return {};
}

}  // namespace

Expected<KernelCount> KernelCount::wp_faults() {
  const std::shared_ptr<wp_faults_bpf> programs(wp_faults_bpf__open(), wp_faults_bpf__destroy);
  return start(programs.get(), "fentry/do_wp_page", wp_faults_bpf__load, wp_faults_bpf__attach)
      .map([&] { return KernelCount(programs, programs->maps.counts); });
}

Expected<KernelCount> KernelCount::exceptions() {
  const std::shared_ptr<exceptions_bpf> programs(exceptions_bpf__open(), exceptions_bpf__destroy);
  return start(programs.get(), "raw_tp/page_fault", exceptions_bpf__load, exceptions_bpf__attach)
      .map([&] { return KernelCount(programs, programs->maps.counts); });
}

std::uint64_t KernelCount::of(pid_t process) const {
  const auto key = static_cast<std::uint32_t>(process);
  std::uint64_t value = 0;  // of a process without any, which the map does not have
  bpf_map__lookup_elem(counts_, &key, sizeof key, &value, sizeof value, 0);
  return value;
}

}  // namespace cowshed::test
