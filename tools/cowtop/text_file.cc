#include <vector>

#include <cowshed/tools/cowtop/text_file.h>

namespace cowshed::cowtop {

Expected<std::string> read_text_file(const std::string& path) {
  auto file = InputFile::open(path);
  if (!file) return tl::make_unexpected(file.error());
  return read_text(*file);
}

Expected<std::string> read_text(InputFile& file) {
  constexpr std::size_t kMost = 256 << 20;
  constexpr std::size_t kAtOnce = 1 << 16;
  std::vector<char> bytes(kAtOnce);
  std::string text;
  for (;;) {
    const auto got = file.read(bytes.data(), bytes.size());
    if (!got) return tl::make_unexpected(got.error());
    if (*got == 0) return text;
    text.append(bytes.data(), *got);
    if (text.size() > kMost) {
      return make_error(ErrorCode::bad_recording, file.path() + ": is larger than 256 MiB");
    }
  }
}

}  // namespace cowshed::cowtop
