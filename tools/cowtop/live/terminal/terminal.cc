#define NCURSES_NOMACROS  // its macros have common names

#include <algorithm>
#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <curses.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <langinfo.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cowshed/tools/cowtop/live/terminal/capabilities.h>
#include <cowshed/tools/cowtop/live/terminal/terminal.h>
#include <cowshed/tools/cowtop/live/terminal/terminal_guard.h>

namespace cowshed::cowtop::live {
namespace {

constexpr short kTitlePair = 1;
constexpr short kChangingPair = 2;
constexpr int kEscapeDelayMs = 25;
// The limit of rows, and of columns.  curses needs 84 bytes for each character, and crashes without
// memory.
constexpr unsigned short kMost = 1000;

// Opens the terminal again, so that it can be non-blocking for us alone: the shell has the same
// open file as our standard input.  A blocking curses would wait after half a key, or after an
// unwanted mouse event.  Under sudo, standard input may be another user's, so this tries /dev/tty,
// too.  If neither can be opened (su -c), it returns a copy of standard input.
int open_input() {
  for (const char* path : {"/proc/self/fd/0", "/dev/tty"}) {
    const int fd = ::open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0) return fd;
  }
  return ::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
}

Key character(wint_t code) {
  constexpr wint_t kBackspace = 0x08;
  constexpr wint_t kDelete = 0x7f;
  constexpr wint_t kEscape = 0x1b;
  if (code == '\n' || code == '\r') return {KeyKind::enter};
  if (code == kBackspace || code == kDelete) return {KeyKind::backspace};
  if (code == kEscape) return {KeyKind::escape};
  return {KeyKind::character, static_cast<char32_t>(code)};
}

std::optional<Key> mouse() {
  MEVENT event;
  if (getmouse(&event) != OK) return std::nullopt;
  if ((event.bstate & BUTTON4_PRESSED) != 0) return Key{KeyKind::wheel_up};
  if ((event.bstate & BUTTON5_PRESSED) != 0) return Key{KeyKind::wheel_down};
  if ((event.bstate & BUTTON1_PRESSED) == 0) return std::nullopt;
  return Key{KeyKind::click, 0, event.y, event.x};
}

std::optional<Key> special(wint_t code) {
  switch (code) {
    case KEY_UP: return Key{KeyKind::up};
    case KEY_DOWN: return Key{KeyKind::down};
    case KEY_LEFT: return Key{KeyKind::left};
    case KEY_RIGHT: return Key{KeyKind::right};
    case KEY_PPAGE: return Key{KeyKind::page_up};
    case KEY_NPAGE: return Key{KeyKind::page_down};
    case KEY_HOME: return Key{KeyKind::home};
    case KEY_END: return Key{KeyKind::end};
    case KEY_ENTER: return Key{KeyKind::enter};
    case KEY_BACKSPACE: return Key{KeyKind::backspace};
    case KEY_MOUSE: return mouse();
    default: return std::nullopt;
  }
}

}  // namespace

struct Terminal::Handles {
  FILE* in = nullptr;
  FILE* out = nullptr;
  SCREEN* screen = nullptr;
  int epoll = -1;

  ~Handles() {
    if (screen) {
      endwin();
      terminal_guard::end();
      delscreen(screen);
    }
    if (epoll >= 0) ::close(epoll);
    if (in) std::fclose(in);
    if (out) std::fclose(out);
  }
};

bool Terminal::is_there() {
  return ::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1 && can_place_text();
}

Expected<std::unique_ptr<Terminal>> Terminal::open() {
  std::setlocale(LC_CTYPE, "");
  auto handles = std::make_unique<Handles>();
  const int in = open_input();
  const int out = ::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  if (in < 0 || out < 0) return system_error("the terminal", errno);
  handles->in = ::fdopen(in, "r");
  handles->out = ::fdopen(out, "w");
  handles->epoll = ::epoll_create1(EPOLL_CLOEXEC);
  if (!handles->in || !handles->out || handles->epoll < 0)
    return system_error("the terminal", errno);
  winsize size{};
  if (::ioctl(out, TIOCGWINSZ, &size) == 0 && (size.ws_row > kMost || size.ws_col > kMost)) {
    return make_error(ErrorCode::unsupported,
                      fmt::format("the terminal reports {} rows and {} columns, and cowtop draws "
                                  "at most {} of each; set its size: stty rows 40 cols 120",
                                  size.ws_row, size.ws_col, kMost));
  }
  use_tioctl(TRUE);
  termios before{};
  ::tcgetattr(in, &before);
  handles->screen = newterm(nullptr, handles->out, handles->in);
  if (!handles->screen)
    return make_error(ErrorCode::unsupported, "TERM names no terminal that can be drawn on");
  const bool has_mouse = !capability("kmous").empty();
  terminal_guard::begin(in, before,
                        (has_mouse ? "\x1b[?1006l\x1b[?1000l" : "") + capability("sgr0") +
                            capability("cnorm") + capability("rmkx") + capability("rmcup"));
  for (const int fd : {in, terminal_guard::event_fd()}) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    ::epoll_ctl(handles->epoll, EPOLL_CTL_ADD, fd, &event);
  }
  return std::unique_ptr<Terminal>(new Terminal(std::move(handles)));
}

Terminal::Terminal(std::unique_ptr<Handles> handles) : handles_(std::move(handles)) {
  unicode_ = std::string_view(::nl_langinfo(CODESET)) == "UTF-8";
  cbreak();
  noecho();
  nonl();
  keypad(stdscr, TRUE);
  nodelay(stdscr, TRUE);
  set_escdelay(kEscapeDelayMs);
  curs_set(0);
  mousemask(BUTTON1_PRESSED | BUTTON4_PRESSED | BUTTON5_PRESSED, nullptr);
  mouseinterval(0);
  const char* no_color = std::getenv("NO_COLOR");
  // Two colours that are legible on light and dark, and that the colour-blind can distinguish.
  if ((no_color == nullptr || *no_color == 0) && has_colors() && start_color() == OK &&
      use_default_colors() == OK) {
    has_colors_ = true;
    init_pair(kTitlePair, COLOR_CYAN, -1);
    init_pair(kChangingPair, COLOR_MAGENTA, -1);
  }
}

Terminal::~Terminal() = default;

int Terminal::fd() const { return handles_->epoll; }

void Terminal::suspend() {
  endwin();
  terminal_guard::stop();
  clearok(curscr, TRUE);
  refresh();
}

void Terminal::take_signals() {
  const auto events = terminal_guard::take();
  if (events.stop) suspend();
  if (!events.redraw) return;
  winsize size{};
  if (::ioctl(::fileno(handles_->out), TIOCGWINSZ, &size) == 0 && size.ws_row > 0)
    resizeterm(std::min(size.ws_row, kMost), std::min(size.ws_col, kMost));
  reset_prog_mode();
  clearok(curscr, TRUE);
}

std::optional<Key> Terminal::next_key() {
  take_signals();
  for (;;) {
    wint_t code = 0;
    const int kind = get_wch(&code);
    if (kind == ERR) break;
    const auto key = kind == KEY_CODE_YES ? special(code) : character(code);
    if (key) return key;
  }
  pollfd terminal{::fileno(handles_->in), POLLIN, 0};
  ::poll(&terminal, 1, 0);
  if ((terminal.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0) is_gone_ = true;
  return std::nullopt;
}

void Terminal::clear() { erase(); }

Size Terminal::size() const { return {getmaxy(stdscr), getmaxx(stdscr)}; }

void Terminal::put(int row, int column, std::string_view text, Style style) {
  const auto color = [&](short pair) {
    return has_colors_ ? static_cast<attr_t>(COLOR_PAIR(pair)) : A_NORMAL;
  };
  attr_t attributes = A_NORMAL;
  switch (style) {
    case Style::normal: break;
    case Style::title: attributes = A_BOLD | color(kTitlePair); break;
    case Style::heading: attributes = A_REVERSE; break;
    case Style::sorted:
    case Style::selected: attributes = A_REVERSE | A_BOLD; break;
    case Style::ended: attributes = A_DIM; break;
    case Style::changing: attributes = A_BOLD | color(kChangingPair); break;
    case Style::alert: attributes = A_BOLD; break;
  }
  attrset(static_cast<int>(attributes));
  mvaddnstr(row, column, text.data(), static_cast<int>(text.size()));
}

void Terminal::show() { refresh(); }

}  // namespace cowshed::cowtop::live
