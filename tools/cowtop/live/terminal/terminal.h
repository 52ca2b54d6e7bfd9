#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include <cowshed/base/error.h>
#include <cowshed/tools/cowtop/live/terminal/surface.h>

namespace cowshed::cowtop::live {

// The terminal of standard input and output.  It is restored when the process ends in any way but
// SIGKILL.  Ctrl-Z and resizing work.  It has its own descriptors, so both streams may be
// redirected meanwhile.  One at a time.
class Terminal : public Surface {
 public:
  // Whether both streams are a terminal that can move the cursor.
  static bool is_there();

  // Errors: unsupported, system_call.
  static Expected<std::unique_ptr<Terminal>> open();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;
  ~Terminal() override;

  // Readable after a key or a change of the size.
  int fd() const;
  // Returns the next key; nullopt: none.
  std::optional<Key> next_key();
  // The terminal was closed.
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
