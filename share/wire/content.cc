#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <system_error>
#include <utility>

#include <cowshed/share/codec.h>
#include <cowshed/share/os/memfd.h>
#include <cowshed/share/wire/content.h>

namespace cowshed {
namespace internal {
namespace {

constexpr const char* kName = "cowshed-message";
constexpr std::size_t kFileBuffer = std::size_t{1} << 20U;

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

void throw_damaged() {
  throw std::runtime_error(
      "a message is damaged, or the two processes have different definitions of its types");
}

Content::Content(std::string bytes, FileDescriptor file, std::uint64_t file_bytes,
                 std::vector<FileDescriptor> descriptors)
    : bytes_(std::move(bytes)),
      file_(std::move(file)),
      file_bytes_(file_bytes),
      descriptors_(std::move(descriptors)) {
  struct stat status = {};
  if (file_ && (!has_seals(file_.get(), kSealed) || fstat(file_.get(), &status) != 0 ||
                static_cast<std::uint64_t>(status.st_size) != file_bytes)) {
    throw_damaged();
  }
}

void Content::append(const void* data, std::size_t size) {
  if (size == 0) return;  // `data` may be null
  const std::size_t most = file_ ? kFileBuffer : most_inline_;
  if (size <= most && bytes_.size() <= most - size) {
    bytes_.append(static_cast<const char*>(data), size);
    return;
  }
  spill(bytes_.data(), bytes_.size());
  bytes_.clear();
  spill(data, size);
}

void Content::spill(const void* data, std::size_t size) {
  if (!file_) {
    file_ = make_memfd(kName, Sealable::yes);
    if (!file_) fail("memfd_create");
  }
  if (const auto sized = set_file_size(file_.get(), file_bytes_ + size, kName); !sized)
    throw std::runtime_error(sized.error().message);
  if (const int error = write_all(file_.get(), data, size, file_bytes_))
    throw std::system_error(error, std::generic_category(), "write of a message to its memfd");
  file_bytes_ += size;
}

void Content::finish() {
  if (!file_) return;
  spill(bytes_.data(), bytes_.size());
  bytes_.clear();
  if (!seal(file_.get())) fail("fcntl(F_ADD_SEALS) of a message");
}

std::span<const std::byte> Content::view() {
  if (!file_ || file_bytes_ == 0) return std::as_bytes(std::span(bytes_));
  if (mapped_ == nullptr) {
    void* mapped = mmap(nullptr, file_bytes_, PROT_READ, MAP_PRIVATE, file_.get(), 0);
    if (mapped == MAP_FAILED) fail("mapping a message");
    mapped_ = MappedMemory(mapped, {file_bytes_});
  }
  return {static_cast<const std::byte*>(mapped_.get()), file_bytes_};
}

}  // namespace internal

// Allocated at the first use.  A worker has an Encoder before its function begins, and an
// allocation would copy pages of the heap.
internal::Content& Encoder::content() {
  if (!content_) content_ = std::make_shared<internal::Content>();
  return *content_;
}

Encoder::Encoder(std::size_t most_inline)
    : content_(std::make_shared<internal::Content>(most_inline)) {}
Encoder Encoder::in_memory() { return Encoder(~std::size_t{0}); }
Encoder Encoder::in_file() { return Encoder(std::size_t{0}); }

void Encoder::put_bytes(const void* data, std::size_t size) { content().append(data, size); }

void Encoder::put_descriptor(int fd) {
  FileDescriptor copy(fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy) internal::fail("duplicating a descriptor");
  content().append(std::move(copy));
}

std::uint64_t Encoder::written() const {
  return content_ ? content_->file_bytes() + content_->inline_bytes().size() : 0;
}

internal::Content Encoder::finish() {
  content().finish();
  return std::move(content());
}

Decoder::Decoder(internal::Content content)
    : Decoder(std::make_shared<internal::Content>(std::move(content))) {}
Decoder::Decoder(std::shared_ptr<internal::Content> content)
    : content_(std::move(content)), left_(content_->view()) {}
Decoder::Decoder(std::span<const std::byte> bytes)
    : content_(std::make_shared<internal::Content>()), left_(bytes) {}

void Decoder::take_bytes(void* to, std::size_t size) {
  if (size > left_.size()) internal::throw_damaged();
  if (size > 0)  // `to` may be null
    std::memcpy(to, left_.data(), size);
  left_ = left_.subspan(size);
}

std::size_t Decoder::take_count(std::size_t bytes_each) {
  std::uint64_t count = 0;
  take_bytes(&count, sizeof count);
  const std::size_t descriptors = content_->descriptors().size() - next_descriptor_;
  if (count > left_.size() / bytes_each + descriptors) internal::throw_damaged();
  return count;
}

void Decoder::take_descriptors(std::span<int> into) {
  auto& all = content_->descriptors();
  if (into.size() > all.size() - next_descriptor_) internal::throw_damaged();
  for (int& descriptor : into) descriptor = all[next_descriptor_++].release();
}

int Decoder::take_descriptor() {
  int descriptor = -1;
  take_descriptors({&descriptor, 1});
  return descriptor;
}

}  // namespace cowshed
