#include <cowshed/cow/code_reader/local_code_reader.h>
#include <cowshed/cow/symbolize/python_frames.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

class CountingReader : public LocalCodeReader {
 public:
  CountingReader() : LocalCodeReader([](auto, auto, const auto&) { return FileDescriptor(); }) {}
  std::vector<PythonLine> python_lines(const PythonCode& code) override {
    ++questions;
    return LocalCodeReader::python_lines(code);
  }
  int questions = 0;
};

// Two instructions of its first line, then two of the next.
std::shared_ptr<PythonCode> code_of(const std::string& function, int first_line = 4) {
  return std::make_shared<PythonCode>(
      PythonCode{function, "/app/pool.py", first_line, {0x81, 0x00, 0xd9, 0x00, 0x00}});
}

TEST(PythonFrames, AreTheLinesOfCalls) {
  CountingReader reader;
  PythonFrames frames;
  const auto total = code_of("total");
  const Frame* first = frames.frame({total, 1, false}, reader);
  EXPECT_EQ(python_text(*first), "total (pool.py:4)");
  EXPECT_TRUE(first->is_python);
  EXPECT_EQ(python_text(*frames.frame({total, 2, false}, reader)), "total (pool.py:5)");
  EXPECT_EQ(python_text(*frames.frame({total, 99, false}, reader)), "total (pool.py)");
  EXPECT_EQ(frames.frame({total, 0, false}, reader), first) << "the same line is the same frame";
}

TEST(PythonFrames, OneQuestionForTheCodeOfAThousandWorkers) {
  CountingReader reader;
  PythonFrames frames;
  const Frame* first = frames.frame({code_of("total"), 0, false}, reader);
  for (int i = 0; i < 1000; ++i)
    EXPECT_EQ(frames.frame({code_of("total"), 1, false}, reader), first);
  EXPECT_EQ(reader.questions, 1);
  frames.frame({code_of("total", 40), 0, false}, reader);
  EXPECT_EQ(reader.questions, 2) << "of the same name";
}

TEST(PythonFrames, CodeThatCouldNotBeReadSaysSo) {
  CountingReader reader;
  PythonFrames frames;
  EXPECT_EQ(python_text(*frames.frame({nullptr, 0, false}, reader)), "unknown Python code");
  EXPECT_EQ(reader.questions, 0);
}

TEST(PythonFrames, EndlesslyManyFunctionsTakeLittleMemory) {
  constexpr int kFunctions = 40'000;
  CountingReader reader;
  PythonFrames frames;
  const Frame* first = frames.frame({code_of("total"), 0, false}, reader);
  for (int i = 0; i < kFunctions; ++i) frames.frame({code_of(std::to_string(i)), 0, false}, reader);
  EXPECT_EQ(python_text(*frames.frame({code_of("last"), 0, false}, reader)), "further Python code");
  EXPECT_EQ(frames.frame({code_of("total"), 0, false}, reader), first) << "is still known";
  const auto huge = code_of(std::string(100'000, 'x'));
  EXPECT_LT(PythonFrames().frame({huge, 0, false}, reader)->function.size(), 2000U);
}

TEST(PythonFrames, AFileThatEachPackageHasIsShownWithItsPackage) {
  Frame frame{"load", "/app/models/__init__.py", 3, "", 0, false, true};
  EXPECT_EQ(python_text(frame), "load (models/__init__.py:3)");
  frame.file = "__init__.py";
  EXPECT_EQ(python_text(frame), "load (__init__.py:3)");
  frame.file = "/__main__.py";
  EXPECT_EQ(python_text(frame), "load (__main__.py:3)");
}

}  // namespace
}  // namespace cowshed::cow
