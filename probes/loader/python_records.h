#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include <cowshed/probes/bpf/record.h>
#include <cowshed/probes/samples.h>

namespace cowshed {

// The code objects and types that the BPF programs have sent, by number.  Keeps those that were
// used last, more than the kernel's side remembers.
class PythonRecords {
 public:
  struct Type {
    std::string name;           // empty: could not be read
    std::uint64_t name_at = 0;  // its address
  };

  // Take a record of the ring buffer, of `bytes` bytes at most.
  void add_code(const void* record, std::size_t bytes);
  void add_type(const void* record, std::size_t bytes);

  // Sets the frames and the object of a sample.
  void describe(const cowshed_sample& from, CopySample& sample);

 private:
  // Forgets, half of them at a time, what was not used for long.
  template <class Value>
  class Recent {
   public:
    void add(std::uint32_t id, std::shared_ptr<const Value> value) {
      if (newer_.size() >= COWSHED_PYTHON_IDS) older_ = std::exchange(newer_, {});
      newer_.insert_or_assign(id, std::move(value));
    }
    std::shared_ptr<const Value> find(std::uint32_t id) {
      if (const auto found = newer_.find(id); found != newer_.end()) return found->second;
      auto found = older_.extract(id);
      if (!found) return nullptr;
      std::shared_ptr<const Value> value = std::move(found.mapped());
      add(id, value);
      return value;
    }

   private:
    std::unordered_map<std::uint32_t, std::shared_ptr<const Value>> newer_;
    std::unordered_map<std::uint32_t, std::shared_ptr<const Value>> older_;
  };

  Recent<PythonCode> codes_;
  Recent<Type> types_;
};

}  // namespace cowshed
