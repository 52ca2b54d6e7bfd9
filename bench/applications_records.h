#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

// What the dictionary of the snapshot holds, made from numbers alone.
namespace cowshed::bench {

std::string record_key(std::uint64_t number);
std::string record_text(std::uint64_t number, std::uint64_t version);

// How many there are, and which of them are written to, in turns, again and again.
struct RecordSet {
  std::uint64_t count;
  std::uint64_t written;

  // All over the set, and none twice; `index` is below `written`.
  std::uint64_t written_number(std::uint64_t index) const { return index * 7919 % count; }
};

// Writes records as text to /dev/null, and adds up what it has written, in any order.
class RecordWriter {
 public:
  RecordWriter();
  ~RecordWriter();
  RecordWriter(const RecordWriter&) = delete;
  RecordWriter& operator=(const RecordWriter&) = delete;

  void add(std::string_view key, std::uint64_t version, std::string_view text);
  // Of all of them.
  std::uint64_t finish();

 private:
  void flush();

  int fd_;
  std::string buffer_;
  std::uint64_t sum_ = 0;
};

// What a writer of the whole set says after so many writes, computed from numbers.
class RightSum {
 public:
  explicit RightSum(const RecordSet& set);
  std::uint64_t after(std::uint64_t writes) const;

 private:
  RecordSet set_;
  std::uint64_t fresh_ = 0;  // nothing is written to yet
};

}  // namespace cowshed::bench
