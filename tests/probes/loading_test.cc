#include <bpf/btf.h>

#include <cowshed/probes/loader/btf_constants.h>
#include <cowshed/probes/loader/clock_offset.h>
#include <cowshed/probes/loader/online_cpus.h>
#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/test.h>

// What the loader finds out about the machine, where the machine is another one.

namespace cowshed {
namespace {

class Machine : public ::testing::Test {
 protected:
  void write(const std::string& path, const std::string& text) const { folder_.write(path, text); }

  const test::Folder folder_;
  const std::filesystem::path& root_ = folder_.path();
};

TEST_F(Machine, OfManyPossibleCpusThoseThatAreOnlineCount) {
  write("sys/devices/system/cpu/possible", "0-1023\n");
  write("sys/devices/system/cpu/online", "0-2,7,9-10\n");
  EXPECT_THAT(online_cpus(root_), ElementsAre(0, 1, 2, 7, 9, 10));
  EXPECT_THAT(online_cpus(root_ / "nowhere"), ElementsAre(0));
}

TEST_F(Machine, AStartIsByTheTimeNamespacesClock) {
  EXPECT_EQ(monotonic_offset_ns(root_), 0);
  write("proc/self/timens_offsets",
        "monotonic           1         2\nboottime      86400 990000000\n");
  EXPECT_EQ(monotonic_offset_ns(root_), 1'000'000'002);
}

using Btf = std::unique_ptr<btf, decltype(&btf__free)>;

// A kernel's BTF with these two per-CPU variables, and that enumerator and member.
Btf kernel(const char* event, const char* member, const char* variable) {
  Btf made(btf__new_empty(), btf__free);
  const int number = btf__add_int(made.get(), "int", 4, BTF_INT_SIGNED);
  btf__add_enum(made.get(), "vm_event_item", 4);
  btf__add_enum_value(made.get(), event, 1);
  btf__add_struct(made.get(), "sched_entity", 4);
  btf__add_field(made.get(), member, number, 0, 0);
  const int events = btf__add_var(made.get(), variable, BTF_VAR_GLOBAL_ALLOCATED, number);
  const int queues = btf__add_var(made.get(), "runqueues", BTF_VAR_GLOBAL_ALLOCATED, number);
  btf__add_datasec(made.get(), ".data..percpu", 64);
  btf__add_datasec_var_info(made.get(), events, 16, 4);
  btf__add_datasec_var_info(made.get(), queues, 32, 4);
  return made;
}

TEST(BtfConstants, SplitsThatCannotBeCountedAreNotZero) {
  EXPECT_TRUE(
      read_btf_constants(*kernel("THP_SPLIT_PMD", "cfs_rq", "vm_event_states")).counts_splits);
  EXPECT_FALSE(read_btf_constants(*kernel("THP_SPLIT_PMD", "cfs_rq", "other")).counts_splits);
  EXPECT_FALSE(
      read_btf_constants(*kernel("THP_SPLIT_PMD", "other", "vm_event_states")).counts_splits);
  EXPECT_TRUE(read_btf_constants(*kernel("PGFAULT", "other", "other")).counts_splits)
      << "without huge pages there are none";
}

// A kernel's BTF with a tracepoint of so many arguments, and with that typedef.
Btf kernel_with(const char* type, int arguments) {
  Btf made(btf__new_empty(), btf__free);
  const int number = btf__add_int(made.get(), "int", 4, BTF_INT_SIGNED);
  const int function = btf__add_func_proto(made.get(), 0);
  for (int i = 0; i <= arguments; ++i) btf__add_func_param(made.get(), "", number);
  btf__add_typedef(made.get(), "btf_trace_mm_collapse_huge_page",
                   btf__add_ptr(made.get(), function));
  btf__add_typedef(made.get(), type, number);
  return made;
}

TEST(BtfConstants, PreemptionAndTheOrderOfACollapseAreKnownByTheirTypes) {
  const BtfConstants newest = read_btf_constants(*kernel_with("class_srcu_fast_notrace_t", 4));
  EXPECT_TRUE(newest.may_be_preempted);
  EXPECT_TRUE(newest.has_collapse_order);
  const BtfConstants older = read_btf_constants(*kernel_with("other", 3));
  EXPECT_FALSE(older.may_be_preempted);
  EXPECT_TRUE(older.has_collapse_events);
  EXPECT_FALSE(older.has_collapse_order);
}

}  // namespace
}  // namespace cowshed
