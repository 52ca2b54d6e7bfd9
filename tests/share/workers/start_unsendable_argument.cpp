// Must not compile, and the compiler must say what to do.  (.cpp, since what is .cc is linted.)
#include <memory>

#include <cowshed/share/workers.h>

void work(std::shared_ptr<int> number);

void start_it(const std::shared_ptr<int>& number) {
  (void)cowshed::start<work>({.method = cowshed::Start::spawn}, number);
}
