#include <algorithm>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <grp.h>
#include <gtest/gtest.h>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include <cowshed/share/arena.h>

#include "attacks.h"
#include "child.h"

// One table of attacks, each run by a forked child against an arena made for it alone: frozen
// strictly, frozen leniently, and not frozen.  Afterwards these look at the bytes:
//   - the attacker itself,
//   - a sibling that maps the arena and whom some attacks aim at: the victim,
//   - a sibling that nobody aims at, older than the attack,
//   - the owner, by its mapping,
//   - a process forked after the attack,
//   - the file, by pread and by a new private mapping of a descriptor opened for it.
//
// A child does not inherit an arena that is not frozen, neither mapping nor descriptor.  There
// attacker and siblings get at it as any process of the user can: they open /proc/OWNER/fd/N and
// map that shared and writable at the arena's own address.  That those attacks change the owner's
// bytes shows that they work, and so that it is the freeze that stops them.
namespace cowshed {
namespace {

using test::Attack;
using test::Effect;
using test::Outcome;
using test::Privileges;
using test::Target;

constexpr std::size_t kWordBytes = 2_MiB;
constexpr const char* kName = "hostile";

enum class State { strict, lenient, unfrozen };

using Bytes = std::vector<std::byte>;

// What is mapped there, by way of /proc: a load might end the process.  Short when not all is.
Bytes read_view(const std::byte* begin, std::size_t size) {
  const int fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
  Bytes bytes(size);
  std::size_t done = 0;
  while (done < size) {
    const ssize_t count =
        pread(fd, bytes.data() + done, size - done, reinterpret_cast<std::intptr_t>(begin + done));
    if (count <= 0) {
      break;
    }
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

int find_memfd() {
  for (int fd = 3; fd < 1024; ++fd) {
    std::string target(256, '\0');
    const ssize_t size = readlink(path_of(getpid(), fd).c_str(), target.data(), target.size());
    if (size > 0 && target.starts_with(std::string("/memfd:cowshed:") + kName + " ")) {
      return fd;
    }
  }
  throw std::runtime_error("the arena's memfd is not among the descriptors");
}

// The arena of one attack, and what was in it before.
class Subject {
 public:
  explicit Subject(State state)
      : state_(state), arena_(Arena::create({.name = kName, .capacity = 16_MiB}).value()) {
    auto* words = static_cast<std::uint32_t*>(arena_.resource()->allocate(kWordBytes, kWordBytes));
    // Every thread's number is a word, at least of those that are made soon.
    constexpr std::size_t kCount = kWordBytes / sizeof *words;
    target_.first_word = pid_max() <= kCount ? 0 : static_cast<std::uint32_t>(getpid());
    for (std::size_t i = 0; i < kCount; ++i) {
      words[i] = target_.first_word + static_cast<std::uint32_t>(i);
    }
    if (state != State::unfrozen) {
      const auto frozen =
          arena_.freeze(state == State::strict ? FreezeMode::strict : FreezeMode::lenient);
      if (!frozen) {
        throw std::runtime_error(frozen.error().message);
      }
    }
    target_.address = reinterpret_cast<std::byte*>(words);
    target_.size = kWordBytes;
    target_.offset = target_.address - arena_.base();
    target_.owner = getpid();
    target_.owners_fd = target_.inherited = find_memfd();
    before_ = read_view(arena_.base(), arena_.stats().used);
    const int fd = open_file(O_RDONLY);
    file_before_ = status_of(fd);
    close(fd);
  }

  const Target& target() const { return target_; }
  void aim_at(pid_t victim) { target_.victim = victim; }

  // To be called first in each process that is to work with the arena.
  Target gain_access() const {
    Target result = target_;
    result.fd = open_file(O_RDWR);
    if (result.fd < 0) {
      throw std::runtime_error("cannot re-open the memfd");
    }
    if (state_ == State::unfrozen) {
      result.inherited = result.fd;
      void* mapped = test::raw_mmap(arena_.base(), before_.size(), PROT_READ | PROT_WRITE,
                                    MAP_SHARED | MAP_FIXED, result.fd, 0);
      if (mapped == MAP_FAILED) {
        throw std::runtime_error("cannot map the re-opened memfd");
      }
    }
    return result;
  }

  // The calling process's view.
  bool unchanged() const {
    return read_view(arena_.base(), before_.size()) == before_ &&
           std::memcmp(arena_.base(), before_.data(), before_.size()) == 0;
  }
  // The same where a load may not end well.
  bool unchanged_by_proc() const { return read_view(arena_.base(), before_.size()) == before_; }

  // Size, seals and contents of the file, by a descriptor and a mapping of their own.
  bool file_unchanged() const {
    const int fd = open_file(O_RDONLY);
    Bytes bytes(before_.size());
    bool same = pread(fd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()) &&
                bytes == before_ && (state_ == State::unfrozen || status_of(fd) == file_before_);
    void* mapped = test::raw_mmap(nullptr, bytes.size(), PROT_READ, MAP_PRIVATE, fd, 0);
    same = same && mapped != MAP_FAILED && std::memcmp(mapped, before_.data(), bytes.size()) == 0;
    munmap(mapped, bytes.size());
    close(fd);
    return same;
  }

 private:
  // In a child of an arena that is not frozen the number is the owner's alone.
  int open_file(int how) const {
    return open(
        path_of(state_ == State::unfrozen ? target_.owner : getpid(), target_.owners_fd).c_str(),
        how | O_CLOEXEC);
  }

  static std::pair<off_t, int> status_of(int fd) {
    struct stat status = {};
    fstat(fd, &status);
    return {status.st_size, fcntl(fd, F_GET_SEALS)};
  }

  State state_;
  Arena arena_;
  Target target_;
  Bytes before_;
  std::pair<off_t, int> file_before_;
};

// A process that has the arena, does nothing, and says on request whether its bytes have changed.
class Sibling {
 public:
  explicit Sibling(const Subject& subject) {
    if (pipe(questions_) != 0 || pipe(answers_) != 0) {
      throw std::runtime_error("pipe");
    }
    pid_ = fork();
    if (pid_ == 0) {
      serve(subject);
    }
    close(questions_[0]);
    close(answers_[1]);
    if (answer() != 'r') {
      throw std::runtime_error("a sibling cannot get at the arena");
    }
  }
  Sibling(const Sibling&) = delete;
  Sibling& operator=(const Sibling&) = delete;
  ~Sibling() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    close(questions_[1]);
    close(answers_[0]);
  }

  pid_t pid() const { return pid_; }

  bool unchanged() const {
    if (write(questions_[1], "?", 1) != 1) {
      throw std::runtime_error("a sibling cannot be asked");
    }
    return answer() == 's';
  }

 private:
  [[noreturn]] void serve(const Subject& subject) const {
    try {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);  // without Yama an error, and not needed
      (void)subject.gain_access();
      char byte = 'r';
      while (write(answers_[1], &byte, 1) == 1 && read(questions_[0], &byte, 1) == 1) {
        byte = subject.unchanged_by_proc() ? 's' : 'c';
      }
    } catch (const std::exception&) {
    }
    _exit(0);
  }

  char answer() const {
    char byte = 0;
    return read(answers_[0], &byte, 1) == 1 ? byte : '\0';
  }

  pid_t pid_ = -1;
  int questions_[2] = {-1, -1};
  int answers_[2] = {-1, -1};
};

struct Seen {
  Outcome outcome;
  std::string unavailable;  // why, when the attack could not be tried
  std::string changed;      // the onlookers, apart from attacker and victim, whose bytes differ
};

// What the attacker says: "ERRNO same", "ERRNO changed", or why it could not.
std::string attack_from_here(const Attack& attack, const Subject& subject) {
  alarm(20);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  std::signal(SIGSEGV, SIG_DFL);  // else the sanitizer ends the process in its own way
#endif
  const Target target = subject.gain_access();
  const int error = attack.run(target);
  return std::to_string(error) + (subject.unchanged_by_proc() ? " same" : " changed");
}

Seen try_attack(const Attack& attack, State state) {
  Subject subject(state);
  const Sibling victim(subject);
  const Sibling bystander(subject);
  subject.aim_at(victim.pid());
  const auto attacker = test::run_in_child([&] { return attack_from_here(attack, subject); });

  Seen seen;
  if (attacker.said.starts_with("exception: ")) {
    seen.unavailable = attacker.said.substr(std::strlen("exception: "));
  }
  seen.outcome.signal = attacker.signal;
  if (attacker.signal == 0 && seen.unavailable.empty()) {
    seen.outcome.error = std::stoi(attacker.said);
  }
  const auto look = [&](bool unchanged, const char* who) {
    if (!unchanged) {
      seen.changed += seen.changed.empty() ? who : std::string(", ") + who;
    }
  };
  look(state == State::unfrozen ? subject.unchanged_by_proc() : subject.unchanged(), "owner");
  look(bystander.unchanged(), "bystander");
  const auto later = test::run_in_child([&]() -> std::string {
    (void)subject.gain_access();
    return subject.unchanged_by_proc() ? "same" : "changed";
  });
  look(later.said == "same", "later child");
  look(subject.file_unchanged(), "file");
  const bool victim_unchanged = victim.unchanged();

  if (!seen.changed.empty()) {
    seen.outcome.effect = Effect::all;
  } else if (!victim_unchanged) {
    seen.outcome.effect = Effect::victims_view;
  } else if (attacker.said.ends_with("changed")) {
    seen.outcome.effect = Effect::own_view;
  }
  return seen;
}

const test::Outcomes& expected_of(const Attack& attack, State state) {
  switch (state) {
    case State::strict: return attack.strict;
    case State::lenient: return attack.lenient;
    case State::unfrozen: break;
  }
  return attack.unfrozen;
}

bool operator==(const Outcome& a, const Outcome& b) {
  return a.error == b.error && a.signal == b.signal && a.effect == b.effect;
}

std::vector<Attack> all_attacks(Privileges may) {
  std::vector<Attack> result;
  for (auto& group : {test::attacks_on_the_mapping(), test::attacks_on_the_file(may),
                      test::attacks_through_the_kernel(), test::attacks_on_a_sibling(may)}) {
    result.insert(result.end(), group.begin(), group.end());
  }
  return result;
}

// "ok" or "WRONG" or "not available" for each attack, then what it did: one line each.
std::string try_all(State state) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
  std::string lines;
  for (const Attack& attack : all_attacks(Privileges::of_this_process())) {
    const Seen seen = try_attack(attack, state);
    const auto& expected = expected_of(attack, state);
    const bool as_stated =
        std::any_of(expected.begin(), expected.end(),
                    [&](const Outcome& outcome) { return outcome == seen.outcome; });
    const bool untried = !seen.unavailable.empty() || seen.outcome.error == ENOSYS;
    // An attack that could not be tried must not have done anything either.
    const bool harmless = seen.outcome.effect == Effect::nothing;
    const char* verdict = untried && harmless ? "not available" : as_stated ? "ok" : "WRONG";
    lines += std::string(verdict) + ": " + attack.name + ": ";
    lines += seen.unavailable.empty() ? to_string(seen.outcome) : seen.unavailable;
    if (!seen.changed.empty()) {
      lines += " (" + seen.changed + ")";
    }
    if (!as_stated && !untried) {
      lines += "; stated:";
      for (const auto& outcome : expected) {
        lines += " [" + to_string(outcome) + "]";
      }
    }
    lines += '\n';
  }
  return lines;
}

// Gives up root; what stays readable through /proc is as for a process started by that user.
void become_nobody() {
  constexpr uid_t kNobody = 65534;
  if (setgroups(0, nullptr) != 0 || setresgid(kNobody, kNobody, kNobody) != 0 ||
      setresuid(kNobody, kNobody, kNobody) != 0 || prctl(PR_SET_DUMPABLE, 1) != 0) {
    throw std::runtime_error("cannot become nobody");
  }
}

struct Counts {
  int ok = 0;
  int wrong = 0;
  int not_available = 0;
  int changed_for_owner = 0;
};

Counts count(const std::string& lines) {
  Counts counts;
  std::istringstream stream(lines);
  for (std::string line; std::getline(stream, line);) {
    counts.ok += line.starts_with("ok: ") ? 1 : 0;
    counts.wrong += line.starts_with("WRONG: ") ? 1 : 0;
    counts.not_available += line.starts_with("not available: ") ? 1 : 0;
    counts.changed_for_owner += line.find("(owner") != std::string::npos ? 1 : 0;
  }
  return counts;
}

class HostileChild : public testing::TestWithParam<bool> {
 protected:
  // The owner is a child too, so that it can be another user and take a fault with it.
  static Counts run(State state) {
    const auto owner = test::run_in_child([&] {
      if (GetParam()) {
        become_nobody();
      }
      return try_all(state);
    });
    std::cout << owner.said;
    EXPECT_EQ(owner.exit_code, 0) << "signal " << owner.signal;
    const Counts counts = count(owner.said);
    EXPECT_EQ(counts.wrong, 0) << "see the lines WRONG above";
    EXPECT_GE(counts.ok, 60) << owner.said;
    EXPECT_LE(counts.not_available, 10);
    return counts;
  }

  void SetUp() override {
#if defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "no process here has a second thread, and each of 1000 forks takes 0.3 s";
#endif
    if (GetParam() && geteuid() != 0) {
      GTEST_SKIP() << "not root: the other test is already that of an ordinary user";
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Users, HostileChild, testing::Bool(),
                         [](const auto& nobody) { return nobody.param ? "Nobody" : "Caller"; });

TEST_P(HostileChild, ChangesNothingOfAStrictlyFrozenArena) {
  EXPECT_EQ(run(State::strict).changed_for_owner, 0);
}

TEST_P(HostileChild, ChangesNothingOfALenientlyFrozenArena) {
  EXPECT_EQ(run(State::lenient).changed_for_owner, 0);
}

TEST_P(HostileChild, ChangesTheBytesOfAnArenaThatIsNotFrozen) {
  EXPECT_GE(run(State::unfrozen).changed_for_owner, 30);
}

}  // namespace
}  // namespace cowshed
