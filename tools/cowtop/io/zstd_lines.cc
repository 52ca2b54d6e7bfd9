#include <array>
#include <new>
#include <utility>
#include <zstd.h>

#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/io/zstd_lines.h>

namespace cowshed::cowtop {
namespace {

// Limits the memory that a damaged or hostile file can make us take.
constexpr int kMostWindowLog = 23;
constexpr int kWindowLog = 19;  // for writing: a context takes 1 MB, not 3
constexpr std::size_t kMostLine = 256 << 20;

}  // namespace

ZstdLineEncoder::ZstdLineEncoder() : context_(ZSTD_createCCtx(), ZSTD_freeCCtx) {
  if (!context_) throw std::bad_alloc();
  ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_checksumFlag, 1);
  ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_windowLog, kWindowLog);
}

void ZstdLineEncoder::compress(std::string_view part, bool is_last) {
  std::array<char, 4096> chunk;
  ZSTD_inBuffer in{part.data(), part.size(), 0};
  for (bool is_done = false; !is_done;) {
    ZSTD_outBuffer out{chunk.data(), chunk.size(), 0};
    const std::size_t left =
        ZSTD_compressStream2(context_.get(), &out, &in, is_last ? ZSTD_e_end : ZSTD_e_continue);
    if (ZSTD_isError(left) != 0) throw std::bad_alloc();  // no other error is possible
    frame_.append(chunk.data(), out.pos);
    is_done = is_last ? left == 0 : in.pos == in.size;
  }
}

void ZstdLineEncoder::add(std::string_view part) { compress(part, false); }

std::string ZstdLineEncoder::take() {
  compress("\n", true);
  return std::exchange(frame_, {});
}

std::string ZstdLineEncoder::encode(std::string_view line) {
  add(line);
  return take();
}

Expected<ZstdLineReader> ZstdLineReader::open(InputFile file) {
  ZstdLineReader reader(std::move(file));
  TRY_VOID(reader.fill());
  return reader;
}

ZstdLineReader::ZstdLineReader(InputFile file)
    : file_(std::move(file)),
      context_(ZSTD_createDCtx(), ZSTD_freeDCtx),
      input_(ZSTD_DStreamInSize()) {
  if (!context_) throw std::bad_alloc();
  ZSTD_DCtx_setParameter(context_.get(), ZSTD_d_windowLogMax, kMostWindowLog);
}

// Returns whether there is input.
Expected<bool> ZstdLineReader::fill() {
  if (begin_ < end_) return true;
  TRY(end_, file_.read(input_.data(), input_.size()));
  begin_ = 0;
  read_ += end_;
  return end_ > 0;
}

Expected<std::optional<std::string>> ZstdLineReader::next() {
  std::string line;
  std::vector<char> chunk(ZSTD_DStreamOutSize());
  bool within = false;
  while (damage_.empty()) {
    TRY(const auto filled, fill());
    if (!filled) {
      if (within) damage_ = "ends within an interval";
      break;
    }
    within = true;
    ZSTD_inBuffer in{input_.data(), end_, begin_};
    ZSTD_outBuffer out{chunk.data(), chunk.size(), 0};
    const std::size_t left = ZSTD_decompressStream(context_.get(), &out, &in);
    begin_ = in.pos;
    if (ZSTD_isError(left) != 0) {
      damage_ = std::string("is damaged (") + ZSTD_getErrorName(left) + ")";
      break;
    }
    line.append(chunk.data(), out.pos);
    if (line.size() > kMostLine) damage_ = "is damaged (a line of more than 256 MiB)";
    if (left == 0) {
      if (damage_.empty() && !line.empty()) return std::optional(std::move(line));
      within = false;  // an empty frame
    }
  }
  return std::optional<std::string>();
}

}  // namespace cowshed::cowtop
