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

// Lines of text as Zstandard frames with checksums, one frame a line.  A complete frame can be read
// whatever follows it, and zstdcat(1) reads them all.  Not thread-safe.
class ZstdLineEncoder {
 public:
  ZstdLineEncoder();
  // Returns the frame of `line` and a newline.
  std::string encode(std::string_view line);

  // Encode a line in parts: add() each, then take() returns the frame.
  void add(std::string_view part);
  std::string take();

 private:
  void compress(std::string_view part, bool is_last);

  std::unique_ptr<ZSTD_CCtx_s, std::size_t (*)(ZSTD_CCtx_s*)> context_;
  std::string frame_;
};

// Reads such lines.  Move-only.  Not thread-safe.
class ZstdLineReader {
 public:
  // Errors: those of InputFile.
  static Expected<ZstdLineReader> open(InputFile file);

  // Returns the next line; nullopt if no complete frame follows (damage() tells whether it is the
  // end).  Errors: those of InputFile.
  Expected<std::optional<std::string>> next();

  // Returns why no line follows, in words that continue the file's name; empty: the end of the
  // file.
  const std::string& damage() const { return damage_; }
  bool is_empty() const { return read_ == 0; }

 private:
  explicit ZstdLineReader(InputFile file);
  Expected<bool> fill();

  InputFile file_;
  std::unique_ptr<ZSTD_DCtx_s, std::size_t (*)(ZSTD_DCtx_s*)> context_;
  std::vector<char> input_;
  std::size_t begin_ = 0;  // of the rest of input_
  std::size_t end_ = 0;
  std::size_t read_ = 0;
  std::string damage_;
};

}  // namespace cowshed::cowtop
