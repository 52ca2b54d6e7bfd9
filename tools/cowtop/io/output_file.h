#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>

namespace cowshed::cowtop {

// Where a report or a recording goes.  Opened before the command runs, so that a path that cannot
// be written is known before hours of measuring.  Move-only, owns its descriptor.
class OutputFile {
 public:
  // An empty `path` is standard output, and so is another name of the file that this goes to, of
  // which nothing is cut off.  What a file held stays until something is written.  It is no regular
  // file of `others`, by whatever name, which would be lost.  In a folder that others may write to
  // (to root: wherever it is not root's alone) no symlink is followed, and no FIFO and the like of
  // somebody else is taken, nor a file with another name elsewhere; in a folder that everybody may
  // write to, no file of somebody else at all.  Whoever put it there may mean harm.
  static Expected<OutputFile> open(const std::string& path,
                                   const std::vector<std::string>& others = {});

  // All of `text` in place of what the file held, or an error that names the file, which then is
  // empty where it can be.
  Expected<void> write_report(std::string_view text);

  // Whether what is written can be read at that path later (file), once by whoever is at the other
  // end (stream), or never (device).
  enum class Kind { file, stream, device };
  Kind kind() const;
  const std::string& path() const { return path_; }
  // Whether what is written to that descriptor would be in the same regular file.
  bool is_also(int descriptor) const;
  // Until it is closed nobody else gets this lock of a file (not of a pipe or a device), where its
  // file system has locks (flock(2)).  Errors: in_use.
  Expected<void> lock() const;
  // Whether something would be lost by clear().
  bool holds_something() const;
  // Empties the file, where it can be emptied.
  void clear();
  // All of `bytes` at its end, or an error, and nothing of them where they can be taken back.
  Expected<void> append(std::string_view bytes);

 private:
  explicit OutputFile(std::string path) : path_(std::move(path)) {}
  int fd() const;
  bool cut(std::size_t size) const;

  std::string path_;
  FileDescriptor file_;   // none: standard output
  std::size_t size_ = 0;  // what we have written
};

}  // namespace cowshed::cowtop
