#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "applications_records.h"

namespace cowshed::bench {

// A dictionary of records that are written to, as a key-value server has one.
class RecordStore {
 public:
  RecordStore() = default;
  virtual ~RecordStore() = default;
  RecordStore(const RecordStore&) = delete;
  RecordStore& operator=(const RecordStore&) = delete;

  // Reads the record's version and writes the next.
  virtual void update(std::uint64_t number) = 0;
  // Before a fork that is to see all of it.
  virtual void prepare_fork() = 0;
  // All records.
  virtual std::uint64_t write_all() const = 0;
};

// "heap": one table, written in place.  "arena": frozen tables, of which a later one has what was
// written since the earlier, and one on the heap for what was written since the last.
std::unique_ptr<RecordStore> make_record_store(const std::string& way, const RecordSet& set);

}  // namespace cowshed::bench
