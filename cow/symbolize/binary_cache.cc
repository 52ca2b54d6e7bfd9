#include <cstdlib>  // which fmt 11 needs, and does not include
#include <fcntl.h>
#include <fmt/format.h>

#include <cowshed/base/clock.h>
#include <cowshed/cow/symbolize/binary_cache.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kBetweenLooksNs = 100'000'000;
constexpr std::size_t kMostPerfMaps = 256;  // each keeps a descriptor

}  // namespace

BinaryCache::BinaryCache(ProcFiles proc)
    : opener_(std::move(proc)),
      reader_([this](CodeReader::BinaryId binary, FileKind kind, const std::string& name) {
        return file_of(binary, kind, name);
      }) {}

Binary& BinaryCache::add() {
  Binary& binary = *binaries_.emplace_back(std::make_unique<Binary>());
  binary.reader = &reader_;
  binary.id = static_cast<CodeReader::BinaryId>(binaries_.size());
  return binary;
}

FileDescriptor BinaryCache::file_of(CodeReader::BinaryId binary, FileKind kind,
                                    const std::string& name) {
  if (binary == 0 || binary > binaries_.size()) return {};
  if (kind == FileKind::perf_map) {
    const auto open = perf_map_files_.find(binary);
    if (open == perf_map_files_.end()) return {};
    return FileDescriptor(::fcntl(open->second.get(), F_DUPFD_CLOEXEC, 0));
  }
  FileRequest request = binaries_[binary - 1]->file;
  request.kind = kind;
  request.name = name;
  return opener_.open(request);
}

const Binary* BinaryCache::open(const Mapping& mapping, pid_t pid) {
  const std::string path(mapping.file_path());
  const auto [entry, is_new] = files_.try_emplace({path, mapping.device, mapping.inode});
  if (!is_new) return entry->second;
  Binary& binary = add();
  entry->second = &binary;
  binary.path = path;
  binary.interpreter = language_of_file(path);
  binary.file.pid = pid;
  binary.file.mapping = mapping;
  if (const auto extent = reader_.add_binary(binary.id, path)) {
    binary.is_readable = true;
    binary.begin = extent->begin;
    binary.end = extent->end;
    binary.python = reader_.python_layout(binary.id);
    if (binary.interpreter == Language::native)
      binary.interpreter = binary.python ? Language::python : extent->interpreter;
  }
  return &binary;
}

const Binary* BinaryCache::perf_map(std::uint64_t process_id, pid_t pid, uid_t owner,
                                    std::uint64_t since_ns) {
  PerfMapFile& file = perf_maps_[process_id];
  const std::uint64_t now = monotonic_ns();
  const bool has_looked = file.look_ns >= since_ns && now - file.look_ns < kBetweenLooksNs;
  if (file.binary != nullptr || has_looked) return file.binary;
  file.look_ns = now;
  if (perf_map_files_.size() >= kMostPerfMaps) return nullptr;
  FileRequest request;
  request.kind = FileKind::perf_map;
  request.pid = pid;
  request.owner = owner;
  FileDescriptor opened = opener_.open(request);
  if (!opened) return nullptr;
  Binary& binary = add();
  binary.path = fmt::format("/tmp/perf-{}.map", pid);
  binary.is_generated = true;
  perf_map_files_[binary.id] = std::move(opened);
  file.binary = &binary;
  return &binary;
}

std::vector<std::string> BinaryCache::unread() const {
  std::vector<std::string> lines;
  for (const CodeReader::BinaryId id : reader_.set_aside())
    lines.push_back(binaries_[id - 1]->path + ": crashed or held up its reader; has no names");
  if (reader_.has_given_up()) lines.emplace_back("further binaries: the reader failed too often");
  if (opener_.hung() > 0)
    lines.push_back(fmt::format("{} of the files: did not open in time", opener_.hung()));
  return lines;
}

const Binary* BinaryCache::generated_code() {
  if (generated_ == nullptr) {
    Binary& binary = add();
    binary.is_generated = true;
    generated_ = &binary;
  }
  return generated_;
}

}  // namespace cowshed::cow
