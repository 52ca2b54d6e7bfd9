#include <utility>

#include <cowshed/cow/object_copies.h>

namespace cowshed::cow {

std::vector<ObjectCopies> copies_by_object(const PublishedLayout& layout,
                                           const std::vector<CopiedArena>& arenas) {
  std::vector<ObjectCopies> result;
  for (const PublishedObject& object : layout.objects) {
    const std::uint64_t end = object.address + object.bytes;
    const PageRange pages{object.address / kPageSize * kPageSize,
                          (end + kPageSize - 1) / kPageSize * kPageSize};
    for (const auto& [mapping, copied] : arenas) {
      if (object.address < mapping->begin || end > mapping->end) continue;
      result.push_back(
          {object.name, object.type, object.arena, copied.bytes_within(pages) / kPageSize});
    }
  }
  return result;
}

std::optional<std::vector<ObjectCopies>> copies_by_object(const ProcFiles& proc, pid_t pid,
                                                          const std::vector<Mapping>& mappings,
                                                          const std::vector<CopiedArena>& arenas) {
  if (arenas.empty()) return std::vector<ObjectCopies>{};
  const auto layout = read_published_layout(proc, pid, mappings);
  if (!layout) return std::nullopt;
  return copies_by_object(*layout, arenas);
}

std::optional<std::vector<SentObjects>> sent_objects(const ProcFiles& proc, pid_t pid,
                                                     const std::vector<Mapping>& mappings) {
  auto published = read_published_transfers(proc, pid, mappings);
  if (!published) return std::nullopt;
  std::vector<SentObjects> result;
  for (PublishedTransfer& each : *published) {
    result.push_back({std::move(each.origin), std::move(each.name), std::move(each.type),
                      std::string(to_string(each.kind)), each.sent.messages, each.sent.objects,
                      each.sent.bytes});
  }
  return result;
}

}  // namespace cowshed::cow
