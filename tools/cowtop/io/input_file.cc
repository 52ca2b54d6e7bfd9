#include <cerrno>
#include <fcntl.h>
#include <unistd.h>

#include <cowshed/tools/cowtop/io/input_file.h>

namespace cowshed::cowtop {

Expected<InputFile> InputFile::open(const std::string& path) {
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (!file) return system_error("cannot read " + path, errno);
  return InputFile(path, std::move(file));
}

Expected<std::string_view> InputFile::peek(std::size_t size) {
  while (peeked_.size() < size) {
    const std::size_t had = peeked_.size();
    peeked_.resize(size);
    const auto got = read_file(peeked_.data() + had, size - had);
    peeked_.resize(had + got.value_or(0));
    if (!got) return tl::make_unexpected(got.error());
    if (*got == 0) break;
  }
  return std::string_view(peeked_).substr(0, size);
}

Expected<std::size_t> InputFile::read(char* bytes, std::size_t size) {
  if (peeked_.empty()) return read_file(bytes, size);
  const std::size_t got = peeked_.copy(bytes, size);
  peeked_.erase(0, got);
  return got;
}

Expected<std::size_t> InputFile::read_file(char* bytes, std::size_t size) const {
  const ssize_t got = TEMP_FAILURE_RETRY(::read(file_.get(), bytes, size));
  if (got < 0) return system_error("cannot read " + path_, errno);
  return static_cast<std::size_t>(got);
}

}  // namespace cowshed::cowtop
