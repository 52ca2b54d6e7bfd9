#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#include "sharing_dictionary.h"

namespace cowshed::bench {
namespace {

// Before the key, the links and the title, padded to whole words.
struct Head {
  std::uint64_t weight;
  std::uint32_t title_size;
  std::uint32_t links;
};

// Slots with the offsets of the records, half of them in use, then the records: no pointer.
std::vector<std::byte> lay_out(std::size_t entries) {
  std::size_t slots = 1;
  while (slots < 2 * entries) slots *= 2;
  std::vector<std::uint64_t> table(slots + 1);
  table[0] = slots;
  const std::size_t table_bytes = table.size() * sizeof table[0];
  std::vector<std::byte> result(table_bytes);
  result.reserve(table_bytes + entries * kEntryBytes);
  const auto append = [&](const void* from, std::size_t size) {
    const auto* bytes = static_cast<const std::byte*>(from);
    result.insert(result.end(), bytes, bytes + size);
  };
  for (std::size_t i = 0; i < entries; ++i) {
    const Entry entry = make_entry(i);
    std::size_t slot = KeyHash()(entry.key) % slots;
    while (table[1 + slot] != 0) slot = (slot + 1) % slots;
    table[1 + slot] = result.size();
    const Head head = {entry.weight, static_cast<std::uint32_t>(entry.title.size()),
                       static_cast<std::uint32_t>(entry.links.size())};
    append(&head, sizeof head);
    append(entry.key.data(), kKeySize);
    append(entry.links.data(), entry.links.size() * sizeof entry.links[0]);
    append(entry.title.data(), entry.title.size());
    result.resize((result.size() + 7) / 8 * 8);
  }
  std::memcpy(result.data(), table.data(), table_bytes);
  return result;
}

// Mapped for reading; the file has no name left, and goes with its last process.
const std::byte* map_file_of(const std::vector<std::byte>& content) {
  std::string path = std::filesystem::temp_directory_path() / "cowshed-sharing-XXXXXX";
  const int fd = mkstemp(path.data());
  if (fd < 0) throw std::runtime_error(path + " cannot be made");
  unlink(path.c_str());
  std::size_t done = 0;
  while (done < content.size()) {
    const ssize_t wrote = write(fd, content.data() + done, content.size() - done);
    if (wrote <= 0) break;
    done += static_cast<std::size_t>(wrote);
  }
  // Now, so that nothing is written back while others are measured.
  const bool written = done == content.size() && fsync(fd) == 0;
  void* memory = mmap(nullptr, content.size(), PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
  close(fd);
  if (!written || memory == MAP_FAILED) throw std::runtime_error(path + " cannot be written");
  return static_cast<const std::byte*>(memory);
}

class BufferDictionary final : public Dictionary {
 public:
  explicit BufferDictionary(std::size_t entries) : memory_(map_file_of(lay_out(entries))) {}

  std::uint64_t look_up(Keys keys, std::size_t look_ups) const override {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < look_ups; ++i) sum += look_up(keys.next());
    return sum;
  }

 private:
  std::uint64_t look_up(std::string_view key) const {
    const auto* table = reinterpret_cast<const std::uint64_t*>(memory_);
    const std::uint64_t slots = table[0];
    for (std::size_t slot = KeyHash()(key) & (slots - 1); table[1 + slot] != 0;
         slot = (slot + 1) & (slots - 1)) {
      const std::byte* record = memory_ + table[1 + slot];
      const auto* text = reinterpret_cast<const char*>(record + sizeof(Head));
      if (std::string_view(text, kKeySize) != key) continue;
      const auto& head = *reinterpret_cast<const Head*>(record);
      const auto* links = reinterpret_cast<const std::uint32_t*>(text + kKeySize);
      const auto* title = reinterpret_cast<const char*>(links + head.links);
      return digest({title, head.title_size}, {links, head.links}, head.weight);
    }
    throw std::runtime_error("a key is missing");
  }

  const std::byte* memory_;
};

}  // namespace

std::unique_ptr<Dictionary> make_buffer_dictionary(std::size_t entries) {
  return std::make_unique<BufferDictionary>(entries);
}

}  // namespace cowshed::bench
