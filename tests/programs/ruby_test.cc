#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cowshed/tests/programs/real_program.h>

namespace cowshed::test {
namespace {

using ::testing::Contains;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;

constexpr const char* kRuby = "/usr/bin/ruby";

class Ruby : public RealProgram {
 protected:
  Ruby() : RealProgram({kRuby}) {}
};

// Its collector marks in bits of its own and, in each object, its age; and it sweeps through all
// objects.  Debian's library has no symbols for that: then the pattern is unknown, and is not
// called by another's name.
TEST_F(Ruby, ItsCollectorIsNotTakenForReferenceCounts) {
  const auto ruby = [](const std::string& in_child) -> std::vector<std::string> {
    return {kRuby, "-e",
            "items = Array.new(200000) { |i| i.to_s + 'x' * 30 }\n"
            "pid = fork do\n" +
                in_child +
                "  exit!(0)\n"
                "end\n"
                "Process.wait(pid)\n"};
  };
  const std::string read = "  items.each { |item| item.size }\n";
  const MeasuredRun reading = measure(ruby(read));
  const MeasuredRun collecting = measure(ruby(read + "  GC.start\n"));
  const Json& ours = collecting.process(collecting.child());
  ASSERT_TRUE(ours.is_object() && reading.child() != 0);
  show("ruby", collecting, collecting.child());
  const double for_all = collecting.copies(collecting.child());
  const double for_reading = reading.copies(reading.child());
  EXPECT_GT(for_all, 10 * for_reading);
  expect_share(ours, "reference count", 0, for_reading / for_all);
  EXPECT_EQ(patterns(ours).at(0), "unknown");
  EXPECT_THAT(patterns(ours), Contains("allocator free list"));
  // Two that have no name, called from the interpreter's loop; and what frees a swept object's
  // text.
  EXPECT_THAT(places(ours, 3), UnorderedElementsAre(StartsWith("rb_vm_exec (libruby"),
                                                    StartsWith("ruby_sized_xfree (libruby"),
                                                    StartsWith("rb_vm_exec (libruby")));
  EXPECT_THAT(mappings(ours, 2), UnorderedElementsAre("anonymous", "[heap]"));
}

}  // namespace
}  // namespace cowshed::test
