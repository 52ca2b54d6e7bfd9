#include <algorithm>
#include <optional>

#include <cowshed/base/published_layout.h>
#include <cowshed/cow/arenas/frozen_arenas.h>
#include <cowshed/cow/arenas/published_layout.h>

namespace cowshed::cow {
namespace {

// Images are mapped in whole ranges of 2 MiB; few other files are.
bool may_be_image(const Mapping& mapping) {
  return mapping.has_file() && mapping.begin % arch::kHugePage == 0 &&
         mapping.end % arch::kHugePage == 0;
}

}  // namespace

std::vector<FrozenArena> frozen_arenas(const ProcFiles& proc, pid_t pid,
                                       const std::vector<Mapping>& mappings) {
  std::vector<FrozenArena> result;
  std::optional<Expected<PublishedLayout>> layout;
  for (const Mapping& mapping : mappings) {
    if (!mapping.is_private) continue;
    if (const auto name = arena_name(mapping); !name.empty()) {
      result.push_back({std::string(name), &mapping});
      continue;
    }
    if (!may_be_image(mapping)) continue;
    if (!layout) layout = read_published_layout(proc, pid, mappings);
    if (!*layout) continue;
    const auto& arenas = (*layout)->arenas;
    const auto known = std::ranges::find_if(arenas, [&](const PublishedArena& arena) {
      return arena.begin <= mapping.begin && mapping.end <= arena.end;
    });
    if (known != arenas.end()) result.push_back({known->name, &mapping});
  }
  return result;
}

ArenaCopies& arena_named(std::vector<ArenaCopies>& arenas, const std::string& name) {
  const auto known = std::ranges::find(arenas, name, &ArenaCopies::name);
  if (known != arenas.end()) return *known;
  constexpr const char* kFurther = "further arenas";
  if (arenas.size() >= COWSHED_MAX_ARENAS && name != kFurther) return arena_named(arenas, kFurther);
  return arenas.emplace_back(ArenaCopies{name, std::nullopt, 0});
}

}  // namespace cowshed::cow
