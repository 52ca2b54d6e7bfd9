#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cowshed/tests/programs/wsgi_server.h>

namespace cowshed::test {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::StartsWith;

constexpr const char* kGunicorn = "/usr/bin/gunicorn";

class Gunicorn : public WsgiServer {
 protected:
  Gunicorn() : WsgiServer(kGunicorn) {}
};

TEST_F(Gunicorn, AWorkerThatReadsPreloadedDataCountsReferences) {
  const Json ours = worker_of({kPython, kGunicorn, "--preload", "-w", "1", "-b", "unix:" + socket(),
                               "--chdir", folder(), "app"},
                              "Booting worker");
  ASSERT_TRUE(ours.is_object());
  EXPECT_EQ(patterns(ours).at(1), "garbage collector");
  // The request; then, at the worker's end, what is collected, and its modules.
  EXPECT_THAT(places(ours, 3),
              ElementsAre(StartsWith("_PyEval_EvalFrameDefault ("), StartsWith("PyGC_Collect ("),
                          StartsWith("_PyModule_ClearDict (")));
  EXPECT_THAT(mappings(ours, 3), ElementsAre("anonymous", "[heap]", EndsWith("/python3.11")));
}

}  // namespace
}  // namespace cowshed::test
