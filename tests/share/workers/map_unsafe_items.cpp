// Must not compile, and the compiler must say what to do.  (.cpp, since what is .cc is linted.)
#include <functional>
#include <vector>

#include <cowshed/share/map.h>

struct Rule {
  std::function<bool(int)> applies;  // code of this process
};

int apply(cowshed::Ref<Rule> rule);

void map_it(const std::vector<cowshed::Ref<Rule>>& rules) { (void)cowshed::map<apply>({}, rules); }
