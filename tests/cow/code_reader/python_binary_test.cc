#include <cowshed/cow/code_reader/local_code_reader.h>
#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/test.h>

// The layout of CPython in a file, which may be forged.

namespace cowshed::cow {
namespace {

constexpr std::size_t kWord = sizeof(std::uint64_t);

std::optional<PythonLayout> layout_of(const std::string& path) {
  LocalCodeReader reader([&](CodeReader::BinaryId, FileKind, const std::string&) {
    return FileDescriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  });
  if (!reader.add_binary(1, path)) return std::nullopt;
  return reader.python_layout(1);
}

class ForgedTable : public ::testing::Test {
 protected:
  // Returns the layout of a program with another word in its table.
  std::optional<PythonLayout> with(std::size_t place, std::uint64_t word) const {
    std::string bytes = cowshed::test::contents_of(FORGED_PYTHON);
    const std::size_t table = bytes.find("xdebugpy");
    bytes.replace(table + place * kWord, kWord, reinterpret_cast<const char*>(&word), kWord);
    const auto path = folder_ / "forged";
    cowshed::test::write_file(path, bytes);
    return layout_of(path);
  }

  const cowshed::test::Folder folder_;
};

TEST_F(ForgedTable, GivesItsOffsets) {
  const auto layout = with(5, 1024);
  ASSERT_TRUE(layout);
  EXPECT_EQ(layout->interpreters, 1024U);
  EXPECT_EQ(layout->code, 200U);
  EXPECT_NE(layout->runtime, 0U);
}

TEST_F(ForgedTable, IsRefusedWithAnOffsetOutsideOfItsStructure) {
  EXPECT_FALSE(with(5, 1 << 20)) << "in _PyRuntime";
  EXPECT_FALSE(with(9, ~0ULL)) << "in an interpreter";
  EXPECT_FALSE(with(29, 80)) << "beyond a frame";
  EXPECT_FALSE(with(31, 57)) << "not aligned";
  EXPECT_FALSE(with(33, 80)) << "beyond a frame";
  EXPECT_FALSE(with(37, 200)) << "beyond a code object's header";
  EXPECT_FALSE(with(43, 1024)) << "too long a header";
}

TEST_F(ForgedTable, IsRefusedForOtherVersions) {
  EXPECT_FALSE(with(1, 0x031000f0)) << "3.16";
  EXPECT_FALSE(with(2, 1)) << "without a lock";
  EXPECT_FALSE(with(0, 0)) << "no table, and no version";
}

TEST(PythonBinary, AProgramWithoutAnInterpreterHasNoLayout) {
  EXPECT_FALSE(layout_of("/proc/self/exe"));
}

}  // namespace
}  // namespace cowshed::cow
