#include "holder.h"

#include <fmt/format.h>
#include <map>
#include <memory>
#include <stdexcept>

#include "family.h"

namespace cowshed::bench {
namespace {

const SubjectKind kHolder("holder", [](const Words& arguments) -> Answer {
  const auto holding = std::make_shared<Holding>(arguments.at(0), std::stoull(arguments.at(1)));
  return [holding](const Words& question) -> std::vector<double> {
    if (question.at(0) == "fork") return {time_fork()};
    const int count = std::stoi(question.at(2));
    if (question[0] == "memory") return measure_memory(question[1], *holding, count);
    return time_start(question[1], *holding, static_cast<std::size_t>(count));
  };
});

}  // namespace

std::string Held::name() const {
  if (memory == "none") return memory;
  return bytes >= 1_GiB ? fmt::format("{}/{}GiB", memory, bytes >> 30U)
                        : fmt::format("{}/{}MiB", memory, bytes >> 20U);
}

std::vector<Held> all_held() {
  std::vector<Held> all = {{"none", 0}};
  for (const std::string memory : {"arena", "memfd", "heap", "huge"})
    for (const std::size_t bytes : {is_quick() ? 4_MiB : 64_MiB, is_quick() ? 16_MiB : 4_GiB})
      all.push_back({memory, bytes});
  return all;
}

Subject& holder(const Held& held) {
  static std::map<std::string, std::unique_ptr<Subject>> all;
  auto& subject = all[held.name()];
  if (subject == nullptr) {
    const Words environment =
        held.memory == "huge" ? Words{"GLIBC_TUNABLES=glibc.malloc.hugetlb=1"} : Words{};
    subject = std::make_unique<Subject>(Words{"holder", held.memory, std::to_string(held.bytes)},
                                        environment);
  }
  return *subject;
}

}  // namespace cowshed::bench
