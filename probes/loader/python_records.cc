#include <algorithm>
#include <cstddef>
#include <cstring>

#include <cowshed/base/utf8.h>
#include <cowshed/probes/loader/python_records.h>

namespace cowshed {
namespace {

std::string text_of(const cowshed_python_text& from) {
  std::string text;
  const std::size_t bytes = std::min<std::size_t>(from.bytes, sizeof from.text);
  for (std::size_t at = 0; from.width != 0 && at + from.width <= bytes; at += from.width) {
    char32_t character = 0;
    std::memcpy(&character, from.text + at, std::min<std::size_t>(from.width, sizeof character));
    text += internal::utf8(character);
  }
  return text;
}

// Since 3.12 the interpreter puts a frame of its own between a class's call and its __init__().
bool is_of_interpreter(const PythonCode& code) {
  return code.file == "__init__" && code.function == "__init__";
}

}  // namespace

void PythonRecords::add_code(const void* record, std::size_t bytes) {
  constexpr std::size_t kWithoutLines = offsetof(cowshed_python_code, lines);
  if (bytes < kWithoutLines) return;
  const auto& from = *static_cast<const cowshed_python_code*>(record);
  auto code = std::make_shared<PythonCode>();
  code->function = text_of(from.function);
  code->file = text_of(from.file);
  code->first_line = static_cast<int>(from.first_line);
  code->lines.assign(from.lines,
                     from.lines + std::min<std::size_t>(from.lines_bytes, bytes - kWithoutLines));
  codes_.add(from.id, std::move(code));
}

void PythonRecords::add_type(const void* record, std::size_t bytes) {
  if (bytes < sizeof(cowshed_python_type)) return;
  const auto& from = *static_cast<const cowshed_python_type*>(record);
  auto type = std::make_shared<Type>();
  type->name_at = from.name_at;
  const std::size_t length = strnlen(from.name, sizeof from.name);
  if (from.is_named != 0) type->name.assign(from.name, length);
  if (length == sizeof from.name) type->name += "...";
  types_.add(from.id, std::move(type));
}

void PythonRecords::describe(const cowshed_sample& from, CopySample& sample) {
  const std::size_t frames = std::min<std::size_t>(from.python_frames, COWSHED_PYTHON_FRAMES);
  sample.python.reserve(frames);
  for (std::size_t i = 0; i < frames; ++i) {
    const cowshed_python_frame& frame = from.python[i];  // NOLINT(*-constant-array-index)
    auto code = codes_.find(frame.code);
    if (code != nullptr && is_of_interpreter(*code)) continue;
    sample.python.push_back({std::move(code), frame.instruction & ~COWSHED_PYTHON_ENTRY,
                             (frame.instruction & COWSHED_PYTHON_ENTRY) != 0});
  }
  sample.is_python_cut = from.is_python_cut != 0;
  sample.is_in_code = from.is_in_code != 0;
  if (from.object_type == 0) return;
  const auto type = types_.find(from.object_type);
  if (type == nullptr) return;
  sample.object_type = type->name;
  sample.object_type_name_at = type->name_at;
  sample.object_offset = from.object_offset;
}

}  // namespace cowshed
