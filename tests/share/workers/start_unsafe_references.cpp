// Must not compile, and the compiler must say what to do.  (.cpp, since what is .cc is linted.)
#include <functional>
#include <vector>

#include <cowshed/share/workers.h>

struct Rule {
  std::function<bool(int)> applies;  // code of this process
};

void apply(const std::vector<cowshed::Ref<Rule>>& rules);

void start_it(const std::vector<cowshed::Ref<Rule>>& rules) {
  (void)cowshed::start<apply>({.method = cowshed::Start::spawn}, rules);
}
