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
  const std::string of_file = id.substr(32);
  EXPECT_EQ(container_of("/kubepods.slice/kubepods-pod" + of_file + ".slice/crio-" + id).pod,
            of_file);
  EXPECT_EQ(container_name("/kubepods/pod" + uid), "01234567-89a");
}

TEST(ContainerOf, PodmanNamesThePod) {
  const std::string pod = std::string(52, '0') + "123456789abc";
  for (const std::string& cgroup :
       {"/machine.slice/machine-libpod_pod_" + pod + ".slice/libpod-" + id + ".scope/container",
        "/libpod_parent/" + pod + "/libpod-" + id}) {
    EXPECT_EQ(container_of(cgroup).id, "0123456789ab") << cgroup;
    EXPECT_EQ(container_of(cgroup).pod, pod.substr(0, 12)) << cgroup;
  }
  EXPECT_EQ(container_of("/docker/" + pod + "/docker/" + id).pod, "") << "one in another";
}

TEST(ContainerOf, IsNamedByEachOfItsIds) {
  const Container container = container_of("/kubepods/pod" + uid + "/" + id);
  for (const std::string& name : {id, id.substr(0, 12), uid, uid.substr(0, 12)}) {
    EXPECT_TRUE(is_container_name(name)) << name;
    EXPECT_TRUE(is_named(container, name)) << name;
    EXPECT_FALSE(is_named({}, name)) << name;
  }
  EXPECT_FALSE(is_named(container, "0123456789ac"));
  EXPECT_FALSE(is_container_name(id.substr(0, 11)));
  EXPECT_FALSE(is_container_name("/" + id));
  EXPECT_FALSE(is_container_name("system.slice"));
}

TEST(ContainerOf, OtherCgroupsAreNone) {
  for (const std::string& cgroup :
       {std::string(), std::string("/"), std::string("/user.slice/session-3.scope"),
        "/machine.slice/libpod-conmon-" + id + ".scope", "/" + id.substr(1), "/" + id + "0",
        "/" + std::string(64, 'g'), "/pod" + uid.substr(1), "/pod" + std::string(36, 'x'),
        std::string("/system.slice/podman.service")}) {
    EXPECT_EQ(container_name(cgroup), "") << cgroup;
  }
}

}  // namespace
}  // namespace cowshed::cowtop
