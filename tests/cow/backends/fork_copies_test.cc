#include <cowshed/cow/cause_names.h>
#include <cowshed/cow/fork_copies.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

ProcessCopies process(pid_t pid, pid_t ppid, std::uint64_t anon, std::uint64_t files) {
  ProcessCopies result;
  result.pid = pid;
  result.ppid = ppid;
  result.start_ns = static_cast<std::uint64_t>(pid);
  result.role = ppid == 1 ? Role::root : Role::child;
  result.execs = ppid == 1 ? 1 : 0;
  result.copied_anon_pages = anon;
  result.copied_file_pages = files;
  if (ppid != 1) result.shared_at_fork_bytes = 100 * kPageSize;
  return result;
}

std::vector<ForkCopies> copies_of(std::vector<ProcessCopies> processes) {
  Measurement measurement;
  measurement.exact = true;
  measurement.processes = std::move(processes);
  return fork_copies(measurement);
}

TEST(ForkCopies, AreOfPagesThatAForkShared) {
  ProcessCopies child = process(2, 1, 10, 20);
  child.copied_shared_file_pages = 3;
  child.arenas = {{"index", 1 << 20, 4}};
  const ForkCopies copies = copies_of({child})[0];
  EXPECT_EQ(copies.copied_pages, 17U);
  EXPECT_EQ(copies.copied_bytes(), 17 * kPageSize);
}

TEST(ForkCopies, NewIsWhatAChildTouchedFirstAndKept) {
  ProcessCopies child = process(11, 10, 25, 0);
  child.zero_filled_pages = 60;
  const auto new_pages = [&] { return copies_of({process(10, 1, 0, 0), child})[1].new_bytes; };
  EXPECT_EQ(new_pages(), 60 * kPageSize) << "so little that it is not sampled";
  child.zero_filled_pages = 6000;
  EXPECT_EQ(new_pages(), std::nullopt) << "nobody looked";
  child.most_risen_bytes = 500 * kPageSize;
  EXPECT_EQ(new_pages(), 500 * kPageSize) << "it never had more";
  child.memory = {0, 325 * kPageSize, 1, 5000};
  EXPECT_EQ(new_pages(), 500 * kPageSize) << "it had less when it was looked at";
  child.alive = true;
  child.zero_filled_pages = 5100;
  EXPECT_EQ(new_pages(), 400 * kPageSize) << "300 then, and 100 since";
  child.most_risen_bytes.reset();
  child.zero_filled_pages = 60;
  child.memory = {0, 65 * kPageSize, 1, 50};
  EXPECT_EQ(new_pages(), 50 * kPageSize) << "40 when they were looked at, and 10 since";
  child.memory = {0, 95 * kPageSize, 1, 60};
  EXPECT_EQ(new_pages(), 60 * kPageSize) << "the rest is what it is the last to share";
  EXPECT_EQ(copies_of({process(10, 1, 0, 0), child, process(12, 11, 0, 0)})[1].new_bytes,
            60 * kPageSize)
      << "though its child shares it";
}

TEST(ForkCopies, WhatItHeldAtItsEndTellsWhatItGaveBackAndWhatNoWriteFaultMade) {
  ProcessCopies child = process(11, 10, 10, 0);
  child.memory = {100 * kPageSize, 0, 1, 0};
  child.zero_filled_pages = 0;
  const auto copies = [&] { return copies_of({process(10, 1, 0, 0), child})[1]; };
  EXPECT_EQ(copies().still_shared_bytes, 90 * kPageSize);
  child.held_at_end_bytes = 40 * kPageSize;
  EXPECT_EQ(copies().still_shared_bytes, 30 * kPageSize);
  child.memory.reset();
  child.held_at_end_bytes = 1100 * kPageSize;
  EXPECT_EQ(copies().new_bytes, 1000 * kPageSize);
  EXPECT_EQ(copies().unfaulted_bytes, 1000 * kPageSize);
  child.memory = {90 * kPageSize, 410 * kPageSize, 1, 410};
  child.zero_filled_pages = 1000;
  EXPECT_EQ(copies().new_bytes, 1000 * kPageSize) << "what it touched since is in it";
  child.memory.reset();
  child.zero_filled_pages = 0;
  child.held_at_end_bytes.reset();
  EXPECT_EQ(copies().new_bytes, 0U);
  child.most_resident_bytes = 9000 * kPageSize;
  EXPECT_EQ(copies().new_bytes, std::nullopt) << "nobody looked at what no write fault made";
}

TEST(ForkCopies, WhatItGaveBackOfItsForkIsNotTakenForNewMemoryThatIsGone) {
  ProcessCopies child = process(11, 10, 0, 0);
  child.zero_filled_pages = 60;
  child.held_at_end_bytes = 60 * kPageSize;
  EXPECT_EQ(new_bytes_at_end(child), 0U) << "as far as is known";
  child.memory = {0, 60 * kPageSize, 1, 60};
  EXPECT_EQ(new_bytes_at_end(child), 60 * kPageSize);
}

TEST(ForkCopies, TheRatioIsTheQuotientOfItsAmounts) {
  const auto copies =
      copies_of({process(10, 1, 0, 0), process(11, 10, 25, 7), process(12, 10, 150, 0)});
  EXPECT_EQ(copies[0].copied_ratio(), std::nullopt);
  EXPECT_EQ(copies[1].copied_ratio(), 0.25);
  EXPECT_EQ(copies[2].copied_ratio(), 1.5) << "further forks shared pages again";
  EXPECT_EQ(copies[1].still_shared_bytes, 75 * kPageSize);
  EXPECT_EQ(copies[2].still_shared_bytes, std::nullopt);
}

TEST(ForkCopies, OfTheProgramsEndAreApart) {
  ProcessCopies child = process(11, 10, 100, 0);
  child.patterns = {{std::string(kProgramExit), 0.25, 10, ""}};
  const ForkCopies copies = copies_of({process(10, 1, 0, 0), child})[1];
  EXPECT_EQ(copies.copied_pages, 75U);
  EXPECT_EQ(copies.exit_pages, 25U);
}

TEST(ForkCopies, AnExecEndsTheSharing) {
  ProcessCopies executed = process(11, 10, 50, 30);
  executed.execs = 1;
  executed.copied_pages_before_exec = 5;
  const auto alone = copies_of({process(10, 1, 0, 0), executed});
  EXPECT_EQ(alone[1].copied_pages, 5U);
  EXPECT_EQ(alone[1].shared_bytes, std::nullopt);
  EXPECT_EQ(alone[1].copied_ratio(), std::nullopt);
  EXPECT_EQ(alone[0].forks, 0U);
  const auto with_child = copies_of({process(10, 1, 0, 0), executed, process(12, 11, 0, 0)});
  EXPECT_EQ(with_child[1].copied_pages, 50U) << "45 of them for its own child";
  EXPECT_EQ(with_child[1].copied_for_children_bytes, 45 * kPageSize);
  EXPECT_EQ(with_child[1].forks, 1U);
}

TEST(ForkCopies, AFileOfDataIsSharedByWhoeverMapsIt) {
  ProcessCopies child = process(11, 10, 10, 30);
  child.files = {{"model", 400 * kPageSize, 20}};
  child.memory = {80 * kPageSize, 30 * kPageSize, 1};
  ForkCopies copies = copies_of({process(10, 1, 0, 0), child})[1];
  EXPECT_EQ(copies.copied_pages, 30U);
  EXPECT_EQ(copies.shared_bytes, 500 * kPageSize);
  EXPECT_EQ(copies.still_shared_bytes, 460 * kPageSize) << "it gave 10 pages back";
  child.files[0].held_bytes = 60 * kPageSize;
  EXPECT_EQ(copies_of({process(10, 1, 0, 0), child})[1].still_shared_bytes, 140 * kPageSize)
      << "it unmapped the rest";
  child.files[0].written_bytes = 50 * kPageSize;
  EXPECT_EQ(copies_of({process(10, 1, 0, 0), child})[1].shared_bytes, 450 * kPageSize)
      << "the fork shared them";
  child.copied_file_pages = 20;
  child.files[0].copied_again_pages = 15;
  EXPECT_EQ(first_write_bytes(child), 5 * kPageSize) << "the others were anonymous before";
  child.zero_filled_pages = 0;
  child.memory.reset();
  EXPECT_EQ(copies_of({process(10, 1, 0, 0), child})[1].own_bytes, 30 * kPageSize);
  child.execs = 1;
  child.files[0] = {"model", 400 * kPageSize, 20};
  child.copied_pages_before_exec = 5;
  copies = copies_of({process(10, 1, 0, 0), child})[1];
  EXPECT_EQ(copies.copied_pages, 25U);
  EXPECT_EQ(copies.shared_bytes, 400 * kPageSize);
  EXPECT_EQ(copies.copied_ratio(), 0.0625);
}

TEST(ForkCopies, BeforeAnExecStayWhenTheNewProgramForks) {
  ProcessCopies executed = process(11, 10, 50, 30);
  executed.execs = 1;
  executed.copied_pages_before_exec = 60;  // 10 are first writes to files
  executed.patterns = {{std::string(kProgramExit), 0.5, 10, ""}};
  for (const auto& copies : {copies_of({process(10, 1, 0, 0), executed}),
                             copies_of({process(10, 1, 0, 0), executed, process(12, 11, 0, 0)})}) {
    EXPECT_EQ(copies[1].copied_pages, 60U);
    EXPECT_EQ(copies[1].exit_pages, 0U) << "the new program's end copied none of them";
  }
}

TEST(ForkCopies, AVforkCopiesForTheProcessWhoseMemoryItIs) {
  ProcessCopies child = process(11, 10, 50, 30);
  child.shares_memory = true;
  ProcessCopies further = process(12, 11, 5, 0);
  further.shares_memory = true;
  const auto copies = copies_of({process(10, 1, 7, 9), child, further});
  EXPECT_EQ(copies[0].copied_pages, 62U);
  EXPECT_EQ(copies[1].copied_pages, 0U);
  EXPECT_EQ(copies[2].copied_pages, 0U);
  EXPECT_EQ(copies[0].written_pages + copies[1].written_pages, 57U);
}

TEST(ForkCopies, OfAnOlderChildAreOfWhatItSharedWhenTheMeasurementBegan) {
  ProcessCopies older = process(11, 10, 30, 0);
  older.shared_at_fork_bytes.reset();
  EXPECT_TRUE(is_older(older));
  EXPECT_EQ(copies_of({older})[0].copied_ratio(), std::nullopt);
  older.memory = {70 * kPageSize, 0, 0};
  EXPECT_EQ(copies_of({older})[0].copied_ratio(), 0.3);
  older.shared_before_bytes = 60 * kPageSize;
  EXPECT_EQ(copies_of({older})[0].copied_ratio(), 0.5) << "a child of its own shares the rest";
  older.resident_before_bytes = 160 * kPageSize;
  older.memory = {0, 100 * kPageSize, 0};
  EXPECT_EQ(copies_of({older})[0].still_shared_bytes, 0U) << "it had those alone before";
  older.copied_anon_pages = older.zero_filled_pages = 0;
  older.resident_before_bytes = 6000 * kPageSize;
  older.shared_before_bytes = 4000 * kPageSize;
  older.memory = {4000 * kPageSize, 2000 * kPageSize, 0};
  older.held_at_end_bytes = 2000 * kPageSize;
  EXPECT_EQ(copies_of({older})[0].still_shared_bytes, std::nullopt) << "it gave back either part";
}

TEST(ForkCopies, NewInAnOlderChildIsByWhatItGrewSinceTheBegin) {
  ProcessCopies older = process(11, 10, 30, 0);
  older.shared_at_fork_bytes.reset();
  older.zero_filled_pages = 1000;
  EXPECT_EQ(copies_of({older})[0].new_bytes, std::nullopt) << "nobody looked";
  older.memory = {70 * kPageSize, 130 * kPageSize, 1, 900};
  older.resident_before_bytes = 80 * kPageSize;
  EXPECT_EQ(copies_of({older})[0].new_bytes, 220 * kPageSize) << "100 since the last look";
  older.most_risen_bytes = 225 * kPageSize;
  EXPECT_EQ(copies_of({older})[0].new_bytes, 225 * kPageSize) << "it gave older memory back";
  older.most_risen_bytes.reset();
  older.zero_filled_pages = 90;
  older.memory->touched_pages = 90;
  EXPECT_EQ(copies_of({older})[0].new_bytes, 90 * kPageSize) << "the rest was no write";
  older.memory->private_bytes = 1130 * kPageSize;
  EXPECT_EQ(copies_of({older})[0].new_bytes, 1120 * kPageSize) << "but much was populated";
  older.memory->private_bytes = 130 * kPageSize;
  older.held_at_end_bytes = 1200 * kPageSize;
  EXPECT_EQ(copies_of({older})[0].new_bytes, 1120 * kPageSize) << "after the look";
}

TEST(ForkCopies, OfCopiesThatWereGivenBackOnlyALookTells) {
  ProcessCopies child = process(11, 10, 2000, 0);
  child.shared_at_fork_bytes = 4000 * kPageSize;
  child.held_at_end_bytes = 2000 * kPageSize;
  const auto still_shared = [&] { return copies_of({child})[0].still_shared_bytes; };
  EXPECT_EQ(still_shared(), std::nullopt) << "the copies, or what it never wrote to";
  child.memory = {2000 * kPageSize, 0, 1};
  EXPECT_EQ(still_shared(), 2000 * kPageSize) << "the copies";
  child.memory = {0, 2000 * kPageSize, 1};
  EXPECT_EQ(still_shared(), 0);
}

// It copies them again, so that COPIED may exceed what it got.
TEST(ForkCopies, WhatItHasUndoneItSharesAgain) {
  ProcessCopies child = process(11, 10, 0, 6000);
  child.role = Role::child;
  child.shared_at_fork_bytes = 4000 * kPageSize;
  child.copied_shared_file_pages = 6000;
  child.memory = {3000 * kPageSize, 1000 * kPageSize, 1};
  const auto still_shared = [&] { return copies_of({child})[0].still_shared_bytes; };
  EXPECT_EQ(still_shared(), std::nullopt);
  child.memory->undone_bytes = 5000 * kPageSize;
  EXPECT_EQ(still_shared(), 3000 * kPageSize);
  EXPECT_FALSE(is_memory_stale(child));
}

TEST(ForkCopies, OwnAfterTheEndIsTheMostAtOneTime) {
  ProcessCopies child = process(11, 10, 250, 0);
  child.zero_filled_pages = 40;
  const auto own = [&] { return copies_of({process(10, 1, 0, 0), child})[1].own_bytes; };
  EXPECT_EQ(own(), 140 * kPageSize) << "it copied some pages again";
  child.most_resident_bytes = 110 * kPageSize;
  EXPECT_EQ(own(), 110 * kPageSize) << "it gave some back before it touched others";
  child.copied_anon_pages = 0;
  EXPECT_EQ(own(), 40 * kPageSize);
  child.memory = {0, 90 * kPageSize, 1, 40};
  EXPECT_EQ(own(), 90 * kPageSize) << "it was the last to share them";
}

TEST(ForkCopies, UnknownCountsAreNotZero) {
  ProcessCopies root = process(10, 1, 0, 0);
  root.copied_anon_pages.reset();
  EXPECT_EQ(copies_of({root})[0].copied_pages, std::nullopt);
}

ProcessCopies tree_process(pid_t pid, pid_t ppid, Role role, std::optional<std::uint64_t> pages) {
  ProcessCopies result;
  result.pid = pid;
  result.ppid = ppid;
  result.role = role;
  result.copied_anon_pages = pages;
  result.copied_file_pages = 0;
  return result;
}

TEST(Subtrees, OfSeveralRoots) {
  Measurement measurement;
  measurement.processes = {tree_process(10, 1, Role::root, 1), tree_process(20, 1, Role::root, 2),
                           tree_process(21, 20, Role::child, 4),
                           tree_process(15, 99, Role::child, 1000)};  // of whom, is not known
  const auto trees = subtrees(measurement);
  EXPECT_EQ(trees[0].copied_pages, 1U);
  EXPECT_EQ(trees[1].copied_pages, 6U);
  EXPECT_EQ(trees[3].copied_pages, 1000U);
}

TEST(Subtrees, OfNestedWorkers) {
  Measurement measurement;
  measurement.processes = {
      tree_process(10, 1, Role::root, std::nullopt),
      tree_process(11, 10, Role::child, 5),
      tree_process(12, 11, Role::child, 7),
      tree_process(13, 10, Role::child, std::nullopt),
      tree_process(12, 13, Role::child, 20),    // the PID again
      tree_process(14, 12, Role::child, 30),    // its child
      tree_process(15, 99, Role::child, 1000),  // of a parent that was not seen
      tree_process(10, 15, Role::child, 0)      // the root's PID again
  };
  const auto trees = subtrees(measurement);
  ASSERT_EQ(trees.size(), 8U);
  EXPECT_EQ(trees[0].copied_pages, 5U + 7U + 20U + 30U + 1000U);
  EXPECT_EQ(trees[0].processes, 8U);
  EXPECT_EQ(trees[1].copied_pages, 12U);
  EXPECT_EQ(trees[2].copied_pages, 7U);
  EXPECT_EQ(trees[3].copied_pages, 50U);
  EXPECT_EQ(trees[3].processes, 3U);
  EXPECT_EQ(trees[4].copied_pages, 50U);
  EXPECT_EQ(trees[6].copied_pages, 1000U);
  EXPECT_EQ(trees[6].processes, 2U);
}

}  // namespace
}  // namespace cowshed::cow
