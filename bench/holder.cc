#include "holder.h"

#include <algorithm>
#include <cerrno>
#include <fmt/format.h>
#include <memory_resource>
#include <stdexcept>
#include <sys/prctl.h>
#include <system_error>

#include "machine.h"

namespace cowshed::bench {
namespace {

Arena make_arena(std::size_t bytes) {
  auto arena = Arena::create({.name = "bench", .capacity = bytes + bytes / 4 + 64_MiB});
  if (!arena) throw std::runtime_error(arena.error().message);
  return std::move(*arena);
}

}  // namespace

nlohmann::json Holding::configuration() const {
  return {{"memory", memory}, {"layout", layout}, {"bytes", bytes}};
}

std::vector<std::string> Holding::environment() const {
  if (memory == "huge heap") return {"GLIBC_TUNABLES=glibc.malloc.hugetlb=1"};
  return {};
}

Holder::Holder(const nlohmann::json& configuration)
    : arena_(make_arena(
          configuration["memory"] == "arena" ? configuration["bytes"].get<std::size_t>() : 0)),
      in_arena_(configuration["memory"] == "arena"),
      bytes_(configuration["bytes"]) {
  if (configuration["memory"] == "heap" && prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0)
    throw std::system_error(errno, std::system_category(), "PR_SET_THP_DISABLE");
  auto& memory = in_arena_ ? *arena_.resource() : *std::pmr::new_delete_resource();
  data_ = std::make_unique<Dataset>(memory, configuration["layout"].get<std::string>(), bytes_);
  const auto frozen = arena_.freeze();
  if (!frozen) throw std::runtime_error(frozen.error().message);
  data_->check();
  data_->check_in_child();
}

nlohmann::json Holder::facts() const {
  if (bytes_ == 0) return {{"huge_share", 0}};
  const std::size_t huge = in_arena_ ? arena_.stats().huge_page_bytes
                                     : proc_bytes("/proc/self/smaps_rollup", "AnonHugePages");
  const double share = static_cast<double>(huge) / static_cast<double>(bytes_);
  return {{"huge_share", std::min(share, 1.0)}};
}

}  // namespace cowshed::bench
