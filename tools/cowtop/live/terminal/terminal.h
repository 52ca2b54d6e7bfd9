#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include <cowshed/base/error.h>
#include <cowshed/tools/cowtop/live/terminal/surface.h>

namespace cowshed::cowtop::live {

// The terminal that is standard input and output, for as long as there is one of these.  However
// the process ends, but by SIGKILL, the terminal is as it was; Ctrl-Z and resizing work.  It keeps
// descriptors of its own: both streams may be something else meanwhile.  One at a time.
class Terminal : public Surface {
 public:
  // Whether both are a terminal that can place text.
  static bool is_there();

  // Errors: unsupported, system_call.
  static Expected<std::unique_ptr<Terminal>> open();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;
  ~Terminal() override;

  // Readable when there may be a key, or another size.
  int fd() const;
  // nullopt: none has been pressed.
  std::optional<Key> next_key();
  // Nobody is there any more.
  bool is_gone() const { return is_gone_; }

  void clear();
  Size size() const override;
  bool unicode() const override { return unicode_; }
  void put(int row, int column, std::string_view text, Style style) override;
  void show();

 private:
  struct Handles;
  explicit Terminal(std::unique_ptr<Handles> handles);
  void suspend();
  void take_signals();

  std::unique_ptr<Handles> handles_;
  bool unicode_ = false;
  bool has_colors_ = false;
  bool is_gone_ = false;
};

}  // namespace cowshed::cowtop::live
