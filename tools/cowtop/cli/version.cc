#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <version_commit.h>
#include <zstd.h>

#include <cowshed/tools/cowtop/cli/command_line.h>

namespace cowshed::cowtop {

std::string version_text() {
  utsname kernel{};
  uname(&kernel);
  const bool btf = access("/sys/kernel/btf/vmlinux", R_OK) == 0;
  return fmt::format("cowtop " COWSHED_VERSION
                     "\n"
                     "built from " COWSHED_COMMIT " by " COWSHED_COMPILER ", " COWSHED_BUILD_TYPE
                     "\n"
                     "libbpf {}.{}, libzstd {}\n"
                     "{} {} {}, {}",
                     libbpf_major_version(), libbpf_minor_version(), ZSTD_versionString(),
                     kernel.sysname, kernel.release, kernel.machine,
                     btf ? "with BTF" : "without BTF");
}

}  // namespace cowshed::cowtop
