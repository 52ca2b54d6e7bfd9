#include <clocale>
#include <ctime>
#include <iconv.h>
#include <locale>
#include <pthread.h>

#include <cowshed/tests/share/arena/scope_blocks.h>

// What lands in the arena of an ArenaScope besides the objects, and what does not.
namespace cowshed {
namespace {

// What a child says when `inside` ran in a scope of an arena, which perhaps was frozen strictly
// then, and the child left by `leave`: its status, or less than zero for a signal.
std::string ending(const std::function<void()>& inside, const std::function<void()>& leave,
                   bool frozen = true) {
  std::fflush(stdout);  // exit() would print it again
  return run_in_child([&]() -> std::string {
           Arena arena = make_arena();
           in_scope(arena, [&] { inside(); });
           if (frozen && !arena.freeze()) return "not frozen";
           Child leaving([&] {
             leave();
             return 0;
           });
           return std::to_string(leaving.wait());
         })
      .said;
}

// A child has nothing of an arena that is not frozen.
void expect_seven_of_both(const std::function<void()>& inside, const std::function<void()>& leave) {
  for (const bool frozen : {false, true}) EXPECT_EQ(ending(inside, leave, frozen), "7") << frozen;
}

void leave() { std::exit(7); }

template <class Call>
void hundred_times(Call call) {
  for (int i = 0; i < 100; ++i) call();
}

// The C library allocates a record now and then of what is to run at the exit.
TEST(ArenaScopeLibraries, WhatIsToRunLaterDoesNotLieThere) {
  EXPECT_EQ(ending([] { hundred_times([] { std::atexit([] {}); }); }, leave), "7");
  EXPECT_EQ(ending([] { hundred_times([] { on_exit([](int, void*) {}, nullptr); }); }, leave), "7");
  EXPECT_EQ(
      ending([] { hundred_times([] { std::at_quick_exit([] {}); }); }, [] { std::quick_exit(7); }),
      "7");
  EXPECT_EQ(ending([] { hundred_times([] { pthread_atfork(nullptr, nullptr, nullptr); }); },
                   [] {
                     hundred_times([] { pthread_atfork(nullptr, nullptr, nullptr); });
                     std::exit(7);
                   }),
            "7");
}

TEST(ArenaScopeLibraries, WhatTheCLibraryKeepsOpenMayBeUsedLater) {
  static FILE* stream;
  const auto write_and_leave = [] {
    std::exit(std::fputs("later", stream) >= 0 && std::fflush(stream) == 0 ? 7 : 8);
  };
  EXPECT_EQ(ending([] { stream = std::fopen("/dev/null", "w"); }, write_and_leave), "7");
  EXPECT_EQ(ending([] { stream = std::tmpfile(); }, write_and_leave), "7");
  EXPECT_EQ(ending([] { stream = popen("cat >/dev/null", "w"); }, write_and_leave), "7");
  EXPECT_EQ(ending([] { stream = fdopen(dup(STDERR_FILENO), "w"); }, leave), "7");
  EXPECT_EQ(ending([] { std::ignore = iconv_open("UTF-16", "ISO-8859-15"); }, leave), "7");
  EXPECT_EQ(ending([] { setenv("COWSHED_TEST", "inside", 1); },
                   [] {
                     setenv("COWSHED_TEST", "later", 1);
                     setenv("COWSHED_TEST_2", "later", 1);
                     std::exit(std::string(getenv("COWSHED_TEST")) == "later" ? 7 : 8);
                   }),
            "7");
}

// The library's own records are not the loader's objects.
TEST(ArenaScopeLibraries, AnArenaMadeInsideIsNotKeptThere) {
  const auto child = run_in_child([]() -> std::string {
    Arena arena = make_arena();
    // More than there were before, so that each has a record of its own.
    std::vector<Arena> made;
    made.reserve(40);
    in_scope(arena, [&] {
      for (int i = 0; i < 40; ++i) {
        made.push_back(make_arena(4_MiB, "made", false));
        (void)made.back().make<int>(i).value();
      }
      (void)made[0].freeze();
    });
    if (!arena.freeze()) return "not frozen";
    for (auto& one : made)
      if (!one.freeze() || !one.collapse() || !one.thaw() || !one.make<int>(1) || !one.refreeze())
        return "failed";
    auto own = arena.private_bytes();
    return std::to_string(own.value());
  });
  EXPECT_EQ(child.said, "0") << "signal " << child.signal;
}

struct Guard {
  int used = 0;
  ~Guard() { used = 0; }
};

// glibc allocates a record of each, which it reads at the thread's end.
TEST(ArenaScopeLibraries, AThreadLocalObjectFirstUsedInside) {
  const auto use = [] {
    static thread_local Guard guard;
    guard.used = 1;
  };
  expect_seven_of_both(use, leave);
}

TEST(ArenaScopeLibraries, TheTimeZoneIsThere) {
  setenv("TZ", "Europe/Berlin", 1);
  const auto tell = [] {
    const std::time_t now = 1'000'000;
    return std::localtime(&now)->tm_hour;
  };
  const auto later = [&] {
    setenv("TZ", "UTC", 1);
    std::exit(tell() == 13 ? 7 : 8);
  };
  expect_seven_of_both(tell, later);
  unsetenv("TZ");
}

TEST(ArenaScopeLibraries, LocalesAreThere) {
  const auto use = [] {
    std::setlocale(LC_ALL, "C.UTF-8");
    std::ostringstream text;
    text.imbue(std::locale("C.UTF-8"));
    text << 1.5;
  };
  const auto later = [&] {
    use();
    std::setlocale(LC_ALL, "C");
    std::exit(7);
  };
  expect_seven_of_both(use, later);
}

TEST(ArenaScopeLibraries, ChannelsAreUsedLater) {
  std::optional<Channel<int>> channel;
  const auto create = [&] {
    channel = Channel<int>::create({.name = "numbers"}).value();
    EXPECT_TRUE(channel->send(1));
    EXPECT_EQ(channel->receive().value(), 1);
  };
  const auto later = [&] {
    const bool sent = channel->send(2).has_value();
    const bool received = channel->receive().value() == 2;
    auto another = Channel<int>::create({.name = "more"}).value();
    std::exit(sent && received && another.send(3) ? 7 : 8);
  };
  expect_seven_of_both(create, later);
}

TEST(ArenaScopeLibraries, WorkersAreNotStartedInside) {
  const Arena arena = make_arena();
  const auto code = in_scope(arena, [] { return code_of(start({}, [](const Worker&) {})); });
  EXPECT_EQ(code, ErrorCode::in_use);
}

}  // namespace
}  // namespace cowshed
