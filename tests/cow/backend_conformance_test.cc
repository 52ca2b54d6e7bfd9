#include <cstdlib>
#include <functional>
#include <gtest/gtest.h>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include <cowshed/cow/backend.h>
#include <cowshed/tests/cow/measure_command.h>

// The same programs with known copies under each backend: each figure is right, exactly or within
// what the backend says of itself, or it is absent.
namespace cowshed::cow {
namespace {

// What a figure may be, in pages; above the truth is what a child copies of its own: its stack and
// its libraries' data.
constexpr std::uint64_t kOwnPages = 40;

struct Truth {
  std::uint64_t least = 0;
  std::uint64_t most = 0;
};
Truth exactly(std::uint64_t value) { return {value, value}; }
Truth and_its_own(std::uint64_t value) { return {value, value + kOwnPages}; }

struct Figure {
  const char* name;
  std::function<std::optional<std::uint64_t>(const ProcessCopies&)> of;
  Truth truth;
  bool by_pagemap = true;  // false: it cannot know that, and has to say so
};

struct Row {
  const char* name;
  std::vector<std::string> command;
  std::size_t children;
  std::vector<Figure> of_each_child;
};

std::ostream& operator<<(std::ostream& out, const Row& row) { return out << row.name; }

Figure copied_anon(Truth truth) {
  return {"copied_anon_pages", [](const auto& child) { return child.copied_anon_pages; }, truth};
}
Figure arena_copied(Truth truth) {
  return {"copied pages of the arena",
          [](const auto& child) -> std::optional<std::uint64_t> {
            if (child.arenas.size() != 1) return std::nullopt;
            return child.arenas[0].copied_pages;
          },
          truth};
}
Figure still_shared(Truth truth) {
  return {"pages still shared",
          [](const auto& child) -> std::optional<std::uint64_t> {
            if (!child.memory) return std::nullopt;
            return child.memory->shared_bytes / kPageSize;
          },
          truth};
}
Figure its_own(Truth truth) {
  return {"pages of its own",
          [](const auto& child) -> std::optional<std::uint64_t> {
            if (!child.memory) return std::nullopt;
            return child.memory->private_bytes / kPageSize;
          },
          truth};
}
Figure tracepoints_only(const char* name, std::optional<std::uint64_t> ProcessCopies::* member,
                        Truth truth) {
  return {name, [member](const auto& child) { return child.*member; }, truth, false};
}

std::vector<Row> rows() {
  constexpr std::uint64_t kMost = 100'000;
  return {
      {"Reading",
       {COPY_SUBJECT, "4000", "2", "0", "600"},
       2,
       {copied_anon(and_its_own(0)), still_shared({4000 - kOwnPages, 4000 + 200}),
        its_own({0, kOwnPages + 20})}},
      {"SomeOfIt",
       {COPY_SUBJECT, "4000", "2", "1500", "600"},
       2,
       {copied_anon(and_its_own(1500)), still_shared({2500 - kOwnPages, 2500 + 200}),
        its_own({1500, 1500 + kOwnPages + 20})}},
      {"AllOfIt",
       {COPY_SUBJECT, "4000", "2", "4000", "600"},
       2,
       {copied_anon(and_its_own(4000)), still_shared({0, 200}),
        tracepoints_only("reused_pages", &ProcessCopies::reused_pages, {0, kOwnPages}),
        tracepoints_only("zero_page_writes", &ProcessCopies::zero_page_writes, {0, kOwnPages}),
        tracepoints_only("zero_filled_pages", &ProcessCopies::zero_filled_pages, {0, 100}),
        tracepoints_only("huge_splits", &ProcessCopies::huge_splits, exactly(0)),
        tracepoints_only("write_notify", &ProcessCopies::write_notify_faults, exactly(0)),
        tracepoints_only("failed_faults", &ProcessCopies::failed_faults, exactly(0)),
        tracepoints_only("other_faults", &ProcessCopies::other_faults, {0, kMost})}},
      {"AnArenaThatIsRead",
       {ARENA_SUBJECT, "strict", "2000", "0", "600"},
       2,
       {arena_copied(exactly(0)), still_shared({2000, kMost})}},
      {"AnArenaThatIsWritten",
       {ARENA_SUBJECT, "lenient", "2000", "321", "600"},
       2,
       {arena_copied(exactly(321)), still_shared({2000 - 321, kMost}), its_own({321, kMost})}},
  };
}

class BackendConformance : public ::testing::TestWithParam<std::tuple<BackendChoice, Row>> {
 protected:
  static BackendChoice choice() { return std::get<0>(GetParam()); }

  static bool is_right(const Figure& figure, const ProcessCopies& child) {
    const auto value = figure.of(child);
    if (choice() == BackendChoice::pagemap && !figure.by_pagemap) return !value;
    return value && *value >= figure.truth.least && *value <= figure.truth.most;
  }

  static std::string wrong_figures(const Measurement& measured, const Row& row) {
    std::string text;
    for (const ProcessCopies& process : measured.processes) {
      if (process.role == Role::root) continue;
      for (const Figure& figure : row.of_each_child) {
        if (is_right(figure, process)) continue;
        const auto value = figure.of(process);
        text +=
            std::string(figure.name) + ": " + (value ? std::to_string(*value) : "absent") + "\n";
      }
    }
    if (measured.processes.size() != row.children + 1) text += "not every child was seen\n";
    return text;
  }
};

TEST_P(BackendConformance, EachFigureIsRightOrAbsent) {
  ::setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
  Row row = std::get<1>(GetParam());
  std::string wrong;
  // What is sampled may be sampled too early on a busy machine: then once more, with more time.
  // What is counted is right at once; still shared and its own are sampled here, too, with time for
  // it.
  const std::vector<const char*> exact_lingers = {"3000"};
  const std::vector<const char*> sampled_lingers = {"600", "3000", "12000"};
  const bool is_exact = choice() == BackendChoice::tracepoint;
  for (const char* linger_ms : is_exact ? exact_lingers : sampled_lingers) {
    auto opened = open_backend(choice());
    if (!opened && choice() == BackendChoice::tracepoint) {
      GTEST_SKIP() << "no tracepoints here: " << opened.error().message;
    }
    ASSERT_TRUE(opened) << opened.error().message;
    row.command.back() = linger_ms;
    const Measurement measured = test::measure_command(*opened->backend, row.command);
    EXPECT_EQ(measured.backend, choice() == BackendChoice::tracepoint ? "tracepoint" : "pagemap");
    EXPECT_EQ(measured.exact, choice() == BackendChoice::tracepoint);
    EXPECT_EQ(measured.lost_events,
              measured.exact ? std::optional<std::uint64_t>(0) : std::nullopt);
    for (const ProcessCopies& process : measured.processes) {
      if (process.memory) {
        EXPECT_LT(measured.memory_age_s(process), measured.duration_s);
      }
    }
    wrong = wrong_figures(measured, row);
    if (wrong.empty()) break;
  }
  EXPECT_EQ(wrong, "");
}

INSTANTIATE_TEST_SUITE_P(Each, BackendConformance,
                         ::testing::Combine(::testing::Values(BackendChoice::tracepoint,
                                                              BackendChoice::pagemap),
                                            ::testing::ValuesIn(rows())),
                         [](const auto& instance) {
                           return std::string(std::get<1>(instance.param).name) +
                                  (std::get<0>(instance.param) == BackendChoice::tracepoint
                                       ? "_tracepoint"
                                       : "_pagemap");
                         });

TEST(BackendChoices, AutomaticTakesTheBestOrSaysWhyNot) {
  const auto best = open_backend(BackendChoice::tracepoint);
  const auto automatic = open_backend(BackendChoice::automatic);
  ASSERT_TRUE(automatic) << automatic.error().message;
  EXPECT_EQ(automatic->backend->name(), best ? "tracepoint" : "pagemap");
  EXPECT_EQ(automatic->notice.empty(), best.has_value());
}

}  // namespace
}  // namespace cowshed::cow
