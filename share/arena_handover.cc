#include <utility>
#include <vector>

#include <cowshed/share/arena_handover.h>
#include <cowshed/share/parcel.h>

namespace cowshed::launch {

Expected<internal::Content> pack_for_message() {
  return pack_arenas().map([](Parcel&& parcel) {
    internal::Content content;
    for (Descriptor& descriptor : parcel.descriptors) {
      content.append(std::move(descriptor));
    }
    return content;
  });
}

Expected<void> adopt_for_ever(internal::Content& content) {
  // Never destroyed: what the process's end would do to them is done by the kernel.
  static auto& adopted = *new std::vector<Arena>;
  adopted.clear();
  return adopt_arenas(Parcel{std::exchange(content.descriptors(), {})})
      .map([](std::vector<Arena>&& arenas) { adopted = std::move(arenas); });
}

}  // namespace cowshed::launch
