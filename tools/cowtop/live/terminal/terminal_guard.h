#pragma once

#include <string>
#include <termios.h>

namespace cowshed::cowtop::live {

// From begin() to end(), signals that end the process first restore the terminal.  Signals that
// stop, continue or resize become events on a descriptor.
namespace terminal_guard {

// `settings` and `sequence` restore the terminal.
void begin(int fd, const termios& settings, const std::string& sequence);
void end();

int event_fd();  // readable: take() has an event
struct Events {
  bool stop = false;
  bool redraw = false;  // continued or resized
};
Events take();

// Stops the process as SIGTSTP does by default; returns when it continues.
void stop();

}  // namespace terminal_guard
}  // namespace cowshed::cowtop::live
