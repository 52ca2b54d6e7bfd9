#include <fmt/format.h>

#include <cowshed/base/clock.h>
#include <cowshed/cow/profile/address_spaces.h>
#include <cowshed/cow/profile/profile.h>
#include <cowshed/tests/cow/proc/fake_proc.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kNsPerMs = 1'000'000;

class AddressSpacesOf : public FakeProc {
 protected:
  void map(const std::string& lines) const { write("7/maps", lines); }
  // As seen then.
  void parent_at(std::uint64_t ms, bool alive = true, std::uint32_t execs = 0) {
    ProcessCounts counts;
    counts.id = 1;
    counts.pid = 7;
    counts.alive = alive;
    counts.execs = execs;
    spaces_.update(counts, ms * kNsPerMs);
  }
  void child_at(std::uint64_t ms, std::uint64_t started_ms, bool alive = false,
                std::uint64_t parent = 1) {
    ProcessCounts counts;
    counts.id = 2;
    counts.parent_id = parent;
    counts.pid = 8;
    counts.start_ns = started_ms * kNsPerMs;
    counts.alive = alive;
    spaces_.update(counts, ms * kNsPerMs);
  }
  const AddressSpace* space_of(std::uint64_t process_id, std::uint64_t address) {
    CopySample sample;
    sample.process_id = process_id;
    sample.address = address;
    sample.registers[static_cast<std::size_t>(Register::instruction_pointer)] = 0x5000;
    return spaces_.at(sample);
  }
  // Whether it is known what was mapped at 0x1000 when the process was sampled.
  bool knows(std::uint64_t process_id) {
    const AddressSpace* space = space_of(process_id, 0x1000);
    return space != nullptr && space->find(0x1000) != nullptr;
  }

  BinaryCache binaries_{proc()};
  const AddressSpaces::OnInterpreter ignore_ = [](std::uint64_t, const PythonLayout&) {};
  AddressSpaces spaces_{proc(), binaries_, ignore_};
  const std::string with_it_ = "1000-2000 rw-p 00000000 00:00 0\n5000-6000 rw-p 00000000 00:00 0\n";
  const std::string without_it_ = "5000-6000 rw-p 00000000 00:00 0\n";
};

// As where it ends, or is seen, only when its parent has given back what it shared with it.
TEST_F(AddressSpacesOf, AChildSeenLateHasWhatItsParentHadAtTheFork) {
  map(with_it_);
  parent_at(100);
  EXPECT_TRUE(knows(1));
  map(without_it_);
  spaces_.keep_up(900 * kNsPerMs);
  EXPECT_FALSE(knows(1)) << "was not read again";
  parent_at(910, false);
  child_at(910, 110);
  EXPECT_TRUE(knows(2));
}

TEST_F(AddressSpacesOf, WhatIsMappedBetweenTwoSnapshotsIsReadMeanwhile) {
  map(without_it_);
  parent_at(100);
  map(with_it_);
  spaces_.keep_up(101 * kNsPerMs);
  spaces_.keep_up(200 * kNsPerMs);
  parent_at(210, false);
  EXPECT_TRUE(knows(1));
}

TEST_F(AddressSpacesOf, AfterAnExecNothingOfBeforeIsLeft) {
  map(with_it_);
  parent_at(100);
  std::filesystem::remove(root_ / "7/maps");
  parent_at(200, true, 1);
  parent_at(201, false, 1);
  child_at(202, 100);
  EXPECT_FALSE(knows(2));
}

TEST_F(AddressSpacesOf, APerfMapIsBelievedOfWhoRunsTheProcess) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give a file away";
  constexpr pid_t kNobodys = 2'000'000'000;
  const std::string path = fmt::format("/tmp/perf-{}.map", kNobodys);
  std::ofstream(path) << "5000 10 x\n";
  const auto folder = std::to_string(kNobodys);
  write(folder + "/maps", with_it_);
  write(folder + "/status", "Name:\tx\nUid:\t1000\t1000\t1000\t1000\n");
  ProcessCounts counts;
  counts.pid = kNobodys;
  CopySample sample;
  for (const auto& [owner, is_believed] : {std::pair{0U, true}, {1000U, true}, {1001U, false}}) {
    ASSERT_EQ(::chown(path.c_str(), owner, owner), 0);
    AddressSpaces spaces(proc(), binaries_, ignore_);
    counts.id = sample.process_id = owner;  // each is looked at once in a while
    spaces.update(counts, 100 * kNsPerMs);
    EXPECT_EQ(spaces.perf_map_of(sample) != nullptr, is_believed) << owner;
  }
  std::filesystem::remove(path);
}

TEST_F(AddressSpacesOf, AChildHasThePerfMapThatItsParentBeganJustBeforeTheFork) {
  const pid_t own = ::getpid();
  const std::string path = fmt::format("/tmp/perf-{}.map", own);
  ProcessCounts parent;
  parent.pid = own;
  parent.id = 1;
  spaces_.update(parent, monotonic_ns());
  CopySample sample;
  sample.process_id = 1;
  EXPECT_EQ(spaces_.perf_map_of(sample), nullptr);
  std::ofstream(path) << "5000 10 x\n";
  ProcessCounts child;
  child.pid = 8;
  child.id = sample.process_id = 2;
  child.parent_id = 1;
  spaces_.update(child, monotonic_ns());
  EXPECT_NE(spaces_.perf_map_of(sample), nullptr);
  std::filesystem::remove(path);
}

TEST_F(AddressSpacesOf, ThoseOfManyThatAreEqualAreOne) {
  map(with_it_);
  write("8/maps", with_it_);
  parent_at(100);
  child_at(100, 0, true, 0);
  ASSERT_NE(space_of(1, 0x5000), nullptr);
  EXPECT_EQ(space_of(1, 0x5000), space_of(2, 0x5000));
  write("8/maps", without_it_);
  spaces_.keep_up(900 * kNsPerMs);
  EXPECT_NE(space_of(1, 0x5000), space_of(2, 0x5000));
  EXPECT_FALSE(knows(2));
  EXPECT_TRUE(knows(1));
}

TEST_F(AddressSpacesOf, AProcessThatHasEndedIsForgotten) {
  map(with_it_);
  parent_at(100);
  child_at(100, 100, true);
  parent_at(200, false);
  for (int snapshot = 0; snapshot < 3; ++snapshot) spaces_.forget_ended();
  EXPECT_TRUE(spaces_.knows(1, 0)) << "a child has its code";
  child_at(300, 100);
  spaces_.forget_ended();
  EXPECT_TRUE(spaces_.knows(2, 0)) << "its last samples are still to come";
  spaces_.forget_ended();
  EXPECT_FALSE(spaces_.knows(2, 0));
  EXPECT_FALSE(spaces_.knows(1, 0));
  EXPECT_TRUE(spaces_.knows(1)) << "or a sample of it would be waited for";
}

// A program that executes another again and again ends before anybody has seen what it maps.
TEST_F(AddressSpacesOf, CodeThatNobodyCanNameIsOneSite) {
  Tallies sites(spaces_, binaries_);
  for (std::uint64_t i = 0; i < 100; ++i) {
    CopySample sample;
    sample.process_id = 9;
    sample.user_mode = true;
    sample.address = i << 30U;
    sample.registers[static_cast<std::size_t>(Register::instruction_pointer)] = i << 20U;
    sites.add(sample);
  }
  Symbolizer symbols;
  const SampledCopies found = profile_of(9, sites, {{9, 100}}, symbols);
  ASSERT_EQ(found.sites.size(), 1U);
  EXPECT_EQ(found.sites[0].samples, 100U);
  ASSERT_EQ(found.mappings.size(), 1U);
  EXPECT_EQ(found.mappings[0].name, "unknown");
  EXPECT_EQ(found.mappings[0].samples, 100U);
}

}  // namespace
}  // namespace cowshed::cow
