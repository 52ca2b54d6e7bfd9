#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <functional>
#include <iterator>

#include <cowshed/cow/symbolize/stack_unwinder.h>

namespace cowshed::cow {
namespace {

constexpr std::size_t kMostKnown = 4000;
constexpr unsigned kBlockBits = 21;

// Code, or the read-only data that the linker put around it.
bool belongs_to_code(const Mapping& mapping) {
  const bool is_file = mapping.inode != 0 && mapping.path.starts_with('/');
  return is_file || mapping.path == CodeReader::kVdso;
}

}  // namespace

StackUnwinder::StackUnwinder(const std::vector<Mapping>& mappings, pid_t pid, BinaryCache& binaries)
    : reader_(&binaries.reader()) {
  for (const Mapping& mapping : mappings)
    if (mapping.executable) code_.push_back({mapping.begin, mapping.end, !mapping.is_memory()});
  for (const Code& code : code_) {
    const std::uint64_t first = code.begin >> kBlockBits;
    const std::uint64_t last = (code.end - 1) >> kBlockBits;
    for (std::uint64_t block = first; block <= last && block - first < kBlocks; ++block)
      blocks_.set(block % kBlocks);
  }
  layout_ = binaries.new_layout();
  modules_ = modules_of(mappings, pid, binaries);
  reader_->add_layout(layout_, modules_);
  for (const CodeReader::Module& module : modules_) {
    const Binary& binary = *binaries_.at(module.binary);
    if (!binary.python) continue;
    python_ = binary.python;
    python_->runtime += module.begin - binary.begin;
  }
}

const std::string& StackUnwinder::name_at(std::uint64_t address) {
  if (names_.size() >= kMostKnown) names_.clear();
  const auto [entry, is_new] = names_.try_emplace(address);
  if (!is_new) return entry->second;
  for (const CodeReader::Module& module : modules_) {
    if (address < module.begin || address >= module.end) continue;
    const std::uint64_t linked = address - module.begin + binaries_.at(module.binary)->begin;
    entry->second = reader_->name_at(module.binary, linked);
    break;
  }
  return entry->second;
}

StackUnwinder::~StackUnwinder() { reader_->remove_layout(layout_); }

// The mappings of a file are neighbours in the list.
std::vector<CodeReader::Module> StackUnwinder::modules_of(const std::vector<Mapping>& mappings,
                                                          pid_t pid, BinaryCache& binaries) {
  std::vector<CodeReader::Module> modules;
  for (auto at = mappings.begin(); at != mappings.end();) {
    if (!belongs_to_code(*at)) {
      ++at;
      continue;
    }
    const auto first = at;
    const auto is_same = [&](const Mapping& each) {
      return each.path == first->path && each.inode == first->inode && each.device == first->device;
    };
    std::uint64_t end = at->end;
    auto code = mappings.end();
    for (; at != mappings.end() && is_same(*at); ++at) {
      if (at->executable) code = at;
      end = at->end;
    }
    if (code == mappings.end()) continue;
    const Binary* binary = binaries.open(*code, pid);
    if (!binary->is_readable && first->is_memory()) continue;  // generated code
    modules.push_back({binary->id, first->begin, end});
    binaries_[binary->id] = binary;
  }
  return modules;
}

std::string StackUnwinder::code_layout(const std::vector<Mapping>& mappings) {
  std::string text;
  for (const Mapping& mapping : mappings) {
    if (mapping.executable) {
      fmt::format_to(std::back_inserter(text), "{:x}-{:x} {:x} {} {}\n", mapping.begin, mapping.end,
                     mapping.device, mapping.inode, mapping.path);
    }
  }
  return text;
}

const StackUnwinder::Code* StackUnwinder::code_at(std::uint64_t word) const {
  if (!blocks_[(word >> kBlockBits) % kBlocks]) return nullptr;
  const auto after =
      std::upper_bound(code_.begin(), code_.end(), word,
                       [](std::uint64_t value, const Code& code) { return value < code.begin; });
  return after != code_.begin() && word < std::prev(after)->end ? &*std::prev(after) : nullptr;
}

// A hash of everything that decides how a stack is unwound: its place, and the words in the
// registers and on the stack that point to code or into the stack (counted from its top).
std::size_t StackUnwinder::fingerprint(const CopySample& sample) const {
  const std::uint64_t top = sample[Register::rsp];
  std::string text;
  const auto add = [&](std::uint64_t key, std::uint64_t word) {
    const std::uint64_t depth = word - top;
    const bool in_stack = depth < sample.stack.size();
    if (!in_stack && code_at(word) == nullptr) return;
    const std::uint64_t value = in_stack ? depth : word;
    text.append(reinterpret_cast<const char*>(&key), sizeof key);
    text.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  for (std::size_t i = 0; i < kRegisters; ++i) add(UINT64_MAX - i, sample.registers[i]);
  for (std::size_t at = 0; at + sizeof(std::uint64_t) <= sample.stack.size();
       at += sizeof(std::uint64_t)) {
    std::uint64_t word = 0;
    std::memcpy(&word, sample.stack.data() + at, sizeof word);
    add(at, word);
  }
  return std::hash<std::string>()(text);  // the text takes kilobytes
}

CodeAddress StackUnwinder::known_address(const CodeReader::Location& location) const {
  const auto binary = binaries_.find(location.binary);
  const Code* code = code_at(location.pc);
  // libdwfl assigns the gap behind a module, which may have generated code, to the module.
  if (binary == binaries_.end() || code == nullptr || !code->of_file) return {nullptr, location.pc};
  return {binary->second, location.address};
}

CodeStack StackUnwinder::walk(const CopySample& sample) {
  const CodeReader::Walk walk = reader_->walk(layout_, sample);
  CodeStack stack;
  stack.truncated = walk.truncated;
  for (const CodeReader::Location& location : walk.locations)
    stack.addresses.push_back(known_address(location));
  return stack;
}

const CodeStack& StackUnwinder::unwind(const CopySample& sample) {
  if (known_.size() >= kMostKnown) known_.clear();
  const auto [entry, is_new] = known_.try_emplace(fingerprint(sample));
  if (is_new) entry->second = walk(sample);
  return entry->second;
}

}  // namespace cowshed::cow
