#include <memory>

#include <cowshed/share/arena.h>
#include <cowshed/share/arena_scope.h>

#include "fill_malloc.h"
#include "got.h"
#include "late_frees.h"
#include "program.h"

// What `fill` and `allocators` start to measure malloc in an ArenaScope: a program that is linked
// with cowshed::malloc.
namespace cowshed::bench {
namespace {

struct Scope {
  class Thread {
   public:
    explicit Thread(Scope& backend) : scope_(ArenaScope::enter(backend.arena).value()) {}
    void* allocate(std::size_t size) { return std::malloc(size); }
    void deallocate(void* block, std::size_t) { std::free(block); }

   private:
    ArenaScope scope_;
  };

  void seal() { got(arena.freeze()); }

  Arena arena = Arena::create({.name = "fill", .capacity = 4_GiB}).value();
};

std::unique_ptr<SubjectWork> make_work(const nlohmann::json& configuration) {
  if (configuration["variant"] == "scope") return make_fill_work<Scope>(configuration);
  return make_fill_work<Malloc>(configuration);
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  return cowshed::bench::run_subject_program(argc, argv, cowshed::bench::make_work);
}
