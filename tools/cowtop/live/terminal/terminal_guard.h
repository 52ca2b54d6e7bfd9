#pragma once

#include <string>
#include <termios.h>

namespace cowshed::cowtop::live {

// From begin() to end(), signals that end the process first make the terminal usable again.
// Signals that stop, continue and resize are noted, and written to a descriptor.
namespace terminal_guard {

// The terminal's settings, and what is to be written to it, to make it usable.
void begin(int fd, const termios& settings, const std::string& sequence);
void end();

int event_fd();  // readable: one of those below
struct Events {
  bool stop = false;
  bool redraw = false;  // continued, or of another size
};
Events take();

// What SIGTSTP does by default; returns when continued.
void stop();

}  // namespace terminal_guard
}  // namespace cowshed::cowtop::live
