#include "attacked_arena.h"

#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <stdexcept>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "share.h"

namespace cowshed::test {
namespace {

constexpr std::size_t kWordBytes = 2_MiB;
constexpr const char* kName = "hostile";

using Bytes = std::vector<std::byte>;

// What is mapped there, by way of /proc: a load might end the process.  Short when not all is.
Bytes read_view(const std::byte* begin, std::size_t size) {
  const int fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
  Bytes bytes(size);
  std::size_t done = 0;
  while (done < size) {
    const ssize_t count =
        pread(fd, bytes.data() + done, size - done, reinterpret_cast<std::intptr_t>(begin + done));
    if (count <= 0) break;
    done += static_cast<std::size_t>(count);
  }
  close(fd);
  bytes.resize(done);
  return bytes;
}

std::string path_of(pid_t pid, int fd) {
  return "/proc/" + std::to_string(pid) + "/fd/" + std::to_string(fd);
}

std::size_t pid_max() {
  std::ifstream file("/proc/sys/kernel/pid_max");
  std::size_t result = std::size_t{1} << 22U;  // the most there can be
  file >> result;
  return result;
}

std::pair<off_t, int> status_of(int fd) {
  struct stat status = {};
  fstat(fd, &status);
  return {status.st_size, fcntl(fd, F_GET_SEALS)};
}

}  // namespace

AttackedArena::AttackedArena(State state)
    : state_(state), arena_(Arena::create({.name = kName, .capacity = 16_MiB}).value()) {
  auto* words = static_cast<std::uint32_t*>(arena_.resource()->allocate(kWordBytes, kWordBytes));
  // Every thread's number is a word, at least of those that are made soon.
  constexpr std::size_t kCount = kWordBytes / sizeof *words;
  target_.first_word = pid_max() <= kCount ? 0 : static_cast<std::uint32_t>(getpid());
  for (std::size_t i = 0; i < kCount; ++i)
    words[i] = target_.first_word + static_cast<std::uint32_t>(i);
  if (state != State::unfrozen) {
    const auto frozen = freeze(state);
    if (!frozen) throw std::runtime_error(frozen.error().message);
  }
  target_.address = reinterpret_cast<std::byte*>(words);
  target_.size = kWordBytes;
  target_.offset = target_.address - arena_.base();
  target_.owner = getpid();
  target_.owners_fd = target_.inherited =
      descriptors_of(std::string("/memfd:cowshed:") + kName + " ").at(0);
  before_ = read_view(arena_.base(), arena_.stats().used);
  const int fd = open_file(O_RDONLY);
  file_before_ = status_of(fd);
  close(fd);
}

Expected<void> AttackedArena::freeze(State state) {
  return arena_.freeze(state == State::strict ? FreezeMode::strict : FreezeMode::lenient);
}

Target AttackedArena::gain_access() const {
  Target result = target_;
  result.fd = open_file(O_RDWR);
  if (result.fd < 0) throw std::runtime_error("cannot re-open the memfd");
  if (state_ == State::unfrozen) {
    result.inherited = result.fd;
    void* mapped = raw_mmap(arena_.base(), before_.size(), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_FIXED, result.fd, 0);
    if (mapped == MAP_FAILED) throw std::runtime_error("cannot map the re-opened memfd");
  }
  return result;
}

void AttackedArena::drop_access() const { munmap(arena_.base(), before_.size()); }

bool AttackedArena::unchanged() const {
  return read_view(arena_.base(), before_.size()) == before_ &&
         std::memcmp(arena_.base(), before_.data(), before_.size()) == 0;
}

bool AttackedArena::unchanged_by_proc() const {
  return read_view(arena_.base(), before_.size()) == before_;
}

bool AttackedArena::file_unchanged() const {
  const int fd = open_file(O_RDONLY);
  Bytes bytes(before_.size());
  bool same = pread(fd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()) &&
              bytes == before_ && (state_ == State::unfrozen || status_of(fd) == file_before_);
  void* mapped = raw_mmap(nullptr, bytes.size(), PROT_READ, MAP_PRIVATE, fd, 0);
  same = same && mapped != MAP_FAILED && std::memcmp(mapped, before_.data(), bytes.size()) == 0;
  munmap(mapped, bytes.size());
  close(fd);
  return same;
}

// In a child of an arena that is not frozen the number is the owner's alone.
int AttackedArena::open_file(int how) const {
  return open(
      path_of(state_ == State::unfrozen ? target_.owner : getpid(), target_.owners_fd).c_str(),
      how | O_CLOEXEC);
}

Sibling::Sibling(const AttackedArena& arena)
    : Sibling(arena,
              [&](const Target&) { return [&arena] { return arena.unchanged_by_proc(); }; }) {}

Sibling::Sibling(const AttackedArena& arena, const Prepare& prepare)
    : child_([&](const Line& test) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);  // without Yama an error, and not needed
        const auto yes = prepare(arena.gain_access());
        test.say("ready");
        while (test.hear()) test.say(yes() ? "yes" : "no");
        return 0;
      }) {
  if (!child_.hear()) throw std::runtime_error("a sibling cannot do what it should");
}

bool Sibling::says_yes() const {
  child_.say();
  return child_.hear() == "yes";
}

}  // namespace cowshed::test
