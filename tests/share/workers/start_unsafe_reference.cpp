// Must not compile, and the compiler must say what to do.  (.cpp, since what is .cc is linted.)
#include <functional>

#include <cowshed/share/workers.h>

struct Rule {
  std::function<bool(int)> applies;  // code of this process
};

void apply(const Rule& rule);

void start_it(const cowshed::Ref<Rule>& rule) {
  (void)cowshed::start<apply>({.method = cowshed::Start::spawn}, rule);
}
