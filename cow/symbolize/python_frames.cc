#include <utility>

#include <cowshed/cow/symbolize/python_frames.h>

namespace cowshed::cow {
namespace {

constexpr std::size_t kLongestName = 1024;

Frame python_frame(std::string function) {
  Frame frame;
  frame.function = std::move(function);
  frame.is_python = true;
  return frame;
}

}  // namespace

PythonFrames::Lines& PythonFrames::lines_of(const std::shared_ptr<const PythonCode>& code,
                                            CodeReader& reader) {
  if (const auto known = known_.find(code.get()); known != known_.end())
    return *known->second.lines;
  if (known_.size() >= kMostCodes || all_lines_ >= kMostLines) {
    codes_.clear();
    known_.clear();
    all_lines_ = 0;
  }
  const auto [entry, is_new] = codes_.try_emplace(code.get());
  Lines& lines = entry->second;
  if (is_new) {
    lines.lines = reader.python_lines(*code);
    if (lines.lines.empty()) lines.lines.emplace_back();
    lines.frames.resize(lines.lines.size());
    all_lines_ += lines.lines.size();
  }
  known_[code.get()] = {code, &lines};
  return lines;
}

const Frame* PythonFrames::shared(const PythonCode& code, int line) {
  static const Frame further = python_frame("further Python code");
  Frame frame = python_frame(code.function.empty() ? "??" : code.function.substr(0, kLongestName));
  frame.file = code.file.substr(0, kLongestName);
  frame.line = line;
  if (frames_.size() < kMostFrames) return &*frames_.insert(std::move(frame)).first;
  const auto found = frames_.find(frame);
  return found == frames_.end() ? &further : &*found;
}

const Frame* PythonFrames::frame(const PythonFrame& call, CodeReader& reader) {
  static const Frame unknown = python_frame("unknown Python code");
  if (!call.code) return &unknown;
  Lines& lines = lines_of(call.code, reader);
  const std::size_t index = line_index(lines.lines, call.instruction);
  const Frame*& frame = lines.frames[index];
  if (frame == nullptr) frame = shared(*call.code, lines.lines[index].line);
  return frame;
}

}  // namespace cowshed::cow
