#include <cowshed/tools/cowtop/html/page.h>
#include <cowshed/tools/cowtop/html/page_text.h>

namespace cowshed::cowtop {

std::string html_page(std::string_view json) {
  std::string page;
  page.reserve(page_begin().size() + json.size() + json.size() / 8 + page_end().size());
  page += page_begin();
  for (const char c : json) {
    // Only in strings, and there the same; "</script" would end the data, and "<!--" more than
    // that.
    if (c == '<') {
      page += "\\u003c";
    } else {
      page += c;
    }
  }
  page += page_end();
  return page;
}

}  // namespace cowshed::cowtop
