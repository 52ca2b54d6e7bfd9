#include <cowshed/cow/code_reader/python_lines.h>
#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

// Prints a line for each function of some modules: the first line, the table, INSTRUCTION:LINE...
constexpr const char* kProgram = R"(
import sys
def walk(code):
    lines = [f"{begin // 2}:{line}" for begin, end, line in code.co_lines() if line]
    print(code.co_firstlineno, code.co_linetable.hex() or "-", *lines)
    for each in code.co_consts:
        if hasattr(each, "co_linetable"):
            walk(each)
for module in "argparse", "inspect", "pickle", "multiprocessing.pool", "typing", "tarfile":
    __import__(module)
    file = sys.modules[module].__file__
    walk(compile(open(file).read(), file, "exec"))
)";

TEST(PythonLinesOfCPython, AreTheInterpretersOwn) {
  const cowshed::test::Folder folder;
  const std::string output = folder / "lines";
  ASSERT_EQ(
      cowshed::test::run({"/bin/sh", "-c", "/usr/bin/python3 -c \"$0\" > \"$1\"", kProgram, output})
          .exit_status(),
      0);
  std::ifstream file(output);
  std::size_t checked = 0;
  for (std::string text; std::getline(file, text);) {
    std::istringstream words(text);
    int first_line = 0;
    std::string hex;
    words >> first_line >> hex;
    std::vector<std::uint8_t> table;
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
      table.push_back(static_cast<std::uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
    const auto lines = parse_python_lines(first_line, table);
    std::uint32_t instruction = 0;
    int line = 0;
    for (char colon = 0; words >> instruction >> colon >> line; ++checked)
      ASSERT_EQ(lines[line_index(lines, instruction)].line, line) << text;
  }
  EXPECT_GT(checked, 10'000U);
}

}  // namespace
}  // namespace cowshed::cow
