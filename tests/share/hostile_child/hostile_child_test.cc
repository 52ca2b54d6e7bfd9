#include <cowshed/tests/share/share.h>

#include "attacks.h"

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
using test::raw_mmap;
using test::Target;
using Memory = std::vector<std::byte>;

// What is mapped there, by way of /proc: a load might end the process.  Short when not all is.
Memory read_view(const std::byte* begin, std::size_t size) {
  const int fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
  Memory bytes(size);
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

std::pair<off_t, int> status_of(int fd) {
  struct stat status = {};
  fstat(fd, &status);
  return {status.st_size, fcntl(fd, F_GET_SEALS)};
}

enum class State { strict, lenient, unfrozen };

// An arena for one attack, and what was in it before.
class AttackedArena {
 public:
  explicit AttackedArena(State state) : state_(state) {
    auto* words = static_cast<std::uint32_t*>(arena_.resource()->allocate(kWordBytes, kWordBytes));
    std::iota(words, words + kWordBytes / sizeof *words, 1);
    if (state != State::unfrozen && !freeze(state)) throw std::runtime_error("not frozen");
    target_.address = reinterpret_cast<std::byte*>(words);
    target_.size = kWordBytes;
    target_.offset = target_.address - arena_.base();
    target_.owner = getpid();
    target_.owners_fd = target_.inherited = test::descriptors_of("/memfd:cowshed:hostile ").at(0);
    before_ = read_view(arena_.base(), arena_.stats().used);
    const int fd = open_file(O_RDONLY);
    file_before_ = status_of(fd);
    close(fd);
  }

  Expected<void> freeze(State state) {
    return arena_.freeze(state == State::strict ? FreezeMode::strict : FreezeMode::lenient);
  }
  void aim_at(pid_t victim) { target_.victim = victim; }

  // To be called first in each process that is to work with the arena; throws when it cannot.
  Target gain_access() const {
    Target result = target_;
    result.fd = open_file(O_RDWR);
    if (result.fd < 0) throw std::runtime_error("cannot re-open the memfd");
    if (state_ == State::unfrozen) {
      result.inherited = result.fd;
      if (raw_mmap(arena_.base(), before_.size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                   result.fd, 0) == MAP_FAILED) {
        throw std::runtime_error("cannot map the re-opened memfd");
      }
    }
    return result;
  }
  // Unmaps it, which leaves what the kernel holds.
  void drop_access() const { munmap(arena_.base(), before_.size()); }

  // The calling process's view.
  bool unchanged() const {
    return unchanged_by_proc() && std::memcmp(arena_.base(), before_.data(), before_.size()) == 0;
  }
  // The same where a load may end the process.
  bool unchanged_by_proc() const { return read_view(arena_.base(), before_.size()) == before_; }
  // Size, seals and contents of the file, by a descriptor and a mapping of their own.
  bool file_unchanged() const {
    const int fd = open_file(O_RDONLY);
    Memory bytes(before_.size());
    bool same = pread(fd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()) &&
                bytes == before_ && (state_ == State::unfrozen || status_of(fd) == file_before_);
    void* mapped = raw_mmap(nullptr, bytes.size(), PROT_READ, MAP_PRIVATE, fd, 0);
    same = same && mapped != MAP_FAILED && std::memcmp(mapped, before_.data(), bytes.size()) == 0;
    munmap(mapped, bytes.size());
    close(fd);
    return same;
  }

 private:
  // In a child of an arena that is not frozen the number is the owner's alone.
  int open_file(int how) const {
    const pid_t pid = state_ == State::unfrozen ? target_.owner : getpid();
    return open(test::fd_path(pid, target_.owners_fd).c_str(), how | O_CLOEXEC);
  }

  static constexpr std::size_t kWordBytes = 2_MiB;

  State state_;
  Arena arena_ = make_arena("hostile", 16_MiB);
  Target target_;
  Memory before_;
  std::pair<off_t, int> file_before_;
};

// A process that has the arena and answers a question: whether its bytes are the same, unless told
// otherwise.
class Sibling {
 public:
  // Runs in the process, which has gained access, and returns what answers.
  using Prepare = std::function<std::function<bool()>(const Target&)>;

  explicit Sibling(const AttackedArena& arena, const Prepare& prepare = {})
      : child_([&](const test::Line& test) {
          prctl(PR_SET_PDEATHSIG, SIGKILL);
          prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);  // without Yama an error, and not needed
          const Target target = arena.gain_access();
          const auto yes = prepare ? prepare(target) : [&] { return arena.unchanged_by_proc(); };
          test.say("ready");
          while (test.hear()) test.say(yes() ? "yes" : "no");
          return 0;
        }) {
    if (!child_.hear()) throw std::runtime_error("a sibling cannot do what it should");
  }

  pid_t pid() const { return child_.pid(); }
  bool says_yes() const {
    child_.say();
    return child_.hear() == "yes";
  }

 private:
  Child child_;
};

struct Seen {
  Outcome outcome;
  std::string unavailable;  // why, when the attack could not be tried
  std::string changed;      // the onlookers, apart from attacker and victim, whose bytes differ
};

// What the attacker says: "ERRNO same", "ERRNO changed", or why it could not.
std::string attack_from_here(const Attack& attack, const AttackedArena& arena) {
  alarm(20);
  if (test::kSanitized)
    std::signal(SIGSEGV, SIG_DFL);  // else the sanitizer ends the process in its own way
  const Target target = arena.gain_access();
  const int error = attack.run(target) == -1 ? errno : 0;
  return std::to_string(error) + (arena.unchanged_by_proc() ? " same" : " changed");
}

Seen try_attack(const Attack& attack, State state) {
  AttackedArena arena(state);
  const Sibling victim(arena);
  const Sibling bystander(arena);
  arena.aim_at(victim.pid());
  const auto attacker = run_in_child([&] { return attack_from_here(attack, arena); });

  Seen seen;
  if (attacker.said.starts_with("exception: "))
    seen.unavailable = attacker.said.substr(std::strlen("exception: "));
  seen.outcome.signal = attacker.signal;
  if (attacker.signal == 0 && seen.unavailable.empty())
    seen.outcome.error = std::stoi(attacker.said);
  const auto look = [&](bool unchanged, const char* who) {
    if (!unchanged) seen.changed += seen.changed.empty() ? who : std::string(", ") + who;
  };
  look(state == State::unfrozen ? arena.unchanged_by_proc() : arena.unchanged(), "owner");
  look(bystander.says_yes(), "bystander");
  const auto later = run_in_child([&]() -> std::string {
    (void)arena.gain_access();
    return arena.unchanged_by_proc() ? "same" : "changed";
  });
  look(later.said == "same", "later child");
  look(arena.file_unchanged(), "file");
  const bool victim_unchanged = victim.says_yes();

  if (!seen.changed.empty()) seen.outcome.effect = Effect::all;
  else if (!victim_unchanged) seen.outcome.effect = Effect::victims_view;
  else if (attacker.said.ends_with("changed")) seen.outcome.effect = Effect::own_view;
  return seen;
}

// "ok" or "WRONG" or "not available" for each attack, then what it did: one line each.
std::string try_all(State state) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
  std::string lines;
  for (const Attack& attack : test::all_attacks()) {
    const Seen seen = try_attack(attack, state);
    const auto& expected = state == State::strict ? attack.strict : attack.lenient;
    // What becomes of an arena that is not frozen only shows which attacks work.
    const bool as_stated = state == State::unfrozen || std::find(expected.begin(), expected.end(),
                                                                 seen.outcome) != expected.end();
    const bool untried = !seen.unavailable.empty() || seen.outcome.error == ENOSYS;
    // An attack that could not be tried must not have done anything either.
    const bool harmless = seen.outcome.effect == Effect::nothing;
    const char* verdict = untried && harmless ? "not available" : as_stated ? "ok" : "WRONG";
    lines += std::string(verdict) + ": " + attack.name + ": ";
    lines += seen.unavailable.empty() ? to_string(seen.outcome) : seen.unavailable;
    if (!seen.changed.empty()) lines += " (" + seen.changed + ")";
    if (!as_stated && !untried) {
      lines += "; stated:";
      for (const auto& outcome : expected) lines += " [" + to_string(outcome) + "]";
    }
    lines += '\n';
  }
  return lines;
}

// The lines that have `text` in them.
int count(const std::string& lines, std::string_view text) {
  std::istringstream stream(lines);
  int result = 0;
  for (std::string line; std::getline(stream, line);)
    result += line.find(text) != std::string::npos ? 1 : 0;
  return result;
}

class HostileChild : public testing::TestWithParam<bool> {
 protected:
  // For how many attacks the owner's bytes change.  The owner is a child too, so that it can be
  // another user and take a fault with it.
  static int run(State state) {
    const auto owner = run_in_child([&] {
      if (GetParam()) test::become_nobody();
      return try_all(state);
    });
    std::cout << owner.said;
    EXPECT_EQ(owner.exit_code, 0) << "signal " << owner.signal;
    EXPECT_EQ(count(owner.said, "WRONG: "), 0) << "see the lines WRONG above";
    EXPECT_GE(count(owner.said, "ok: "), 60) << owner.said;
    EXPECT_LE(count(owner.said, "not available: "), 10);
    return count(owner.said, "(owner");
  }

  void SetUp() override {
    if (test::kThreadSanitizer)
      GTEST_SKIP() << "no process here has a second thread, and each of 1000 forks takes 0.3 s";
    if (GetParam() && geteuid() != 0)
      GTEST_SKIP() << "not root: the other test is already that of an ordinary user";
  }
};
// AddressSanitizer makes each fork dear.
const auto users = testing::ValuesIn(test::kAddressSanitizer ? std::vector<bool>{true}
                                                             : std::vector<bool>{false, true});

INSTANTIATE_TEST_SUITE_P(Users, HostileChild, users,
                         [](const auto& nobody) { return nobody.param ? "Nobody" : "Caller"; });

TEST_P(HostileChild, ChangesNothingOfAStrictlyFrozenArena) { EXPECT_EQ(run(State::strict), 0); }

TEST_P(HostileChild, ChangesNothingOfALenientlyFrozenArena) { EXPECT_EQ(run(State::lenient), 0); }

TEST_P(HostileChild, ChangesTheBytesOfAnArenaThatIsNotFrozen) {
  EXPECT_GE(run(State::unfrozen), 30);
}

// Pages lent to the kernel before the freeze would be written to behind the seals.
TEST(PagesHeldByTheKernel, KeepTheArenaFromFreezing) {
  if (test::kThreadSanitizer) GTEST_SKIP() << "no process here has a second thread";
  for (const State state : {State::strict, State::lenient}) {
    AttackedArena arena(State::unfrozen);
    std::unique_ptr<Sibling> holder;
    try {
      holder = std::make_unique<Sibling>(arena, [&](const Target& target) {
        auto write = test::hold_for_a_later_write(target);
        arena.drop_access();
        return [write] { return write() != -1; };
      });
    } catch (const std::runtime_error&) {
      GTEST_SKIP() << "io_uring does not take a buffer here";
    }
    EXPECT_THAT(arena.freeze(state), FailsBy(EBUSY));
    EXPECT_TRUE(arena.unchanged());
    EXPECT_TRUE(holder->says_yes());
    EXPECT_FALSE(arena.unchanged()) << "the held pages are the arena's";
    holder.reset();
    EXPECT_THAT(arena.freeze(state), Succeeds());
  }
}

}  // namespace
}  // namespace cowshed
