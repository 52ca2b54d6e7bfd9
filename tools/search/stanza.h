#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <cowshed/base/error.h>

namespace cowshed::search {

// Views into the text that was parsed.  A value keeps the line ends of its continuation lines.
struct Field {
  std::string_view name;
  std::string_view value;
};

// One record of a package list: a paragraph of "Name: value" lines (deb822(5)).
class Stanza {
 public:
  // Empty where there is no such field.  Upper and lower case are the same, as in deb822.
  std::string_view operator[](std::string_view name) const;
  const std::vector<Field>& fields() const { return fields_; }

 private:
  friend class StanzaReader;
  std::vector<Field> fields_;
};

// Reads a whole list, record by record.  `text` must outlive the reader and its stanzas; `source`
// is for messages.
class StanzaReader {
 public:
  StanzaReader(std::string_view text, std::string source)
      : rest_(text), source_(std::move(source)) {}

  // False at the end.  Errors (invalid_argument, naming source and line): a line that is no field,
  // a record without Package or Version, a last line that was cut off.
  Expected<bool> next(Stanza& stanza);

 private:
  Expected<std::string_view> take_line();
  Expected<void> add_line(Stanza& stanza, std::string_view line) const;
  tl::unexpected<Error> error(const std::string& what) const;

  std::string_view rest_;
  std::string source_;
  std::size_t line_ = 0;
};

}  // namespace cowshed::search
