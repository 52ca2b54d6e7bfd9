#include <algorithm>
#include <string>

#include <cowshed/share/freeze_copy.h>

namespace cowshed {

FreezeContext::~FreezeContext() {
  if (finished_) return;
  for (std::size_t i = 0; i < targets_.size(); ++i) {
    const Target& target = targets_[i];
    if (i < constructed_) target.key.type->destroy(target.memory);
    resource_->deallocate(target.memory, target.key.type->size, target.key.type->alignment);
  }
}

void* FreezeContext::target_of(const void* source, const Type& type) {
  ++pointers_;
  const Key key = {source, &type};
  const auto [known, added] = memo_.try_emplace(key);
  if (added) {
    targets_.push_back({key, nullptr});
    try {
      known->second = resource_->allocate(type.size, type.alignment);
    } catch (...) {
      targets_.pop_back();
      throw;
    }
    targets_.back().memory = known->second;
  }
  return known->second;
}

bool FreezeContext::is_element(const Key& key) const {
  auto vector = vectors_.upper_bound(key.source);
  if (vector == vectors_.begin()) return false;
  --vector;
  const auto& [first, elements] = *vector;
  const auto offset = static_cast<std::size_t>(static_cast<const std::byte*>(key.source) -
                                               static_cast<const std::byte*>(first));
  const std::size_t size = key.type->source_size;
  return elements.type == key.type && offset % size == 0 && offset / size < elements.count;
}

void FreezeContext::finish() {
  std::vector<std::size_t> unfilled;
  for (; !all_constructed(); ++constructed_) {
    const Target target = targets_[constructed_];
    left_empty_ = false;
    target.key.type->construct(target.memory, target.key.source, *this);
    if (left_empty_) unfilled.push_back(constructed_);
  }
  left_empty_ = false;
  for (const std::size_t i : unfilled) {
    const auto& [key, memory] = targets_[i];
    if (!key.type->construct_again(memory, key.source, *this)) {
      refuse("a " + std::string(key.type->name) +
             " has a set or map whose keys have pointers; what it becomes needs a noexcept move "
             "constructor");
    }
  }
  if (left_empty_ || !all_constructed())
    refuse("a freeze() led to other objects when called again");
  const auto twice = std::find_if(targets_.begin(), targets_.end(),
                                  [this](const Target& target) { return is_element(target.key); });
  if (twice != targets_.end()) {
    refuse("a pointer leads to an element of a vector of " + std::string(twice->key.type->name) +
           "; keep such elements by std::shared_ptr");
  }
  finished_ = true;
}

void FreezeContext::refuse(const std::string& why) {
  throw Failure{{ErrorCode::invalid_argument, 0, "freeze_copy: " + why}};
}

void FreezeContext::refuse_derived(std::string_view base, const char* dynamic_type) {
  refuse("a pointer to " + std::string(base) + " leads to a derived object (" + dynamic_type +
         "); give cowshed::FreezeTraits<" + std::string(base) +
         "> a pointer() that tells what it becomes");
}

void FreezeContext::refuse_loss(std::string_view container) {
  refuse("elements of a " + std::string(container) +
         " would be lost: its order or hash takes copies of different keys for the same");
}

}  // namespace cowshed
