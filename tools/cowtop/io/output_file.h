#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>

namespace cowshed::cowtop {

// The file of a report or a recording.  It is opened before the command runs, so that a wrong path
// fails before hours of measuring.  Move-only, owns its descriptor.
class OutputFile {
 public:
  // Opens `path`; empty: standard output.  A name of the file behind standard output is the same.
  // The old content stays until something is written.  Errors: system_call; invalid_argument if it
  // is one of `others`, the input files, under any name.
  // In a folder where other users may write, the file may be a trap.  There it refuses symlinks,
  // special files of other users and files with several links; in a folder that everybody may write
  // to, it refuses all files of other users.  The error is permission_denied.
  static Expected<OutputFile> open(const std::string& path,
                                   const std::vector<std::string>& others = {});

  // Replaces the content by `text`.  After an error, which names the file, the file is empty if
  // possible.
  Expected<void> write_report(std::string_view text);

  // Written data can be read later (file), once at the other end (stream), or never (device).
  enum class Kind { file, stream, device };
  Kind kind() const;
  const std::string& path() const { return path_; }
  // Whether `descriptor` is open for the same regular file.
  bool is_also(int descriptor) const;
  // Locks a file (not a pipe or a device) until it is closed, by flock(2) if the file system has
  // it. Errors: in_use.
  Expected<void> lock() const;
  // Whether clear() would lose data.
  bool holds_something() const;
  // Empties the file if possible.
  void clear();
  // Appends `bytes`.  After an error none of them stay, if they can be removed.
  Expected<void> append(std::string_view bytes);

 private:
  explicit OutputFile(std::string path) : path_(std::move(path)) {}
  int fd() const;
  bool cut(std::size_t size) const;

  std::string path_;
  FileDescriptor file_;   // none: standard output
  std::size_t size_ = 0;  // of the written data
};

// A file that ends with its last descriptor; on a disk if possible, because a server may write for
// days.  Writes go to its end.  None: there was an error, in errno.
FileDescriptor nameless_file();

}  // namespace cowshed::cowtop
