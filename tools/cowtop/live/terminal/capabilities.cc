#include <unistd.h>

// Both define macros with common names, so nothing else is included here.
#include <curses.h>
#include <term.h>

#include <cowshed/tools/cowtop/live/terminal/capabilities.h>

namespace cowshed::cowtop::live {

std::string capability(const char* name) {
  const char* text = ::tigetstr(name);
  // -1: the name is not that of a sequence.
  return text == nullptr || text == reinterpret_cast<char*>(-1) ? "" : text;
}

bool can_place_text() {
  int error = 0;
  if (::setupterm(nullptr, STDOUT_FILENO, &error) != OK) return false;
  const bool can = !capability("cup").empty();
  ::del_curterm(cur_term);
  return can;
}

}  // namespace cowshed::cowtop::live
