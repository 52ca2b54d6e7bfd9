#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cowshed/tests/programs/wsgi_server.h>

namespace cowshed::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;

constexpr const char* kUwsgi = "/usr/bin/uwsgi";

class Uwsgi : public WsgiServer {
 protected:
  Uwsgi() : WsgiServer(kUwsgi) {}
};

TEST_F(Uwsgi, AWorkerThatReadsPreloadedDataCountsReferences) {
  const Json ours =
      worker_of({kUwsgi, "--plugin", "python3", "--http-socket", socket(), "--master",
                 "--processes", "1", "--die-on-term", "--chdir", folder(), "--module", "app"},
                "spawned uWSGI worker 1");
  ASSERT_TRUE(ours.is_object());
  EXPECT_THAT(places(ours, 1), ElementsAre(StartsWith("_PyEval_EvalFrameDefault (")));
  EXPECT_THAT(mappings(ours, 3),
              UnorderedElementsAre("anonymous", "[heap]", HasSubstr("/libpython3")));
}

}  // namespace
}  // namespace cowshed::test
