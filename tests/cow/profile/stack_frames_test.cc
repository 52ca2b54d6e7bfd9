#include <cowshed/cow/profile/stack_frames.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

Frame native(const std::string& function, const std::string& module = "/usr/bin/python3.11",
             bool inlined = false) {
  return {function, "", 0, module, 0, inlined};
}

Frame python(const std::string& function, const std::string& file, int line = 4) {
  return {function, file, line, "", 0, false, true};
}

std::vector<std::string> functions_of(const std::vector<Frame>& frames) {
  std::vector<std::string> functions;
  for (const Frame& each : frames) functions.push_back(each.function);
  return functions;
}

const Frame total_frame = python("total", "/app/pool.py");
const Frame module_frame = python("<module>", "/app/pool.py", 9);

std::vector<std::string> folded_into(const std::vector<Frame>& stack) {
  return functions_of(with_python_frames(stack, {&total_frame, &module_frame}));
}

TEST(StackFrames, PythonTakesThePlaceOfItsInterpreter) {
  EXPECT_THAT(
      folded_into({native("list_dealloc"), native("_PyEval_EvalFrameDefault"),
                   native("PyObject_Call"), native("_PyEval_EvalFrameDefault"), native("main")}),
      ElementsAre("list_dealloc", "total", "<module>"));
}

TEST(StackFrames, WhatIsInlinedIntoTheInterpreterIsOfIt) {
  EXPECT_THAT(folded_into({native("Py_INCREF", "/usr/bin/python3.11", true),
                           native("_PyEval_EvalFrameDefault"), native("main")}),
              ElementsAre("total", "<module>"));
}

TEST(StackFrames, AnInterpreterWithoutSymbolsIsKnownByItsFile) {
  EXPECT_THAT(folded_into({native("memcpy", "/lib/libc.so.6"), native("add", "/app/_core.so"),
                           native(""), native("PyObject_Call"), native(""), native("main")}),
              ElementsAre("memcpy", "add", "total", "<module>"));
  EXPECT_THAT(folded_into({native("add", "/app/_core.so"), native("", "/app/embeds_python")}),
              ElementsAre("add", "total", "<module>"));
  EXPECT_THAT(folded_into({native("", "/app/_core.so")}), ElementsAre("", "total", "<module>"))
      << "a library whose callers were not found is no interpreter";
}

TEST(StackFrames, AnExportedCompilerOfPythonStays) {
  EXPECT_THAT(folded_into({native("PyMem_Malloc"), native(""), native("_PyArena_Malloc"),
                           native(""), native("Py_CompileStringObject"), native(""),
                           native("_PyEval_EvalFrameDefault"), native("Py_CompileString")}),
              ElementsAre("PyMem_Malloc", "Py_CompileStringObject", "total", "<module>"));
  EXPECT_THAT(folded_into({native("PyMem_Malloc"), native(""), native("PyEval_EvalCode"),
                           native("PyRun_StringFlags"), native("_PyEval_EvalFrameDefault")}),
              ElementsAre("PyMem_Malloc", "total", "<module>"))
      << "runs what it compiled";
}

TEST(StackFrames, OfPythonNameTheInterpretersFile) {
  const auto frames = with_python_frames(
      {native("add", "/app/_core.so"), native("_PyEval_EvalFrameDefault")}, {&total_frame});
  EXPECT_EQ(frames.back().module, "/usr/bin/python3.11");
}

TEST(StackFrames, ThatAProgramEndsIsNotFolded) {
  EXPECT_THAT(folded_into({native("_PyEval_EvalFrameDefault"), native("atexit_callfuncs"),
                           native("Py_FinalizeEx"), native("main")}),
              ElementsAre("total", "<module>", "Py_FinalizeEx"));
}

std::string site_of(const std::vector<Frame>& stack) {
  return python_text(site_frames(stack).back());
}

TEST(StackFrames, TheSiteIsTheProgramsOwnInnermostLine) {
  EXPECT_EQ(site_of({native("list_dealloc"), total_frame, module_frame}), "total (pool.py:4)");
  EXPECT_THAT(functions_of(site_frames({native("list_dealloc"),
                                        python("loads", "/usr/lib/python3.11/pickle.py"),
                                        total_frame, module_frame})),
              ElementsAre("list_dealloc", "loads", "total"))
      << "with what it called";
  EXPECT_EQ(site_of({python("_handle_fromlist", "<frozen importlib._bootstrap>"), total_frame}),
            "total (pool.py:4)");
  EXPECT_EQ(
      site_of({python("get", "/srv/venv/lib/python3.12/site-packages/django/db.py"), total_frame}),
      "total (pool.py:4)");
}

TEST(StackFrames, GeneratedCodeIsNotTheProgramsLineUnlessItIsTheProgram) {
  const Frame made = python("<lambda>", "<string>", 1);  // as of a namedtuple
  const Frame package = python("get", "/usr/lib/python3/dist-packages/gunicorn/sync.py");
  const Frame thread = python("Thread.run", "/usr/lib/python3.11/threading.py");
  EXPECT_EQ(site_of({made, total_frame, module_frame}), "total (pool.py:4)");
  EXPECT_EQ(site_of({made, package, thread}), "get (sync.py:4)");
  EXPECT_EQ(site_of({made, thread}), "<lambda> (<string>:1)") << "in a thread of -c";
  EXPECT_EQ(site_of({thread, python("run", "<string>"), python("<module>", "<string>")}),
            "run (<string>:4)");
  EXPECT_EQ(site_of({python("__init__", "<attrs generated init x.Y>"), total_frame}),
            "total (pool.py:4)");
}

TEST(StackFrames, WithoutALineOfItsOwnTheSiteIsAPackages) {
  const Frame package = python("get", "/usr/lib/python3/dist-packages/gunicorn/sync.py");
  const Frame library = python("recv", "/usr/lib/python3.11/socket.py");
  EXPECT_EQ(site_of({library, package}), "get (sync.py:4)");
  EXPECT_EQ(site_of({native("list_dealloc"), library}), "recv (socket.py:4)");
  EXPECT_EQ(site_of({library, package, python("<module>", "/usr/bin/gunicorn")}),
            "get (sync.py:4)");
  EXPECT_EQ(site_of({package, python("main", "/root/bin/serve")}), "main (serve:4)");
  EXPECT_EQ(site_of({python("main", "/usr/lib/python3.14/multiprocessing/forkserver.py"),
                     python("<module>", "<string>")}),
            "main (forkserver.py:4)");
  const Frame installed = python("get", "/usr/lib/python3.11/site-packages/x.py");
  EXPECT_EQ(site_of({library, installed}), "get (x.py:4)");
}

TEST(StackFrames, OfAnInnermostFunctionWithoutANameTheSiteIsItsCaller) {
  const std::string library = "/lib/libprotobuf.so.32";
  Frame nameless = native("", library);
  nameless.address = 0x1120;
  const Frame parse = native("google::protobuf::Message::Parse", library);
  const Frame fill = {"fill", "/app/fill.cc", 12, "/app/fill", 0, false};
  const auto called = [](const std::vector<Frame>& stack) {
    return functions_of(site_frames(stack));
  };
  const Frame copy = native("memcpy", "/lib/libc.so.6");
  EXPECT_THAT(called({copy, nameless, parse, native("main")}),
              ElementsAre("memcpy", "", "google::protobuf::Message::Parse"));
  EXPECT_THAT(called({copy, nameless, parse, fill, native("main")}),
              ElementsAre("memcpy", "", "google::protobuf::Message::Parse", "fill"))
      << "the program's own line";
  EXPECT_THAT(called({parse, fill}), ElementsAre("google::protobuf::Message::Parse"));
  EXPECT_THAT(called({nameless, native("", library), native("exit", "/lib/libc.so.6")}),
              ElementsAre(""));
  EXPECT_EQ(site_frames({nameless, parse}).front().address, 0) << "one place for all of its code";
  EXPECT_EQ(site_frames({nameless}).front().address, nameless.address);
}

// Its caller's line would be wrong.
TEST(StackFrames, TheSiteMayBeALineThatIsNotKnown) {
  EXPECT_EQ(site_of({python("unknown Python code", "", 0), module_frame}), "unknown Python code");
}

TEST(StackFrames, OfPythonAreFoldedWithTheirLines) {
  EXPECT_EQ(fold({native("list_dealloc"), total_frame, python("a;b", "/app/x.py")}, true),
            "[callers not seen];a:b (x.py:4);total (pool.py:4);list_dealloc");
}

}  // namespace
}  // namespace cowshed::cow
