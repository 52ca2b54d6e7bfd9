#include "copies.h"

#include <cowshed/base/size_literals.h>

#include "got.h"

namespace cowshed::bench {

void Copies::add(cow::Meter& meter) {
  got(meter.end());
  const cow::Copied copied = got(meter.copied());
  for (const auto& mapping : copied.mappings) {
    const std::size_t count = mapping.pages.bytes() / 4_KiB;
    pages += count;
    arena_pages += mapping.arena.empty() ? 0 : count;
  }
}

}  // namespace cowshed::bench
