#include <cowshed/cow/code_reader/python_lines.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

using Table = std::vector<std::uint8_t>;

// Of each instruction in `instructions`.
std::vector<int> lines_at(const std::vector<PythonLine>& lines,
                          const std::vector<std::uint32_t>& instructions) {
  std::vector<int> result;
  for (const std::uint32_t each : instructions)
    result.push_back(lines[line_index(lines, each)].line);
  return result;
}

// def total(rows):
//     # a comment
//     result = 0
//     for row in rows:
//         result += (
//             row
//             .value)
//     return result
TEST(PythonLines, AreThoseOfDebiansPython) {
  const auto lines = parse_python_lines(
      1, Table{0x80, 0x00, 0xe0, 0x0d, 0x0e, 0x80, 0x46, 0xd8, 0x0f, 0x13, 0xf0, 0x00,
               0x03, 0x05, 0x14, 0xf0, 0x00, 0x03, 0x05, 0x14, 0x88, 0x03, 0xd8, 0x08,
               0x0e, 0xd8, 0x0c, 0x0f, 0xdc, 0x0d, 0x12, 0xf1, 0x05, 0x02, 0x09, 0x14,
               0x88, 0x06, 0x88, 0x06, 0xf0, 0x06, 0x00, 0x0c, 0x12, 0x80, 0x4d});
  EXPECT_THAT(lines_at(lines, {0, 1, 2, 3, 6, 7, 8, 9, 13, 14, 17, 18, 19}),
              ElementsAre(1, 3, 3, 4, 4, 5, 6, 7, 7, 5, 5, 8, 8));
  EXPECT_THAT(lines_at(lines, {20, 1000}), ElementsAre(0, 0)) << "behind the function";
}

TEST(PythonLines, MayJumpFarInEitherDirection) {
  // A long entry +100, one without columns -70, one without a place.
  const auto lines =
      parse_python_lines(7, Table{0xf0, 0x48, 0x03, 0x00, 0x01, 0x01, 0xe9, 0x4d, 0x02, 0xfa});
  EXPECT_THAT(lines_at(lines, {0, 1, 2, 3, 5}), ElementsAre(107, 37, 37, 37, 37));
}

TEST(PythonLines, OfATableThatIsCutOffAreThoseOfItsBeginning) {
  EXPECT_THAT(lines_at(parse_python_lines(5, Table{0x87, 0x00, 0xe8}), {0, 7, 8, 9}),
              ElementsAre(5, 5, 5, 0));
  EXPECT_THAT(lines_at(parse_python_lines(5, {}), {0, 9}), ElementsAre(0, 0));
  EXPECT_EQ(line_index({}, 3), 0U);
}

TEST(PythonLines, OfAForgedTableAreBounded) {
  Table endless;
  while (endless.size() < 100'000) endless.insert(endless.end(), {0xd8, 0x00, 0x00});
  const auto many = parse_python_lines(1, endless);
  EXPECT_EQ(many.size(), kMostPythonLines);
  EXPECT_EQ(many.back().line, 0);

  Table greatest;
  for (int i = 0; i < 1000; ++i)
    greatest.insert(greatest.end(), {0xe8, 0x7e, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x3f});
  for (const PythonLine& each : parse_python_lines(INT32_MAX, greatest)) EXPECT_EQ(each.line, 0);
  EXPECT_THAT(lines_at(parse_python_lines(-3, Table{0x80, 0x00}), {0}), ElementsAre(0));
}

TEST(PythonLines, OfAnyBytesAreInOrder) {
  std::mt19937 random(1);
  for (int i = 0; i < 2000; ++i) {
    Table table(random() % 64);
    for (std::uint8_t& byte : table) byte = static_cast<std::uint8_t>(random());
    const auto lines = parse_python_lines(static_cast<int>(random() % 1000), table);
    ASSERT_FALSE(lines.empty());
    EXPECT_EQ(lines.back().line, 0);
    for (std::size_t at = 1; at < lines.size(); ++at)
      EXPECT_LE(lines[at - 1].instruction, lines[at].instruction);
    EXPECT_LT(line_index(lines, static_cast<std::uint32_t>(random())), lines.size());
  }
}

}  // namespace
}  // namespace cowshed::cow
