#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

// Between the skeleton of the probes and libbpf: another object than the one inside the skeleton.
// The names are the linker's, see ld(1), --wrap.
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
extern "C" int __real_bpf_object__open_skeleton(bpf_object_skeleton* skeleton,
                                                const bpf_object_open_opts* options);

extern "C" int __wrap_bpf_object__open_skeleton(bpf_object_skeleton* skeleton,
                                                const bpf_object_open_opts* options) {
  static const std::string mutant = [] {
    std::ifstream file(std::getenv("COWSHED_MUTANT"), std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }();
  if (std::string_view(skeleton->name) == "cow_bpf") {
    skeleton->data = mutant.data();
    skeleton->data_sz = mutant.size();
  }
  return __real_bpf_object__open_skeleton(skeleton, options);
}

// With COWSHED_PREEMPTED the kernel's BTF has what tells preemptible tracepoints.
extern "C" btf* __real_btf__load_vmlinux_btf();

extern "C" btf* __wrap_btf__load_vmlinux_btf() {
  btf* const kernel = __real_btf__load_vmlinux_btf();
  if (kernel == nullptr || std::getenv("COWSHED_PREEMPTED") == nullptr) return kernel;
  btf* const more = btf__new_empty_split(kernel);  // which refers to `kernel`
  btf__add_typedef(more, "class_srcu_fast_notrace_t", btf__add_struct(more, "srcu_guard", 0));
  return more;
}
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
