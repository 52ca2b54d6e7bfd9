#include "wp_faults.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cerrno>
#include <utility>
#include <wp_faults.skel.h>

namespace cowshed::test {

struct WpFaults::State {
  wp_faults_bpf* skeleton = nullptr;

  explicit State(wp_faults_bpf* opened) : skeleton(opened) {}
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { wp_faults_bpf__destroy(skeleton); }
};

WpFaults::WpFaults(std::unique_ptr<State> state) : state_(std::move(state)) {}
WpFaults::WpFaults(WpFaults&&) noexcept = default;
WpFaults& WpFaults::operator=(WpFaults&&) noexcept = default;
WpFaults::~WpFaults() = default;

Expected<WpFaults> WpFaults::load() {
  auto state = std::make_unique<State>(wp_faults_bpf__open());
  // Where it is refused, that is no news: libbpf need not print it.
  const auto before = libbpf_set_print(nullptr);
  int error = state->skeleton == nullptr ? -ENOMEM : wp_faults_bpf__load(state->skeleton);
  if (error == 0) {
    error = wp_faults_bpf__attach(state->skeleton);
  }
  libbpf_set_print(before);
  if (error != 0) {
    return system_error("fentry/do_wp_page", -error);
  }
  return WpFaults(std::move(state));
}

std::uint64_t WpFaults::count(pid_t process) const {
  const auto key = static_cast<std::uint32_t>(process);
  std::uint64_t value = 0;  // of a process without any, which the map does not have
  bpf_map__lookup_elem(state_->skeleton->maps.wp_faults, &key, sizeof key, &value, sizeof value, 0);
  return value;
}

}  // namespace cowshed::test
