#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/tools/cowtop/io/input_file.h>

struct ZSTD_CCtx_s;
struct ZSTD_DCtx_s;

namespace cowshed::cowtop {

// Lines of text as Zstandard frames one behind another, one frame a line, each with a checksum:
// what was appended whole can be read whatever follows it, and zstdcat(1) reads it all.

// Not thread-safe.
class ZstdLineEncoder {
 public:
  ZstdLineEncoder();
  // The frame of `line` and a newline.
  std::string encode(std::string_view line);

  // The same of a line that is nowhere whole.
  void add(std::string_view part);
  std::string take();

 private:
  void compress(std::string_view part, bool is_last);

  std::unique_ptr<ZSTD_CCtx_s, std::size_t (*)(ZSTD_CCtx_s*)> context_;
  std::string frame_;
};

// Move-only; not thread-safe.
class ZstdLineReader {
 public:
  // Errors: those of reading.
  static Expected<ZstdLineReader> open(InputFile file);

  // nullopt where no more whole frame follows: at the end(), or what follows is damage().
  // Errors: those of reading.
  Expected<std::optional<std::string>> next();

  // Why there is no more, in words that follow the file's name; empty: it is the end of the file.
  const std::string& damage() const { return damage_; }
  bool is_empty() const { return read_ == 0; }
  // How many bytes of memory so much of a file may take.  Not by the file's size alone: deep stacks
  // of processes that are all alike compress without end.
  std::size_t most() const { return (1U << 30) + 2048 * read_; }

 private:
  explicit ZstdLineReader(InputFile file);
  Expected<bool> fill();

  InputFile file_;
  std::unique_ptr<ZSTD_DCtx_s, std::size_t (*)(ZSTD_DCtx_s*)> context_;
  std::vector<char> input_;
  std::size_t begin_ = 0;  // of what is left of input_
  std::size_t end_ = 0;
  std::size_t read_ = 0;
  std::string damage_;
};

}  // namespace cowshed::cowtop
