#include <algorithm>
#include <numeric>

#include <cowshed/cow/process_tree.h>
#include <cowshed/tools/cowtop/live/model/rows.h>
#include <cowshed/tools/cowtop/text/display_width.h>

namespace cowshed::cowtop::live {
namespace {

constexpr std::uint64_t kShownAfterEndNs = 10'000'000'000;

class RowMaker {
 public:
  RowMaker(const Model& model, const View& view)
      : model_(model),
        view_(view),
        processes_(model.measurement.processes),
        parents_(cow::parents(processes_)),
        children_(processes_.size()) {
    for (std::size_t i = 0; i < processes_.size(); ++i)
      (parents_[i] == i ? roots_ : children_[parents_[i]]).push_back(i);
  }

  Rows make() {
    select();
    if (view_.sort != Column::command) find_sort_values();
    if (!view_.is_tree) {
      std::vector<std::size_t> all(processes_.size());
      std::iota(all.begin(), all.end(), std::size_t{0});
      sort(all);
      for (const std::size_t process : all)
        if (shown_[process]) result_.rows.push_back({process, processes_[process].id(), {}, 0});
      return std::move(result_);
    }
    add_tree();
    return std::move(result_);
  }

 private:
  bool matches(const cow::ProcessCopies& process) const {
    return view_.filter.empty() || is_named(process, view_.filter);
  }

  bool ended_long_ago(const cow::ProcessCopies& process) const {
    return !process.alive &&
           model_.measurement.taken_ns > model_.history.ended_ns(process.id()) + kShownAfterEndNs;
  }

  void select() {
    const bool any_alive = std::ranges::any_of(processes_, &cow::ProcessCopies::alive);
    shown_.resize(processes_.size());
    // Children come after their parents.
    for (std::size_t i = processes_.size(); i-- > 0;) {
      const bool is_hidden =
          !view_.shows_all_ended && any_alive && ended_long_ago(processes_[i]) && !shown_[i];
      if (is_hidden) result_.ended_hidden += processes_[i].processes;
      if (!is_hidden && matches(processes_[i])) shown_[i] = true;
      if (view_.is_tree && shown_[i]) shown_[parents_[i]] = true;
    }
  }

  // A tree stands where the first of its processes would stand alone.
  void find_sort_values() {
    sort_values_.resize(processes_.size());
    // Children come after their parents.
    for (std::size_t i = processes_.size(); i-- > 0;) {
      const auto own = sort_value(view_.sort, processes_[i], model_);
      put_first(sort_values_[i], own);
      if (view_.is_tree) put_first(sort_values_[parents_[i]], sort_values_[i]);
    }
  }
  void put_first(std::optional<double>& value, std::optional<double> other) const {
    if (!value || !other) value = value ? value : other;
    else value = view_.is_descending ? std::max(*value, *other) : std::min(*value, *other);
  }

  void sort(std::vector<std::size_t>& processes) const {
    const auto by_name = [&](std::size_t a, std::size_t b) {
      const int order = processes_[a].name().compare(processes_[b].name());
      return view_.is_descending ? order > 0 : order < 0;
    };
    if (view_.sort == Column::command) {
      std::ranges::stable_sort(processes, by_name);
      return;
    }
    std::ranges::stable_sort(processes, [&](std::size_t a, std::size_t b) {
      const auto& left = sort_values_[a];
      const auto& right = sort_values_[b];
      if (!left || !right) return left.has_value() && !right.has_value();
      return view_.is_descending ? *left > *right : *left < *right;
    });
  }

  // Returns the number of descendants that would be shown.
  std::size_t shown_below(std::size_t process) {
    std::size_t result = 0;
    std::vector<std::size_t> left = {process};
    while (!left.empty()) {
      const std::size_t next = left.back();
      left.pop_back();
      for (const std::size_t child : children_[next]) {
        if (!shown_[child]) continue;
        ++result;
        left.push_back(child);
      }
    }
    return result;
  }

  // Without recursion, because a tree may be as deep as there are processes.
  void add_tree() {
    struct Pending {
      std::size_t process;
      std::vector<bool> branches;
    };
    std::vector<Pending> pending;
    const auto push = [&](std::vector<std::size_t>& level, const std::vector<bool>& above,
                          bool is_root) {
      sort(level);
      bool is_last = true;
      for (auto each = level.rbegin(); each != level.rend(); ++each) {
        if (!shown_[*each]) continue;
        pending.push_back({*each, above});
        if (!is_root) pending.back().branches.push_back(!is_last);
        is_last = false;
      }
    };
    push(roots_, {}, true);
    while (!pending.empty()) {
      Pending next = std::move(pending.back());
      pending.pop_back();
      const ProcessId id = processes_[next.process].id();
      result_.rows.push_back({next.process, id, next.branches, 0});
      // A filter shows its matches in collapsed trees, too.
      if (view_.collapsed.contains(id) && view_.filter.empty())
        result_.rows.back().folded = shown_below(next.process);
      else push(children_[next.process], next.branches, false);
    }
  }

  const Model& model_;
  const View& view_;
  const std::vector<cow::ProcessCopies>& processes_;
  std::vector<std::size_t> parents_;  // a root's: itself
  std::vector<std::vector<std::size_t>> children_;
  std::vector<std::size_t> roots_;
  std::vector<bool> shown_;
  std::vector<std::optional<double>> sort_values_;
  Rows result_;
};

}  // namespace

std::array<bool, kColumns.size()> View::usual_columns() {
  std::array<bool, kColumns.size()> columns{};
  for (std::size_t i = 0; i < columns.size(); ++i) columns.at(i) = kColumns.at(i).is_usual;
  return columns;
}

bool is_named(const cow::ProcessCopies& process, const std::string& text) {
  return contains(process.name(), text) || contains(std::to_string(process.pid), text);
}

Rows rows_of(const Model& model, const View& view) { return RowMaker(model, view).make(); }

}  // namespace cowshed::cowtop::live
