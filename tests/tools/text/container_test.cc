#include <cowshed/tests/support/test.h>
#include <cowshed/tools/cowtop/text/container.h>

namespace cowshed::cowtop {
namespace {

const std::string kId = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const std::string kUid = "01234567-89ab-cdef-0123-456789abcdef";
const std::string kUidOfSystemd = "01234567_89ab_cdef_0123_456789abcdef";

TEST(ContainerOf, TheCgroupsOfRuntimes) {
  for (const std::string& cgroup :
       {"/system.slice/docker-" + kId + ".scope", "/docker/" + kId,
        "/machine.slice/libpod-" + kId + ".scope/container", "/default/" + kId,
        "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + kId + ".scope",
        "/system.slice/containerd.service/kubepods-x:cri-containerd:" + kId}) {
    EXPECT_EQ(container_of(cgroup).id, "0123456789ab") << cgroup;
    EXPECT_EQ(container_of(cgroup).pod, "") << cgroup;
    EXPECT_EQ(container_name(cgroup), "0123456789ab") << cgroup;
  }
}

TEST(ContainerOf, KubernetesNamesThePod) {
  for (const std::string& cgroup :
       {"/kubepods/burstable/pod" + kUid + "/" + kId,
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + kUidOfSystemd +
            ".slice/cri-containerd-" + kId + ".scope"}) {
    EXPECT_EQ(container_of(cgroup).id, "0123456789ab") << cgroup;
    EXPECT_EQ(container_of(cgroup).pod, kUid) << cgroup;
  }
  EXPECT_EQ(container_name("/kubepods/pod" + kUid), "01234567-89a");
}

TEST(ContainerOf, OtherCgroupsAreNone) {
  for (const std::string& cgroup :
       {std::string(), std::string("/"), std::string("/user.slice/session-3.scope"),
        "/" + kId.substr(1), "/" + kId + "0", "/" + std::string(64, 'g'), "/pod" + kUid.substr(1),
        "/pod" + std::string(36, 'x'), std::string("/system.slice/podman.service")}) {
    EXPECT_EQ(container_name(cgroup), "") << cgroup;
  }
}

}  // namespace
}  // namespace cowshed::cowtop
