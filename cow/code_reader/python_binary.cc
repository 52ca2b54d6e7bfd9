#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <gelf.h>
#include <libelf.h>
#include <string_view>

#include <cowshed/cow/code_reader/python_binary.h>

namespace cowshed::cow {
namespace {

struct Section {
  std::uint64_t address = 0;
  const char* bytes = nullptr;
  std::size_t size = 0;
};

std::optional<GElf_Shdr> header_of(Elf_Scn* section) {
  GElf_Shdr header;
  if (::gelf_getshdr(section, &header) == nullptr) return std::nullopt;
  return header;
}

// The bytes of a section as they are in the file.
std::optional<Section> contents(Elf_Scn* section, const GElf_Shdr& header) {
  if (header.sh_type == SHT_NOBITS) return std::nullopt;
  const Elf_Data* data = ::elf_rawdata(section, nullptr);
  if (data == nullptr || data->d_buf == nullptr) return std::nullopt;
  return Section{header.sh_addr, static_cast<const char*>(data->d_buf), data->d_size};
}

std::optional<Section> section_named(Elf* elf, std::string_view name) {
  std::size_t names = 0;
  if (::elf_getshdrstrndx(elf, &names) != 0) return std::nullopt;
  for (Elf_Scn* each = ::elf_nextscn(elf, nullptr); each != nullptr;
       each = ::elf_nextscn(elf, each)) {
    const auto header = header_of(each);
    if (!header) continue;
    const char* its = ::elf_strptr(elf, names, header->sh_name);
    if (its != nullptr && its == name) return contents(each, *header);
  }
  return std::nullopt;
}

std::optional<std::uint64_t> word_at(const Section& section, std::size_t offset) {
  std::uint64_t word = 0;
  if (offset > section.size || section.size - offset < sizeof word) return std::nullopt;
  std::memcpy(&word, section.bytes + offset, sizeof word);
  return word;
}

std::optional<std::uint64_t> word_at_address(Elf* elf, std::uint64_t address) {
  for (Elf_Scn* each = ::elf_nextscn(elf, nullptr); each != nullptr;
       each = ::elf_nextscn(elf, each)) {
    const auto header = header_of(each);
    if (!header || header->sh_addr == 0 || address < header->sh_addr ||
        address - header->sh_addr >= header->sh_size) {
      continue;
    }
    if (const auto section = contents(each, *header))
      return word_at(*section, address - header->sh_addr);
  }
  return std::nullopt;
}

// Returns PY_VERSION_HEX, from the exported constant.
std::optional<std::uint64_t> exported_version(Elf* elf) {
  for (Elf_Scn* each = ::elf_nextscn(elf, nullptr); each != nullptr;
       each = ::elf_nextscn(elf, each)) {
    const auto header = header_of(each);
    if (!header || header->sh_type != SHT_DYNSYM || header->sh_entsize == 0) continue;
    Elf_Data* data = ::elf_getdata(each, nullptr);
    GElf_Sym symbol;
    for (int i = 0; data != nullptr && ::gelf_getsym(data, i, &symbol) != nullptr; ++i) {
      const char* name = ::elf_strptr(elf, header->sh_link, symbol.st_name);
      if (name != nullptr && std::string_view(name) == "Py_Version")
        return word_at_address(elf, symbol.st_value);
    }
  }
  return std::nullopt;
}

constexpr std::uint64_t minor_version(std::uint64_t version) { return version >> 16 & 0xffff; }
constexpr std::uint64_t k311 = 0x030b;
constexpr std::uint64_t k312 = 0x030c;
constexpr std::uint64_t k313 = 0x030d;
constexpr std::uint64_t k314 = 0x030e;
constexpr std::uint64_t k315 = 0x030f;

// The same in 3.11 to 3.15.
PythonLayout common_layout() {
  PythonLayout layout;
  layout.next_thread = 8;
  layout.frame_bytes = 80;
  layout.previous = 8;
  layout.instruction = 56;
  layout.owner = 70;
  layout.file = 112;
  layout.function = 128;
  layout.line_table = 136;
  layout.first_line = 68;
  layout.ascii_text = 40;
  layout.wide_text = 56;
  return layout;
}

// 3.11 and 3.12 have no table.  Their offsets are those of their headers (Include/internal).
std::optional<PythonLayout> fixed_layout(std::uint64_t version) {
  PythonLayout layout = common_layout();
  layout.interpreters = 40;
  layout.cframe = 56;
  switch (minor_version(version)) {
    case k311:
      layout.threads = 16;
      layout.thread_id = 152;
      layout.current_frame = 8;
      layout.previous = 48;
      layout.executable = 32;
      layout.owner = 69;
      layout.is_entry = 68;
      layout.first_line = 72;
      layout.code = 184;
      layout.ascii_text = 48;
      layout.wide_text = 72;
      return layout;
    case k312:
      layout.threads = 72;
      layout.thread_id = 136;
      layout.code = 192;
      return layout;
    default: return std::nullopt;
  }
}

constexpr std::string_view kCookie = "xdebugpy";
constexpr std::uint64_t kMostOffset = 1 << 20;

// The words of _Py_DebugOffsets that we need, by their place in it.
struct TablePlaces {
  std::size_t interpreters;
  std::size_t next_interpreter;
  std::size_t threads;
  std::size_t next_thread;
  std::size_t current_frame;
  std::size_t thread_id;
  std::size_t frame_size;
  std::size_t previous;
  std::size_t executable;
  std::size_t instruction;
  std::size_t owner;
  std::size_t file;
  std::size_t function;
  std::size_t line_table;
  std::size_t first_line;
  std::size_t code;
};

constexpr TablePlaces kPlaces313{5, 8, 9, 21, 23, 24, 28, 29, 30, 31, 33, 35, 37, 38, 39, 43};
constexpr TablePlaces kPlaces314{5, 8, 9, 24, 26, 27, 31, 32, 33, 34, 36, 40, 42, 43, 44, 48};
constexpr TablePlaces kPlaces315{5, 8, 9, 24, 26, 30, 39, 40, 41, 42, 44, 48, 50, 51, 52, 56};

const TablePlaces* places_in_table(std::uint64_t minor_version) {
  switch (minor_version) {
    case k313: return &kPlaces313;
    case k314: return &kPlaces314;
    case k315: return &kPlaces315;
    default: return nullptr;
  }
}

std::optional<PythonLayout> layout_in_table(const Section& runtime) {
  if (runtime.size < kCookie.size() || std::string_view(runtime.bytes, kCookie.size()) != kCookie)
    return std::nullopt;
  const TablePlaces* found = places_in_table(minor_version(word_at(runtime, 8).value_or(0)));
  if (found == nullptr) return std::nullopt;
  const TablePlaces& places = *found;
  const bool is_free_threaded = word_at(runtime, 16).value_or(1) != 0;
  if (is_free_threaded) return std::nullopt;
  bool is_sane = true;
  const auto offset = [&](std::size_t place) {
    const std::uint64_t word =
        word_at(runtime, place * sizeof(std::uint64_t)).value_or(kMostOffset);
    if (word >= kMostOffset) is_sane = false;
    return static_cast<std::uint32_t>(word);
  };
  PythonLayout layout = common_layout();
  layout.interpreters = offset(places.interpreters);
  layout.next_interpreter = offset(places.next_interpreter);
  layout.threads = offset(places.threads);
  layout.next_thread = offset(places.next_thread);
  layout.thread_id = offset(places.thread_id);
  layout.current_frame = offset(places.current_frame);
  layout.frame_bytes = std::min<std::uint32_t>(offset(places.frame_size), 80);
  layout.previous = offset(places.previous);
  layout.executable = offset(places.executable);
  layout.instruction = offset(places.instruction);
  layout.owner = offset(places.owner);
  layout.file = offset(places.file);
  layout.function = offset(places.function);
  layout.line_table = offset(places.line_table);
  layout.first_line = offset(places.first_line);
  layout.code = offset(places.code);
  if (!is_sane) return std::nullopt;
  return layout;
}

// Whether the words that the probes take from copies of a frame and of a code object are in them.
bool is_sane(const PythonLayout& layout) {
  constexpr std::uint32_t kWord = sizeof(std::uint64_t);
  const auto are_in = [](std::initializer_list<std::uint32_t> words, std::uint32_t size) {
    return std::all_of(words.begin(), words.end(), [&](std::uint32_t word) {
      return word % kWord == 0 && word + kWord <= size;
    });
  };
  return layout.frame_bytes % kWord == 0 && layout.frame_bytes <= 128 && layout.code % kWord == 0 &&
         layout.code <= 256 && layout.owner < layout.frame_bytes &&
         layout.is_entry < layout.frame_bytes && layout.first_line + 4 <= layout.code &&
         layout.first_line % 4 == 0 &&
         are_in({layout.previous, layout.executable, layout.instruction}, layout.frame_bytes) &&
         are_in({layout.file, layout.function, layout.line_table}, layout.code);
}

}  // namespace

std::optional<PythonLayout> python_layout(Elf* elf) {
  const auto runtime = section_named(elf, ".PyRuntime");
  if (!runtime) return std::nullopt;
  auto layout = layout_in_table(*runtime);
  if (!layout) layout = fixed_layout(exported_version(elf).value_or(0));
  if (!layout || !is_sane(*layout)) return std::nullopt;
  layout->runtime = runtime->address;
  return layout;
}

}  // namespace cowshed::cow
