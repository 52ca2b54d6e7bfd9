#include <algorithm>
#include <functional>
#include <unistd.h>
#include <utility>

#include <cowshed/cow/code_reader/local_code_reader.h>
#include <cowshed/cow/code_reader/python_binary.h>

namespace cowshed::cow {

LocalCodeReader::LocalCodeReader(FileOf file_of, StackWalker::AtWorkOn at_work_on)
    : file_of_(std::move(file_of)), at_work_on_(std::move(at_work_on)) {}

std::optional<CodeReader::Extent> LocalCodeReader::add_binary(BinaryId binary,
                                                              const std::string& path) {
  at_work_on_(binary);
  Known& known = binaries_[binary];
  if (path == kVdso) known.elf = ElfBinary::vdso();
  else if (const FileDescriptor file = file_of_(binary, FileKind::itself, {}))
    known.elf = ElfBinary::open(path, file.get());
  const ElfBinary* open = known.elf ? &*known.elf : nullptr;
  known.unwound = {binary, open, nullptr};
  known.named = {binary, open, &file_of_};
  if (open == nullptr) return std::nullopt;
  return open->extent();
}

void LocalCodeReader::add_layout(LayoutId layout, const std::vector<Module>& modules) {
  std::vector<StackWalker::Module> known;
  known.reserve(modules.size());
  for (const Module& module : modules) {
    Known& binary = binaries_[module.binary];
    binary.unwound.id = module.binary;
    known.push_back({&binary.unwound, module.begin, module.end});
  }
  layouts_.erase(layout);
  layouts_.try_emplace(layout, known, at_work_on_);
}

CodeReader::Walk LocalCodeReader::walk(LayoutId layout, const CopySample& sample) {
  const auto found = layouts_.find(layout);
  const std::uint64_t pc = sample[Register::instruction_pointer];
  if (found == layouts_.end()) return {{{0, pc, pc}}, true};
  return found->second.walk(sample);
}

std::vector<Frame> LocalCodeReader::frames(BinaryId binary, std::uint64_t address) {
  at_work_on_(binary);
  return names_.try_emplace(binary, binaries_[binary].named).first->second.frames(address);
}

std::string LocalCodeReader::generated_function(BinaryId binary, std::uint64_t address) {
  at_work_on_(binary);
  const auto [entry, is_new] = perf_maps_.try_emplace(binary);
  if (is_new) {
    const FileDescriptor file = file_of_(binary, FileKind::perf_map, {});
    if (file) entry->second = PerfMap::read(file.get());
  }
  return entry->second.function(address);
}

void LocalCodeReader::forget_names(BinaryId binary) {
  names_.erase(binary);
  const auto known = binaries_.find(binary);
  if (known != binaries_.end() && known->second.elf) known->second.elf->release_pages();
}

const ElfBinary* LocalCodeReader::open_binary(BinaryId binary) {
  at_work_on_(binary);
  const auto known = binaries_.find(binary);
  return known == binaries_.end() || !known->second.elf ? nullptr : &*known->second.elf;
}

std::map<CounterField, std::size_t> LocalCodeReader::release_sites(BinaryId binary) {
  const ElfBinary* open = open_binary(binary);
  return open == nullptr ? std::map<CounterField, std::size_t>() : open->release_sites();
}

std::optional<PythonLayout> LocalCodeReader::python_layout(BinaryId binary) {
  const ElfBinary* open = open_binary(binary);
  return open == nullptr ? std::nullopt : cow::python_layout(open->elf());
}

std::string LocalCodeReader::name_at(BinaryId binary, std::uint64_t address) {
  const ElfBinary* open = open_binary(binary);
  return open == nullptr ? std::string() : open->text_at(address, kLongestName);
}

std::optional<FreeMemory> LocalCodeReader::free_pages(const FileDescriptor& memory,
                                                      const std::vector<HeapPart>& parts) {
  const auto read = [&](std::uint64_t address, std::span<std::byte> to) {
    const ssize_t got = ::pread(memory.get(), to.data(), to.size(), static_cast<off_t>(address));
    return got == static_cast<ssize_t>(to.size());
  };
  auto found = free_pages_of_glibc(parts, read);
  if (const auto of_python = free_pages_of_python(parts, read)) {
    if (!found) found.emplace();
    found->pages.insert(found->pages.end(), of_python->begin(), of_python->end());
    found->pages = in_order(std::move(found->pages));
  }
  if (!found || found->pages.size() <= kMostFreeRanges) return found;
  std::vector<FreePages>& pages = found->pages;
  const auto bytes = [](const FreePages& each) { return each.end - each.begin; };
  std::ranges::nth_element(pages, pages.begin() + kMostFreeRanges, std::greater<>(), bytes);
  pages.resize(kMostFreeRanges);
  std::ranges::sort(pages, {}, &FreePages::begin);
  return found;
}

}  // namespace cowshed::cow
