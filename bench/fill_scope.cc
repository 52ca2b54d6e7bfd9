#include <memory>

#include <cowshed/share/arena.h>
#include <cowshed/share/arena_scope.h>

#include "fill_work.h"
#include "program.h"

// `fill` starts this program, which is linked with cowshed::malloc, to measure malloc in an
// ArenaScope.
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

  Arena arena = Arena::create({.name = "fill", .capacity = 4_GiB}).value();
};

std::unique_ptr<SubjectWork> make_work(const nlohmann::json& configuration) {
  if (configuration["variant"] == "scope") return std::make_unique<FillWork<Scope>>(configuration);
  return std::make_unique<FillWork<Malloc>>(configuration);
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  return cowshed::bench::run_subject_program(argc, argv, cowshed::bench::make_work);
}
