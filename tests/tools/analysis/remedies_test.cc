#include <fmt/ranges.h>

#include <cowshed/cow/measurement.h>
#include <cowshed/tests/support/test.h>
#include <cowshed/tools/cowtop/analysis/remedies.h>
#include <cowshed/tools/cowtop/cure/environment.h>

namespace cowshed::cowtop {
namespace {

// What `cowtop cure` says of a Python program of which `mib` are shared, and copied.
std::string advised(std::uint64_t mib) {
  Summary summary;
  summary.sharers = 1;
  summary.copied_bytes = mib << 20;
  summary.groups.resize(1);
  summary.groups[0].shared_bytes = mib << 20;
  const cow::Measurement measurement;
  return fmt::format(
      "{}",
      fmt::join(cures_for({&measurement, &summary}, cow::Language::python).at(0).prefix, " "));
}

TEST(Cures, CowshedRunAlsoFreezesWhoHoldsALittleLess) {
  EXPECT_EQ(advised(1000), "cowshed run --");
  EXPECT_EQ(advised(129), "cowshed run --");
  EXPECT_EQ(advised(127), "cowshed run --");
  EXPECT_EQ(advised(80), "cowshed run --above 32MiB --");
  EXPECT_EQ(advised(37), "cowshed run --above 16MiB --");
  EXPECT_EQ(advised(1), "cowshed run --above 1MiB --");
}

// What a remedy sets where the caller sets `name`; or why it is left out.
std::string kept(const std::string& name, const std::string& value, Cure cure) {
  ::setenv(name.c_str(), value.c_str(), 1);
  std::string text = keep_environment(cure);
  ::unsetenv(name.c_str());
  return text.empty() ? cure.environment.at(0).second : text;
}

Cure sets(const std::string& name, const std::string& value) {
  return {.name = "A", .environment = {{name, value}}};
}

TEST(Cures, AListKeepsWhatTheCallerSets) {
  EXPECT_EQ(kept("GLIBC_TUNABLES", "glibc.malloc.perturb=1",
                 sets("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=5")),
            "glibc.malloc.perturb=1:glibc.malloc.trim_threshold=5");
  EXPECT_EQ(kept("OCAMLRUNPARAM", "b", sets("OCAMLRUNPARAM", "o=5")), "b,o=5");
  EXPECT_EQ(kept("PHP_INI_SCAN_DIR", "/etc/a", sets("PHP_INI_SCAN_DIR", ":/b")), "/etc/a:/b");
  EXPECT_EQ(kept("RUBYOPT", "-w", sets("RUBYOPT", "-rx")), "-w -rx");
}

TEST(Cures, WhatTheCallerSetsIsNotSetAnew) {
  const char* why = "the environment sets MALLOC_ARENA_MAX, and cure leaves that as it is";
  EXPECT_EQ(kept("MALLOC_ARENA_MAX", "4", sets("MALLOC_ARENA_MAX", "2")), why);
  EXPECT_EQ(kept("MALLOC_ARENA_MAX", "4", sets("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")), why);
  EXPECT_THAT(kept("MALLOC_TOP_PAD_", "4096", sets("GLIBC_TUNABLES", "glibc.malloc.top_pad=5")),
              HasSubstr("sets MALLOC_TOP_PAD_,"));
  EXPECT_THAT(kept("PYTHONMALLOC", "debug", sets("PYTHONMALLOC", "malloc")),
              HasSubstr("sets PYTHONMALLOC,"));
  EXPECT_THAT(kept("GLIBC_TUNABLES", "glibc.malloc.arena_max=4", sets("MALLOC_ARENA_MAX", "2")),
              HasSubstr("sets glibc.malloc.arena_max in GLIBC_TUNABLES,"));
  EXPECT_THAT(kept("GLIBC_TUNABLES", "a=1:b=2", sets("GLIBC_TUNABLES", "c=1:b=3")),
              HasSubstr("sets b in GLIBC_TUNABLES,"));
  EXPECT_THAT(kept("COWSHED", "off", sets("COWSHED", "gc")), HasSubstr("sets COWSHED,"));
}

TEST(Cures, OfAnUnknownLanguageAllArePossible) {
  EXPECT_EQ(cures_for({}, cow::Language::native).size(), 15U);
  EXPECT_EQ(cures_for({}, cow::Language::python).size(), 11U);
}

}  // namespace
}  // namespace cowshed::cowtop
