// CALL, one of CMakeLists.txt, must not compile, and the compiler must say what to do.  (.cpp,
// since what is .cc is linted.)
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <cowshed/share/freeze_copy.h>
#include <cowshed/share/map.h>

struct Rule {
  std::function<bool(int)> applies;  // code of this process
};
template <class Key>
struct Order {
  bool descending;
  bool operator()(const Key& a, const Key& b) const { return descending ? b < a : a < b; }
};
using Rules = std::vector<cowshed::Ref<Rule>>;

void take_rule(const Rule& rule);
void take_rules(const Rules& rules);
int take_item(cowshed::Ref<Rule> rule);
void take_pointer(std::shared_ptr<int> number);
void take_address(const int* number);
void take_arena(const cowshed::Arena& arena);
const auto change_rule = [](Rule& changed) { return changed.applies(1) ? 1 : 0; };

void call(const cowshed::Ref<Rule>& rule, const Rules& rules, cowshed::Arena& arena,
          const std::shared_ptr<int>& pointer, std::string_view text) {
  const int* address = pointer.get();
  const std::set<std::string, Order<std::string>> ordered;
  const cowshed::WorkersOptions spawn = {.method = cowshed::Start::spawn};
  using namespace cowshed;
  (void)CALL;
}
