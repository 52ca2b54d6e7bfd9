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
for library in $(LD_TRACE_LOADED_OBJECTS=1 "$2" | grep -o '/[^ ]*'); do
  mkdir -p "lower${library%/*}"
  cp -L "$library" "lower$library"
done
cp "$2" lower/subject
mount -t overlay overlay -o userxattr,lowerdir=lower,upperdir=upper,workdir=work root
mount -t tmpfs none root/tmp
cd root
pivot_root . old || {  # a guest's first root cannot be left
  mount --move . /
  exec chroot . /subject "$3" "$4"
}
exec /subject "$3" "$4"
)";

class InNamespaces : public cowshed::test::NeedsProbes {
 protected:
  // A process that nobody saw alive has no names: on a slow machine a longer life helps.
  static std::optional<CodeSite> site_of(const std::string& function) {
    for (const char* pages : {"20000", "100000", "200000"}) {
      const cowshed::test::Folder folder;
      const OpenedBackend opened =
          open_backend(BackendChoice::tracepoint, {.period = 1, .buffer_bytes = 64 << 20}).value();
      const Measurement measured = test::measure_command(
          *opened.backend,
          {"/usr/bin/unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "/bin/sh",
           "-c", kContainer, "sh", folder / "", SITE_SUBJECT, "shares", pages});
      for (const CodeSite& site : measured.sampled->sites)
        if (site.frames.back().function.find(function) != std::string::npos) return site;
    }
    return std::nullopt;
  }
};

TEST_F(InNamespaces, LinesAreThoseOfTheContainersFiles) {
  const std::optional<CodeSite> site = site_of("copy_often");
  ASSERT_TRUE(site);
  EXPECT_EQ(site->frames.back().line, test::line_of(SITE_SUBJECT, "copy_often"));
  EXPECT_EQ(site->frames.back().module, "/subject");
}

}  // namespace
}  // namespace cowshed::cow
