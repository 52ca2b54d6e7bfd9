#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/futex.h>
#include <linux/kcmp.h>
#include <linux/magic.h>
#include <memory>
#include <optional>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cowshed/base/published_layout.h>
#include <cowshed/base/try.h>
#include <cowshed/cow/measurement.h>
#include <cowshed/cow/proc/proc_files.h>

namespace cowshed::cow {
namespace {

constexpr std::string_view kDeleted = " (deleted)";

// Cuts the next word off the front of `text`; empty: there is no more.
std::string_view next_word(std::string_view& text, char separator = ' ') {
  const auto start = text.find_first_not_of(separator);
  if (start == std::string_view::npos) {
    text = {};
    return {};
  }
  text.remove_prefix(start);
  const auto end = std::min(text.find(separator), text.size());
  const std::string_view word = text.substr(0, end);
  text.remove_prefix(end);
  return word;
}

// What follows "\nNAME:\t" in the text of /proc/PID/status.
std::string_view status_line(std::string_view text, std::string_view name) {
  const std::string field = fmt::format("\n{}:\t", name);
  const auto found = text.find(field);
  if (found == std::string_view::npos) return {};
  const auto begin = found + field.size();
  return text.substr(begin, text.find('\n', begin) - begin);
}

// The number that `text` begins with; 0: none.
template <class T>
T number(std::string_view text, int base = 10) {
  T value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value, base);
  return value;
}

// 0 or an errno.
int read_all(const std::string& path, std::string& text) {
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return errno;
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t got = ::read(file.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return got < 0 ? errno : 0;
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
}

Expected<std::string> read_file_of(pid_t pid, const std::string& path) {
  std::string text;
  if (const int error = read_all(path, text)) return process_error(pid, path, error);
  return text;
}

}  // namespace

bool shares_memory(pid_t a, pid_t b) { return ::syscall(SYS_kcmp, a, b, KCMP_VM, 0, 0) == 0; }

tl::unexpected<Error> process_error(pid_t pid, std::string_view path, int error) {
  const auto refused = [&](int code, std::string_view why) {
    return tl::make_unexpected(
        Error{ErrorCode::permission_denied, code, fmt::format("PID {}: {}", pid, why)});
  };
  if (error == ENOENT && ::kill(pid, 0) != 0 && errno == EPERM) {
    return refused(
        EPERM,
        "/proc hides it (hidepid), as it belongs to somebody else; run as its user or as root");
  }
  if (error == ENOENT || error == ESRCH) {
    return tl::make_unexpected(
        Error{ErrorCode::no_such_process, error, fmt::format("PID {}: no such process", pid)});
  }
  if (error != EACCES && error != EPERM) return system_error(path, error);
  const char* why = ": the process belongs to somebody else; run as its user or as root";
  if (::geteuid() == 0) {
    why =
        ", even as root: CAP_SYS_PTRACE or CAP_DAC_READ_SEARCH is missing (in a container, say), "
        "or a security module forbids it";
  } else if (ProcFiles().is_ours(pid)) {
    why =
        ": the process is not dumpable (PR_SET_DUMPABLE, a change of user, capabilities of its "
        "file), or Yama forbids it; run as root";
  }
  return refused(error, fmt::format("not permitted to read {}{}", path, why));
}

Error no_memory_error(pid_t pid, const ProcStat& stat) {
  const char* why = "is about to exit";
  if (stat.state == 'Z' || stat.state == 'X') why = "has exited (a zombie)";
  else if (stat.virtual_bytes == 0) why = "is a kernel thread, without memory of its own";
  return {ErrorCode::no_such_process, 0, fmt::format("PID {}: {}", pid, why)};
}

std::string ProcFiles::path(pid_t pid, std::string_view file) const {
  return fmt::format("{}/{}/{}", root_, pid, file);
}

std::string ProcFiles::memory_path(pid_t pid, std::string_view file) const {
  const auto has_memory = [](const std::string& link) {
    std::array<char, 1> target;
    return ::readlink(link.c_str(), target.data(), target.size()) >= 0 || errno != ENOENT;
  };
  if (has_memory(path(pid, "exe"))) return path(pid, file);
  const std::string folder = path(pid, "task");
  const std::unique_ptr<DIR, int (*)(DIR*)> tasks(::opendir(folder.c_str()), ::closedir);
  while (const dirent* entry = tasks ? ::readdir(tasks.get()) : nullptr) {
    const std::string task = fmt::format("{}/{}/", folder, entry->d_name);
    if (entry->d_name[0] != '.' && has_memory(task + "exe")) return task + std::string(file);
  }
  return path(pid, file);
}

Expected<ProcStat> ProcFiles::stat(pid_t pid) const {
  TRY(auto stat, stat_of(pid, path(pid, "stat")));
  if (stat.state != 'Z' || stat.threads < 2) return stat;
  const auto other = stat_of(pid, memory_path(pid, "stat"));
  if (!other) return stat;
  stat.state = other->state;
  stat.virtual_bytes = other->virtual_bytes;
  stat.resident_pages = other->resident_pages;
  stat.start_stack = other->start_stack;
  return stat;
}

Expected<ProcStat> ProcFiles::stat_of(pid_t pid, const std::string& file) {
  TRY(const auto text, read_file_of(pid, file));
  // The command's name may hold blanks and parentheses: it ends at the last one (proc(5)).
  const auto begin = text.find('(');
  const auto end = text.rfind(')');
  if (begin == std::string::npos || end == std::string::npos || end < begin)
    return make_error(ErrorCode::unsupported, file + ": not in the format of proc(5)");
  ProcStat stat;
  stat.comm = text.substr(begin + 1, end - begin - 1);
  std::string_view rest = std::string_view(text).substr(end + 1);
  std::array<std::string_view, 29> fields;  // by their numbers in proc(5)
  for (std::size_t field = 3; field < fields.size(); ++field) fields.at(field) = next_word(rest);
  const auto value = [&](std::size_t field) { return number<std::uint64_t>(fields.at(field)); };
  if (!fields[3].empty()) stat.state = fields[3].front();
  stat.ppid = number<pid_t>(fields[4]);
  stat.minor_faults = value(10);
  stat.reaped_faults = value(11) + value(13);
  stat.major_faults = value(12);
  stat.threads = value(20);
  stat.start_ticks = value(22);
  stat.virtual_bytes = value(23);
  stat.resident_pages = value(24);
  // An exec moves the stack twice, and sets the start of the code (26) just before the second time.
  // Until then the start of the stack is provisional.
  if (value(26) != 0) stat.start_stack = value(28);
  return stat;
}

Expected<FileDescriptor> ProcFiles::open(pid_t pid, std::string_view file) const {
  const std::string name = memory_path(pid, file);
  FileDescriptor result(::open(name.c_str(), O_RDONLY | O_CLOEXEC));
  if (!result) return process_error(pid, name, errno);
  return result;
}

Expected<std::vector<Mapping>> ProcFiles::maps(pid_t pid) const {
  return read_file_of(pid, memory_path(pid, "maps")).map([](const std::string& text) {
    return parse_maps(text);
  });
}

Expected<std::vector<Mapping>> ProcFiles::inherited_maps(pid_t pid) const {
  TRY(const auto text, read_file_of(pid, memory_path(pid, "smaps")));
  std::vector<Mapping> mappings;
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view line = next_word(rest, '\n');
    // A mapping begins with a lower-case digit, its fields, which follow, with a capital.
    const bool is_field = line.empty() || (line[0] >= 'A' && line[0] <= 'Z');
    if (!is_field) mappings.push_back(parse_maps(line).at(0));
    // MADV_DONTFORK, MADV_WIPEONFORK.
    const bool is_withheld = line.starts_with("VmFlags:") &&
                             (line.find(" dc") != line.npos || line.find(" wf") != line.npos);
    if (is_withheld && !mappings.empty()) mappings.pop_back();
  }
  return mappings;
}

Expected<Pss> ProcFiles::pss(pid_t pid) const {
  constexpr std::uint64_t kKiB = 1024;
  const std::string file = memory_path(pid, "smaps_rollup");
  TRY(const auto text, read_file_of(pid, file));
  const auto kib_of = [&](std::string_view field) -> std::optional<std::uint64_t> {
    const auto found = text.find(field);
    if (found == std::string::npos) return std::nullopt;
    std::string_view rest = std::string_view(text).substr(found + field.size());
    return number<std::uint64_t>(next_word(rest));
  };
  const auto all = kib_of("\nPss:");
  if (!all) return make_error(ErrorCode::no_such_process, file + ": has no memory");
  return Pss{*all * kKiB, kib_of("\nPss_Shmem:").value_or(0) * kKiB,
             kib_of("\nPss_Anon:").value_or(0) * kKiB};
}

ProcFiles::Memfds ProcFiles::memfds(pid_t pid) const {
  constexpr std::string_view kMemfd = "/memfd:";
  constexpr std::uint64_t kBlock = 512;
  Memfds found;
  const auto add = [&](const std::string& file) {
    struct stat status{};
    struct statfs kind{};
    if (::stat(file.c_str(), &status) == 0 && ::statfs(file.c_str(), &kind) == 0 &&
        kind.f_type != HUGETLBFS_MAGIC)
      found[{status.st_dev, status.st_ino}] = static_cast<std::uint64_t>(status.st_blocks) * kBlock;
  };
  const std::string folder = path(pid, "fd");
  const std::unique_ptr<DIR, int (*)(DIR*)> open(::opendir(folder.c_str()), ::closedir);
  while (const dirent* entry = open ? ::readdir(open.get()) : nullptr) {
    std::array<char, kMemfd.size()> begin{};
    const ssize_t bytes =
        ::readlinkat(::dirfd(open.get()), entry->d_name, begin.data(), begin.size());
    if (std::string_view(begin.data(), static_cast<std::size_t>(std::max<ssize_t>(bytes, 0))) ==
        kMemfd)
      add(fmt::format("{}/{}", folder, entry->d_name));
  }
  const std::string maps = read_file_of(pid, memory_path(pid, "maps")).value_or("");
  for (auto at = maps.find(kMemfd); at != maps.npos; at = maps.find(kMemfd, at + 1)) {
    const auto begin = maps.rfind('\n', at) + 1;
    const Mapping each =
        parse_maps(std::string_view(maps).substr(begin, maps.find('\n', at) - begin)).at(0);
    if (each.path.starts_with(kMemfd) && !found.contains({each.device, each.inode}))
      add(memory_path(pid, fmt::format("map_files/{:x}-{:x}", each.begin, each.end)));
  }
  return found;
}

bool ProcFiles::is_ours(pid_t pid) const {
  struct stat status{};
  return ::stat(path(pid, "").c_str(), &status) == 0 && status.st_uid == ::geteuid();
}

std::vector<std::uint64_t> ProcFiles::status_numbers(
    pid_t pid, std::span<const std::string_view> fields) const {
  const std::string text = read_file_of(pid, memory_path(pid, "status")).value_or("");
  std::vector<std::uint64_t> numbers;
  for (const std::string_view field : fields) {
    std::string_view rest = status_line(text, field);
    numbers.push_back(number<std::uint64_t>(next_word(rest)));
  }
  return numbers;
}

pid_t ProcFiles::own_pid(pid_t pid) const {
  const std::string text = read_file_of(pid, path(pid, "status")).value_or("");
  const std::string_view line = status_line(text, "NSpid");
  return number<pid_t>(line.substr(line.rfind('\t') + 1));  // the innermost namespace's
}

std::string ProcFiles::cgroup(pid_t pid) const {
  constexpr std::string_view kV2 = "0::";
  constexpr std::size_t kLongest = 4096;
  std::string text;
  if (read_all(path(pid, "cgroup"), text) != 0) return {};
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view line = next_word(rest, '\n');
    if (line.starts_with(kV2)) return std::string(line.substr(kV2.size(), kLongest));
  }
  return {};
}

std::string ProcFiles::begin_of(pid_t pid, std::string_view name) const {
  std::array<char, 1024> begin{};
  const auto file = open(pid, name);
  const ssize_t bytes = file ? ::read(file->get(), begin.data(), begin.size()) : 0;
  return {begin.data(), static_cast<std::size_t>(std::max<ssize_t>(bytes, 0))};
}

std::string ProcFiles::cmdline(pid_t pid) const { return begin_of(pid, "cmdline"); }

std::optional<std::uint64_t> ProcFiles::merged_bytes(pid_t pid) const {
  const std::string text = begin_of(pid, "ksm_stat");
  constexpr std::string_view kPages = "ksm_merging_pages ";
  const auto at = text.find(kPages);
  if (at == text.npos) return std::nullopt;
  return std::strtoull(text.c_str() + at + kPages.size(), nullptr, 10) * kPageSize;
}

std::string ProcFiles::system_call(pid_t pid) const {
  std::string text = begin_of(pid, "syscall");
  return text.starts_with("running") ? "" : text;
}

bool waits_for_own_thread(std::string_view system_call) {
  // The address, what to do, the value to wait for, the timeout.
  unsigned long number = 0;
  unsigned long operation = 0;
  unsigned long timeout = 0;
  const std::string text(system_call);
  if (std::sscanf(text.c_str(), "%lu 0x%*x 0x%lx 0x%*x 0x%lx", &number, &operation, &timeout) != 3)
    return false;
  constexpr unsigned long kOptions = FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME;
  const unsigned long what = operation & ~kOptions;
  return number == SYS_futex && timeout == 0 && (operation & FUTEX_PRIVATE_FLAG) != 0 &&
         (what == FUTEX_WAIT || what == FUTEX_WAIT_BITSET || what == FUTEX_LOCK_PI);
}

std::string title_of(std::string_view cmdline) {
  constexpr std::string_view kBreak = ": ";
  constexpr std::string_view kType = "--type=";
  constexpr std::string_view kVaries = "0123456789[(/";
  const auto is_letter = [](char each) { return std::isalpha(static_cast<unsigned char>(each)); };
  const std::string_view words = cmdline.substr(0, cmdline.find('\0'));
  const std::string_view program = words.substr(0, words.find(' '));
  if (const auto at = cmdline.find(kType); at != cmdline.npos && at > 0) {
    const std::string_view type = cmdline.substr(at + kType.size());
    return fmt::format("{}: {}", program.substr(program.rfind('/') + 1),
                       type.substr(0, type.find_first_of(std::string_view(" \0", 2))));
  }
  auto at = words.find(kBreak);
  std::string_view name = words.substr(0, at);
  if (at == words.npos || name.find_first_of("/ ") != name.npos) return {};
  if (const auto version = name.find('('); version != name.npos)
    return std::string(name.substr(0, version));  // its state follows
  std::string role;
  for (std::string_view rest = words; at != rest.npos; at = rest.find(kBreak)) {
    rest.remove_prefix(at + kBreak.size());
    std::string_view part =
        rest.substr(0, std::min(rest.find(kBreak), rest.find_first_of(kVaries)));
    while (!part.empty() && !is_letter(part.back())) part.remove_suffix(1);
    if (!part.empty() && is_letter(part.front())) role = part;
  }
  return role.empty() ? role : fmt::format("{}: {}", name, role);
}

Expected<std::vector<pid_t>> ProcFiles::children(pid_t pid) const {
  const std::string folder = path(pid, "task");
  const std::unique_ptr<DIR, int (*)(DIR*)> tasks(::opendir(folder.c_str()), ::closedir);
  if (!tasks) return process_error(pid, folder, errno);
  std::vector<pid_t> result;
  while (const dirent* entry = ::readdir(tasks.get())) {
    if (entry->d_name[0] == '.') continue;
    const auto text = read_file_of(pid, fmt::format("{}/{}/children", folder, entry->d_name));
    if (!text && text.error().code == ErrorCode::no_such_process) continue;  // it ended
    if (!text) return tl::make_unexpected(text.error());
    std::string_view rest = *text;
    for (auto word = next_word(rest); !word.empty(); word = next_word(rest))
      result.push_back(number<pid_t>(word));
  }
  // The children of a thread that ends meanwhile pass to another one: they may be there twice.
  std::ranges::sort(result);
  result.erase(std::unique(result.begin(), result.end()), result.end());
  return result;
}

Expected<std::vector<pid_t>> ProcFiles::processes() const {
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir(root_.c_str()), ::closedir);
  if (!folder) return system_error(root_, errno);
  std::vector<pid_t> result;
  while (const dirent* entry = ::readdir(folder.get()))
    if (const auto pid = number<pid_t>(entry->d_name); pid > 0) result.push_back(pid);
  std::ranges::sort(result);
  return result;
}

Expected<std::uint64_t> ProcFiles::forks() const {
  const std::string file = root_ + "/stat";
  std::string text;
  if (const int error = read_all(file, text)) return system_error(file, error);
  constexpr std::string_view kField = "\nprocesses ";
  const auto found = text.find(kField);
  if (found == std::string::npos)
    return make_error(ErrorCode::unsupported, file + ": does not count processes");
  std::string_view rest = std::string_view(text).substr(found + kField.size());
  return number<std::uint64_t>(next_word(rest, '\n'));
}

bool Mapping::is_memory() const {
  // Some go on, as [anon:NAME], [anon_shmem:NAME], [stack:THREAD].
  constexpr std::array<std::string_view, 7> kBeginnings = {
      "[heap]", "[stack", "[anon", "/dev/zero", "/memfd:", "/SYSV", "/anon_hugepage"};
  return path.empty() || std::ranges::any_of(kBeginnings, [this](std::string_view beginning) {
           return path.starts_with(beginning);
         });
}

std::string_view Mapping::file_path() const {
  std::string_view text = path;
  if (text.ends_with(kDeleted) && !is_memory()) text.remove_suffix(kDeleted.size());
  return text;
}

std::string_view parse_mapping(std::string_view line, Mapping& mapping) {
  std::string_view range = next_word(line);
  mapping.begin = number<std::uint64_t>(next_word(range, '-'), 16);
  mapping.end = number<std::uint64_t>(next_word(range, '-'), 16);
  const std::string_view flags = next_word(line);
  mapping.readable = flags.starts_with('r');
  mapping.writable = flags.size() > 1 && flags[1] == 'w';
  mapping.executable = flags.size() > 2 && flags[2] == 'x';
  mapping.is_private = flags.size() > 3 && flags[3] == 'p';
  next_word(line);  // offset
  std::string_view device = next_word(line);
  const auto major = number<unsigned>(next_word(device, ':'), 16);
  const auto minor = number<unsigned>(next_word(device, ':'), 16);
  mapping.device = makedev(major, minor);
  mapping.inode = number<std::uint64_t>(next_word(line));
  const auto path = line.find_first_not_of(' ');
  return path == std::string_view::npos ? std::string_view() : line.substr(path);
}

std::vector<Mapping> parse_maps(std::string_view text) {
  std::vector<Mapping> mappings;
  for (auto line = next_word(text, '\n'); !line.empty(); line = next_word(text, '\n')) {
    Mapping& mapping = mappings.emplace_back();
    mapping.path = parse_mapping(line, mapping);
  }
  return mappings;
}

std::string_view arena_name(const Mapping& mapping) {
  constexpr std::string_view kPrefix = "/memfd:cowshed:";
  std::string_view path = mapping.path;
  if (!path.starts_with(kPrefix)) return {};
  path.remove_prefix(kPrefix.size());
  if (path.ends_with(kDeleted)) path.remove_suffix(kDeleted.size());
  return path.substr(0, sizeof(layout::Arena::name) - 1);
}

}  // namespace cowshed::cow
