#include <algorithm>
#include <utility>

#include <cowshed/cow/symbolize/symbolizer.h>

namespace cowshed::cow {

void Symbolizer::add(const CodeAddress& code) {
  const Binary& binary = *code.binary;
  std::vector<Frame>& frames = known_[code];
  if (!binary.is_generated) {
    frames = binary.reader->frames(binary.id, code.address);
  } else {
    Frame& frame = frames.emplace_back();
    frame.function = binary.reader->generated_function(binary.id, code.address);
    // One name for all addresses: they are not functions, and there may be very many.
    if (frame.function.empty()) frame.function = "generated code";
  }
  for (Frame& frame : frames) {
    frame.module = binary.path;
    frame.address = code.address;
  }
}

const std::vector<Frame>& Symbolizer::frames(const CodeAddress& code) {
  const auto known = known_.find(code);
  if (known != known_.end()) return known->second;
  if (code.binary == nullptr) {
    Frame& frame = known_[code].emplace_back();
    frame.address = code.address;
    if (code.address == 0) frame.function = "unknown code";
  } else {
    add(code);
  }
  return known_.at(code);
}

Frames Symbolizer::shared(std::vector<Frame> frames) {
  constexpr std::size_t kFew = 64;
  if (shared_.size() > most_shared_) {
    std::erase_if(shared_, [](const Frames& each) { return each.is_only(); });
    most_shared_ = std::max(kFew, 2 * shared_.size());
  }
  return *shared_.emplace(std::move(frames)).first;
}

void Symbolizer::look_up(std::set<CodeAddress> addresses) {
  std::erase_if(addresses, [this](const CodeAddress& code) {
    return code.binary == nullptr || code.binary->is_generated || known_.contains(code);
  });
  for (auto code = addresses.begin(); code != addresses.end();) {
    const Binary* binary = code->binary;
    for (; code != addresses.end() && code->binary == binary; ++code) add(*code);
    binary->reader->forget_names(binary->id);
  }
}

}  // namespace cowshed::cow
