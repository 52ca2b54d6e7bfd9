#include <algorithm>
#include <fmt/format.h>
#include <map>
#include <string_view>
#include <utility>

#include <cowshed/cow/code_sites.h>
#include <cowshed/cow/copying_code.h>
#include <cowshed/cow/process_copies.h>
#include <cowshed/cow/symbols.h>

namespace cowshed::cow {
namespace {

constexpr std::size_t kMostCallers = 8;  // names cost: of the C library's, 0.1 s
constexpr std::size_t kCallersInText = 3;

std::string_view file_name(std::string_view path) { return path.substr(path.rfind('/') + 1); }

std::string frame_text(const Frame& frame) {
  std::string text = frame.function;
  if (text.empty() && frame.module.empty()) return fmt::format("{:#x}", frame.address);
  if (text.empty()) return fmt::format("{}+{:#x}", file_name(frame.module), frame.address);
  if (frame.line != 0) return text + fmt::format(" at {}:{}", file_name(frame.file), frame.line);
  if (!frame.module.empty()) text += fmt::format(" in {}", file_name(frame.module));
  return text;
}

bool is_generated(const std::vector<Mapping>& mappings, std::uint64_t address) {
  return std::any_of(mappings.begin(), mappings.end(), [address](const Mapping& mapping) {
    return address >= mapping.begin && address < mapping.end && mapping.is_memory();
  });
}

}  // namespace

std::vector<CodeSite> CopyingCode::sites(const PageRanges& pages) const {
  Binaries binaries{ProcFiles()};
  StackUnwinder unwinder(mappings, pid, binaries);
  Symbols symbols;
  struct Found {
    std::uint64_t pages = 0;
    std::vector<Frame> stack;  // the longest: of some faults nothing is known but the instruction
  };
  std::map<std::vector<Frame>, Found> found;
  for (const CopySample& fault : faults) {
    const std::uint64_t page = fault.address / kPageSize * kPageSize;
    if (pages.bytes_within({page, page + kPageSize}) == 0) continue;
    std::vector<Frame> stack;
    if (!fault.user_mode) stack.emplace_back().function = "[kernel]";
    for (CodeAddress address : unwinder.unwind(fault).addresses) {
      if (address.binary == nullptr && is_generated(mappings, address.address)) {
        address = {binaries.generated_code(), 0};
      }
      const std::vector<Frame>& here = symbols.frames(address);
      stack.insert(stack.end(), here.begin(), here.end());
      if (stack.size() >= place_of(stack).size() + kMostCallers) break;
    }
    Found& site = found[place_of(stack)];
    ++site.pages;
    if (stack.size() > site.stack.size()) site.stack = std::move(stack);
  }
  std::vector<CodeSite> result;
  result.reserve(found.size());
  for (auto& [place, site] : found) {
    result.push_back({place, std::move(site.stack), site.pages, site.pages});
  }
  std::stable_sort(result.begin(), result.end(),
                   [](const CodeSite& a, const CodeSite& b) { return a.samples > b.samples; });
  return result;
}

std::string to_text(const CodeSite& site) {
  std::string text;
  const std::size_t count = std::min(site.stack.size(), site.frames.size() + kCallersInText);
  for (std::size_t i = 0; i < count; ++i) {
    const bool is_inlined = i > 0 && site.stack[i - 1].inlined;
    text += i == 0 ? "" : is_inlined ? ", inlined in " : ", called from ";
    text += frame_text(site.stack[i]);
  }
  if (site.stack.size() == site.frames.size()) text += ", called from where is not known";
  return text;
}

}  // namespace cowshed::cow
