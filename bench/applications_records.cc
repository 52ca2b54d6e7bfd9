#include "applications_records.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <iterator>
#include <stdexcept>
#include <unistd.h>

namespace cowshed::bench {
namespace {

constexpr std::size_t kBlock = 65536;

void append_line(std::string& to, std::string_view key, std::uint64_t version,
                 std::string_view text) {
  fmt::format_to(std::back_inserter(to), "{} {} {}\n", key, version, text);
}

std::uint64_t fnv(std::string_view text) {
  std::uint64_t digest = 0xcbf29ce484222325;
  for (const char c : text) digest = (digest ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return digest;
}

std::uint64_t right_digest(std::uint64_t number, std::uint64_t version) {
  std::string line;
  append_line(line, record_key(number), version, record_text(number, version));
  return fnv(line);
}

}  // namespace

std::string record_key(std::uint64_t number) { return fmt::format("account/{:016x}", number); }

std::string record_text(std::uint64_t number, std::uint64_t version) {
  const std::uint64_t random = (number * 31 + version + 1) * 0x9e3779b97f4a7c15U;
  return std::string(64 + (random >> 56U), static_cast<char>('a' + (random >> 32U) % 26));
}

RecordWriter::RecordWriter() : fd_(open("/dev/null", O_WRONLY | O_CLOEXEC)) {
  if (fd_ < 0) throw std::runtime_error("/dev/null cannot be opened");
  buffer_.reserve(kBlock);
}

RecordWriter::~RecordWriter() { close(fd_); }

void RecordWriter::add(std::string_view key, std::uint64_t version, std::string_view text) {
  const std::size_t begin = buffer_.size();
  append_line(buffer_, key, version, text);
  sum_ += fnv(std::string_view(buffer_).substr(begin));
  if (buffer_.size() > kBlock - 1024) flush();
}

std::uint64_t RecordWriter::finish() {
  flush();
  return sum_;
}

void RecordWriter::flush() {
  if (write(fd_, buffer_.data(), buffer_.size()) < 0) {
    throw std::runtime_error("/dev/null cannot be written");
  }
  buffer_.clear();
}

RightSum::RightSum(const RecordSet& set) : set_(set) {
  for (std::uint64_t number = 0; number < set.count; ++number) fresh_ += right_digest(number, 0);
}

std::uint64_t RightSum::after(std::uint64_t writes) const {
  std::uint64_t sum = fresh_;
  for (std::uint64_t i = 0; i < set_.written; ++i) {
    const std::uint64_t number = set_.written_number(i);
    const std::uint64_t version = writes / set_.written + (i < writes % set_.written ? 1 : 0);
    sum += right_digest(number, version) - right_digest(number, 0);
  }
  return sum;
}

}  // namespace cowshed::bench
