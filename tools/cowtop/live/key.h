#pragma once

#include <cstdint>

namespace cowshed::cowtop::live {

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

}  // namespace cowshed::cowtop::live
