#include <fmt/format.h>

#include <cowshed/tools/cowtop/frame_text.h>
#include <cowshed/tools/cowtop/printable.h>

namespace cowshed::cowtop {

std::string frame_text(const cow::Frame& frame) {
  std::string text = printable(frame.function.empty() ? "??" : frame.function);
  if (!frame.file.empty()) {
    text += fmt::format(" {}:{}", printable(cow::base_name(frame.file)), frame.line);
  } else if (!frame.module.empty()) {
    text += fmt::format(" ({}", printable(cow::base_name(frame.module)));
    text += frame.function.empty() ? fmt::format("+0x{:x})", frame.address) : ")";
  } else if (frame.function.empty()) {
    text = fmt::format("0x{:x}", frame.address);
  }
  return frame.inlined ? text + " (inlined)" : text;
}

std::string site_name(const cow::CodeSite& site) {
  return site.frames.empty() ? "??" : frame_text(site.frames.back());
}

}  // namespace cowshed::cowtop
