#include <cowshed/tests/support/test.h>
#include <cowshed/tools/cowtop/text/container.h>

namespace cowshed::cowtop {
namespace {

const std::string id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const std::string uid = "01234567-89ab-cdef-0123-456789abcdef";
const std::string uid_of_systemd = "01234567_89ab_cdef_0123_456789abcdef";

TEST(ContainerOf, TheCgroupsOfRuntimes) {
  for (const std::string& cgroup :
       {"/system.slice/docker-" + id + ".scope", "/docker/" + id,
        "/machine.slice/libpod-" + id + ".scope/container", "/default/" + id,
        "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id + ".scope",
        "/system.slice/containerd.service/kubepods-x:cri-containerd:" + id}) {
    EXPECT_EQ(container_of(cgroup).id, "0123456789ab") << cgroup;
    EXPECT_EQ(container_of(cgroup).pod, "") << cgroup;
    EXPECT_EQ(container_name(cgroup), "0123456789ab") << cgroup;
  }
}

TEST(ContainerOf, KubernetesNamesThePod) {
  for (const std::string& cgroup :
       {"/kubepods/burstable/pod" + uid + "/" + id,
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uid_of_systemd +
            ".slice/cri-containerd-" + id + ".scope"}) {
    EXPECT_EQ(container_of(cgroup).id, "0123456789ab") << cgroup;
    EXPECT_EQ(container_of(cgroup).pod, uid) << cgroup;
  }
  EXPECT_EQ(container_name("/kubepods/pod" + uid), "01234567-89a");
}

TEST(ContainerOf, OtherCgroupsAreNone) {
  for (const std::string& cgroup :
       {std::string(), std::string("/"), std::string("/user.slice/session-3.scope"),
        "/" + id.substr(1), "/" + id + "0", "/" + std::string(64, 'g'), "/pod" + uid.substr(1),
        "/pod" + std::string(36, 'x'), std::string("/system.slice/podman.service")}) {
    EXPECT_EQ(container_name(cgroup), "") << cgroup;
  }
}

}  // namespace
}  // namespace cowshed::cowtop
