#include <cowshed/cow/open_backend.h>
#include <cowshed/tests/cow/backends/measure_command.h>
#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/needs_probes.h>

// What a container does: mount, PID and user namespaces, its own root on an overlay file system,
// its own /tmp.  No path in it leads anywhere outside.

namespace cowshed::cow {
namespace {

// In FOLDER, as root of user namespace: runs SUBJECT KIND PAGES.
constexpr const char* kContainer = R"(
set -e
mount -t tmpfs none "$1"
cd "$1"
mkdir upper work root lower lower/tmp lower/old
cp -L --parents $(ldd "$2" | grep -o '/[^ ]*') lower
cp "$2" lower/subject
mount -t overlay overlay -o userxattr,lowerdir=lower,upperdir=upper,workdir=work root
mount -t tmpfs none root/tmp
cd root
pivot_root . old
exec /subject "$3" "$4"
)";

class InNamespaces : public cowshed::test::NeedsProbes {
 protected:
  Measurement run(const std::string& kind, int pages) const {
    const OpenedBackend opened =
        open_backend(BackendChoice::tracepoint, {.period = 1, .buffer_bytes = 64 << 20}).value();
    return test::measure_command(
        *opened.backend,
        {"/usr/bin/unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "/bin/sh",
         "-c", kContainer, "sh", folder_ / "", SITE_SUBJECT, kind, std::to_string(pages)});
  }

  static const CodeSite* find(const Measurement& measured, const std::string& function) {
    for (const CodeSite& site : measured.sampled->sites)
      if (site.frames.back().function.find(function) != std::string::npos) return &site;
    return nullptr;
  }

  const cowshed::test::Folder folder_;
};

TEST_F(InNamespaces, LinesAreThoseOfTheContainersFiles) {
  const Measurement measured = run("shares", 20'000);
  const CodeSite* site = find(measured, "copy_often");
  ASSERT_NE(site, nullptr);
  EXPECT_EQ(site->frames.back().line, test::line_of(SITE_SUBJECT, "copy_often"));
  EXPECT_EQ(site->frames.back().module, "/subject");
}

TEST_F(InNamespaces, GeneratedCodeIsNamedByTheMapOfThePidThatTheContainerKnows) {
  EXPECT_NE(find(run("generated", 20'000), "py::generated:/app.py"), nullptr);
}

}  // namespace
}  // namespace cowshed::cow
