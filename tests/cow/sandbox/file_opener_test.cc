#include <cowshed/cow/sandbox/file_opener.h>
#include <cowshed/tests/support/conditions.h>
#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>

// Files as a measured program names them, which may be hostile.

namespace cowshed::cow {
namespace {

namespace fs = std::filesystem;

class FileOpener : public ::testing::Test {
 protected:
  // What can be read of the file; "-" where it is not opened.
  static std::string opened(const FileRequest& request) {
    const FileDescriptor file = open_requested(ProcFiles(), request);
    if (!file) return "-";
    std::string text(100, '\0');
    const ssize_t got = ::read(file.get(), text.data(), text.size());
    text.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    return text;
  }

  // As if it were mapped by a process that has ended.
  static FileRequest mapped(const std::string& path, const std::string& status_of) {
    struct stat file{};
    EXPECT_EQ(::stat(status_of.c_str(), &file), 0);
    return {.mapping = {.inode = file.st_ino, .path = path, .device = file.st_dev}, .name = {}};
  }
  static FileRequest mapped(const std::string& path) { return mapped(path, path); }

  FileRequest debug_file(FileKind kind, const std::string& name) const {
    return {.kind = kind, .mapping = {.path = (folder_ / "binary").string()}, .name = name};
  }

  std::string file(const std::string& name, const std::string& text) const {
    return folder_.write(name, text);
  }

  const cowshed::test::Folder folder_;
};

TEST_F(FileOpener, AMappedFileIsTheOneThatIsMapped) {
  const std::string path = file("binary", "first");
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  void* address = ::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
  ::close(fd);
  FileRequest request = mapped(path);
  request.pid = ::getpid();
  request.mapping.begin = reinterpret_cast<std::uintptr_t>(address);
  request.mapping.end = request.mapping.begin + 4096;
  EXPECT_EQ(opened(request), "first");
  fs::rename(path, folder_ / "moved");
  file("binary", "second");
  if (cowshed::test::has_sys_admin()) EXPECT_EQ(opened(request), "first");
  else EXPECT_NE(opened(request), "second");
  ::munmap(address, 4096);
  EXPECT_EQ(opened(request), "-") << "there is another file now";
}

TEST_F(FileOpener, AMappedFileIsOpenedByItsPathWhereItsProcessHasEnded) {
  const std::string path = file("binary", "text");
  EXPECT_EQ(opened(mapped(path)), "text");
  FileRequest other_device = mapped(path);
  ++other_device.mapping.device;
  EXPECT_EQ(opened(other_device), "-") << "the same inode elsewhere";
}

TEST_F(FileOpener, OnlyRegularFilesAreOpened) {
  const std::string fifo = folder_ / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(opened(mapped(fifo)), "-");
  EXPECT_EQ(opened(debug_file(FileKind::beside, "fifo")), "-");
  EXPECT_EQ(opened(mapped("/dev/zero")), "-");
  EXPECT_EQ(opened(mapped(folder_.path())), "-");
  EXPECT_EQ(opened(mapped("/proc/version")), "-") << "that the kernel makes up";
}

TEST_F(FileOpener, SymbolicLinksAreNotFollowed) {
  fs::create_directory(folder_ / "real");
  const std::string path = file("real/binary", "text");
  fs::create_symlink("real", folder_ / "link");
  fs::create_symlink("real/binary", folder_ / "symbols");
  EXPECT_EQ(opened(mapped(folder_ / "link/binary", path)), "-");
  EXPECT_EQ(opened(mapped(folder_ / "symbols", path)), "-");
  EXPECT_EQ(opened(debug_file(FileKind::beside, "symbols")), "-");
  fs::create_symlink("real", folder_ / ".debug");
  EXPECT_EQ(opened(debug_file(FileKind::debug_folder, "binary")), "-");
}

TEST_F(FileOpener, ADebugFileLiesInItsFolder) {
  file("symbols", "text");
  fs::create_directory(folder_ / ".debug");
  file(".debug/symbols", "other");
  EXPECT_EQ(opened(debug_file(FileKind::beside, "symbols")), "text");
  EXPECT_EQ(opened(debug_file(FileKind::debug_folder, "symbols")), "other");
  for (const char* name :
       {"", ".", "..", "../passwd", ".debug/symbols", "/etc/passwd", "../../../etc/passwd"}) {
    EXPECT_EQ(opened(debug_file(FileKind::beside, name)), "-") << name;
    EXPECT_EQ(opened(debug_file(FileKind::system_folder, name)), "-") << name;
    EXPECT_EQ(opened(debug_file(FileKind::build_id, name)), "-") << name;
  }
  EXPECT_EQ(opened(debug_file(FileKind::beside, std::string("symbols\0x", 9))), "-");
  EXPECT_EQ(opened(debug_file(FileKind::beside, std::string(10'000, 'x'))), "-");
}

TEST_F(FileOpener, AFileThatIsNearlyAllHoleIsRefused) {
  const std::string path = file("binary", "text");
  fs::resize_file(path, 1 << 20);
  EXPECT_NE(opened(mapped(path)), "-") << "small enough";
  fs::resize_file(path, std::uintmax_t{1} << 31U);
  EXPECT_EQ(opened(mapped(path)), "-");
}

// To open a file that somebody has leased waits until the lease is broken, which takes 45 s.
TEST_F(FileOpener, ALeasedFileIsNotWaitedFor) {
  const std::string path = file("binary", "text");
  const int leased = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (::fcntl(leased, F_SETLEASE, F_WRLCK) != 0) GTEST_SKIP() << "no leases on this file system";
  ::signal(SIGIO, SIG_IGN);
  EXPECT_EQ(opened(mapped(path)), "-");
  ::close(leased);
}

// A process in namespaces of its own: PID 1, with another /tmp.
class FileOpenerInside : public FileOpener {
 protected:
  void SetUp() override {
    if (!cowshed::test::has_sys_admin()) GTEST_SKIP() << "needs CAP_SYS_ADMIN, for namespaces";
    if (!cowshed::test::can_have_private_mounts()) GTEST_SKIP() << "/ is no mount";
  }
  // Of what the shell in there writes.
  std::string map_after(const std::string& commands) const {
    const std::string script =
        "mount -t tmpfs cowshed /tmp && " + commands + " && echo ready && exec sleep 1000";
    test::Subprocess outside({"unshare", "-pm", "--fork", "sh", "-c", script});
    if (outside.read_until("ready\n").out.find("ready") == std::string::npos) return "not ready";
    const auto children = ProcFiles().children(outside.pid());
    EXPECT_TRUE(children && children->size() == 1);
    FileRequest request;
    request.kind = FileKind::perf_map;
    request.pid = children->front();
    const std::string text = opened(request);
    ::kill(request.pid, SIGKILL);
    return text;
  }
};

TEST_F(FileOpenerInside, APerfMapIsTheOneOfItsOwnPidAndTmp) {
  EXPECT_EQ(map_after("echo inside > /tmp/perf-1.map"), "inside\n");
}

TEST_F(FileOpenerInside, APerfMapIsNoLinkOutOfTheRoot) {
  EXPECT_EQ(map_after("ln -s /etc/passwd /tmp/perf-1.map"), "-");
  EXPECT_EQ(map_after("mkfifo /tmp/perf-1.map"), "-");
  EXPECT_EQ(map_after("echo x > /tmp/perf-1.map; chown 12345 /tmp/perf-1.map"), "-")
      << "whom nobody believes";
}

}  // namespace
}  // namespace cowshed::cow
