#pragma once

#include <cstdint>
#include <string_view>

namespace cowshed::cowtop::live {

struct Size {
  int rows = 0;
  int columns = 0;
  bool operator==(const Size&) const = default;
};

// The meaning of a piece of text; the surface chooses its look.  A terminal may have no colours, so
// the text must not depend on them.
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

enum class KeyKind : std::uint8_t {
  character,
  up,
  down,
  left,
  right,
  page_up,
  page_down,
  home,
  end,
  enter,
  escape,
  backspace,
  click,
  wheel_up,
  wheel_down
};

struct Key {
  KeyKind kind = KeyKind::character;
  char32_t character = 0;
  int row = 0;  // of a click
  int column = 0;
};

// A screen to draw on.
class Surface {
 public:
  virtual ~Surface() = default;
  virtual Size size() const = 0;
  // Whether it can show more than ASCII.
  virtual bool unicode() const = 0;
  // Draws `text`, which must be printable (figures.h) and fit.
  virtual void put(int row, int column, std::string_view text, Style style) = 0;
};

}  // namespace cowshed::cowtop::live
