#include "observer.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cerrno>
#include <empty_probes.skel.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <sys/mman.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <cowshed/probes/support.h>

#include "tool.h"

namespace cowshed::bench {
namespace {

class Nothing final : public Observer {
 public:
  std::uint64_t stop() override { return 0; }
};

class EmptyPrograms final : public Observer {
 public:
  EmptyPrograms() : skeleton_(empty_probes_bpf__open_and_load()) {
    if (skeleton_ == nullptr || empty_probes_bpf__attach(skeleton_) != 0)
      throw std::runtime_error("the empty programs cannot be attached");
    check();
  }
  ~EmptyPrograms() override { empty_probes_bpf__destroy(skeleton_); }
  std::uint64_t stop() override {
    empty_probes_bpf__detach(skeleton_);
    return 0;
  }

 private:
  // That a fault of ours runs them: the kernel counts their runs while it is asked to.
  void check() const {
    static bool is_checked = false;
    if (std::exchange(is_checked, true)) return;
    const int statistics = bpf_enable_stats(BPF_STATS_RUN_TIME);
    if (statistics < 0) throw std::system_error(errno, std::system_category(), "BPF_ENABLE_STATS");
    constexpr std::size_t kSize = 4096;
    void* page = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page != MAP_FAILED) *static_cast<volatile char*>(page) = 1;
    munmap(page, kSize);
    for (bpf_program* program : {skeleton_->progs.on_user_fault, skeleton_->progs.on_page_alloc}) {
      bpf_prog_info info = {};
      __u32 size = sizeof info;
      if (bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &size) != 0 ||
          info.run_cnt == 0) {
        throw std::runtime_error(fmt::format("the empty program {} does not run on a fault",
                                             bpf_program__name(program)));
      }
    }
    close(statistics);
  }

  empty_probes_bpf* skeleton_;
};

class CowtopObserver final : public Observer {
 public:
  explicit CowtopObserver(pid_t pid) : tool_({cowtop_path(), "--json", "-p", std::to_string(pid)}) {
    tool_.wait_for("attached to");
  }
  std::uint64_t stop() override {
    const std::string& output = tool_.stop();
    const auto report = json_said(output);
    if (report.at("backend") != "tracepoint" || report.at("lost_events") != 0)
      throw std::runtime_error("cowtop was not exact: " + output);
    std::uint64_t copied = 0;
    for (const auto& process : report.at("processes"))
      copied += process.at("copied_pages").get<std::uint64_t>();
    return copied;
  }

 private:
  Tool tool_;
};

template <typename T>
std::unique_ptr<Observer> watch(pid_t pid) {
  if constexpr (std::is_constructible_v<T, pid_t>) return std::make_unique<T>(pid);
  else return std::make_unique<T>();
}

}  // namespace

std::string cannot_observe() {
  const auto support = probe_support();
  return support ? "" : support.error().message;
}

std::vector<ObserverKind> observers() {
  libbpf_set_print(nullptr);
  return {{"none", "nobody watches", false, watch<Nothing>},
          {"empty programs", "BPF programs that return at once, on the events of cowtop's", false,
           watch<EmptyPrograms>},
          {"cowtop", "cowtop --json -p PID", true, watch<CowtopObserver>}};
}

}  // namespace cowshed::bench
