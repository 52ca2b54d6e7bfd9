#include <fmt/format.h>
#include <linux/mman.h>  // MADV_COLLAPSE
#include <map>
#include <memory>
#include <numeric>
#include <sys/mman.h>
#include <unistd.h>

#include <cowshed/base/arch/arch.h>

#include "../family.h"
#include "../process.h"
#include "workers.h"

namespace cowshed::bench {
namespace {

std::size_t step_of(WordsOfData words, Part part) {
  constexpr std::size_t kPage = arch::kPage / sizeof(std::uint64_t);
  return part == Part::each_page ? kPage : std::max(words.size() / 64, kPage);
}

// The best sharing by hand: in pages of 2 MiB, as an arena is.
void* make_memfd(int fd, std::size_t bytes) {
  if (ftruncate(fd, static_cast<off_t>(bytes)) != 0) throw std::runtime_error("ftruncate");
  auto* memory = static_cast<std::byte*>(map_memfd(fd, bytes, PROT_READ | PROT_WRITE));
  for (std::size_t at = 0; at < bytes; at += arch::kHugePage) memory[at] = std::byte{1};
  if (madvise(memory, bytes, MADV_COLLAPSE) != 0)
    throw std::system_error(errno, std::system_category(), "MADV_COLLAPSE of a memfd");
  return memory;
}

const SubjectKind holder_kind("holder", [](const Words& arguments) -> Answer {
  const auto holding =
      std::make_shared<Holding>(Held{arguments.at(0), std::stoull(arguments.at(1))});
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
  for (const std::string memory : {"arena", "memfd", "heap", "settled", "huge"})
    for (const std::size_t bytes : {is_quick() ? 4_MiB : 64_MiB, is_quick() ? 16_MiB : 4_GiB})
      all.push_back({memory, bytes});
  return all;
}

Holding::Holding(const Held& held) : memory(held.memory) {
  std::span<std::uint64_t> filled;
  const std::size_t count = held.bytes / sizeof(std::uint64_t);
  if (memory == "heap" || memory == "settled") use_small_pages();
  if (memory == "arena") {
    arena = got(Arena::create({.name = "bench", .capacity = held.bytes / 4 * 5 + 4_MiB}));
    filled = {static_cast<std::uint64_t*>(arena->allocate(held.bytes)), count};
  } else if (memory == "memfd") {
    memfd = memfd_create("bench", MFD_CLOEXEC);
    filled = {static_cast<std::uint64_t*>(make_memfd(memfd, held.bytes)), count};
  } else if (memory != "none") {
    heap.resize(count);
    filled = heap;
  }
  std::iota(filled.begin(), filled.end(), 1);
  words = filled;
  if (memory == "heap") expect_pages("AnonHugePages", 0);
  if (memory == "huge") expect_pages("AnonHugePages", held.bytes);
  if (memory == "memfd") expect_pages("ShmemPmdMapped", held.bytes);
  if (memory == "settled") settle_all(held.bytes, false);
  if (arena) {
    ref = got(publish(filled));
    got(arena->freeze());
  }
  check(reply_about(words, Part::each_page, 0), words, Part::each_page);
}

void* map_memfd(int fd, std::size_t bytes, int protection) {
  // Pages of 2 MiB are mapped as such only at multiples of 2 MiB.
  void* room = mmap(nullptr, bytes + 2_MiB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  void* begin = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(room) | (2_MiB - 1)) + 1);
  if (room == MAP_FAILED ||
      mmap(begin, bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
    throw std::runtime_error("a memfd cannot be mapped");
  return begin;
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

WorkersOptions by_library(const std::string& method, std::optional<ForkServer>& server) {
  WorkersOptions options;
  if (method == "spawn") options.method = Start::spawn;
  if (method == "forkserver") {
    if (!server) server.emplace(got(ForkServer::start()));
    options.method = Start::forkserver;
    options.server = &*server;
  }
  return options;
}

Reply reply_about(WordsOfData words, Part part, std::uint64_t begun) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < words.size(); i += step_of(words, part)) sum += words[i];
  return {begun, now_ns(), sum};
}

void check(const Reply& reply, WordsOfData words, Part part) {
  const std::size_t step = step_of(words, part);
  const std::size_t read = (words.size() + step - 1) / step;  // 1, 1 + step, 1 + 2 * step...
  if (reply.sum != read + step * (read * (read - 1) / 2))
    throw std::runtime_error("a worker gave a wrong answer");
}

}  // namespace cowshed::bench
