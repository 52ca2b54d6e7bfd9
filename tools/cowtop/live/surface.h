#pragma once

#include <cstdint>
#include <string_view>

namespace cowshed::cowtop::live {

struct Size {
  int rows = 0;
  int columns = 0;
  bool operator==(const Size&) const = default;
};

// What a piece of text is; how that looks is the surface's business.  The text says it as well:
// a terminal may have neither colours nor attributes.
enum class Style : std::uint8_t {
  normal,
  title,
  heading,
  sorted,
  selected,
  ended,
  changing,
  alert
};

// What is drawn on.
class Surface {
 public:
  virtual ~Surface() = default;
  virtual Size size() const = 0;
  // Whether it shows more than ASCII.
  virtual bool unicode() const = 0;
  // `text` is printable (figures.h) and fits.
  virtual void put(int row, int column, std::string_view text, Style style) = 0;
};

}  // namespace cowshed::cowtop::live
