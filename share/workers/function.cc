
#include <cowshed/base/exception_text.h>
#include <cowshed/share/workers/function.h>

// The list of registered functions, and the search in it.
namespace cowshed::internal {
namespace {

// The list of all functions.  It changes only while libraries are loaded.
constinit const WorkerFunction* first_function = nullptr;

// Returns "search" for "cowshed::internal::NameOf<&search, int (*)(int)>": the text between the
// first bracket and the last comma outside inner brackets.
std::string argument_of(const std::string& tag) {
  const std::size_t begin = tag.find('<') + 1;
  std::size_t comma = tag.size();
  int depth = 0;
  for (std::size_t i = begin; i < tag.size(); ++i) {
    const char c = tag[i];
    depth += static_cast<int>(c == '<' || c == '(' || c == '{');
    depth -= static_cast<int>(c == '>' || c == ')' || c == '}');
    if (c == ',' && depth == 0) comma = i;
  }
  const std::string name = tag.substr(begin, comma - begin);
  return name.starts_with('&') ? name.substr(1) : name;
}

std::string readable_name(const std::string& mangled) {
  return argument_of(demangled(mangled.c_str()));
}

}  // namespace

WorkerFunction::WorkerFunction(const char* its_name, std::uint64_t its_layout,
                               WorkerCall* its_call) noexcept
    : name(its_name), layout(its_layout), call(its_call), next(first_function) {
  first_function = this;
}

Expected<const WorkerFunction*> find_worker_function(const std::string& name,
                                                     std::uint64_t layout) {
  const WorkerFunction* found = nullptr;
  for (const WorkerFunction* function = first_function; function != nullptr;
       function = function->next) {
    if (name != function->name) continue;
    if (found != nullptr && found->call != function->call) {
      return make_error(ErrorCode::invalid_argument,
                        "two functions of different files are called " + readable_name(name) +
                            "; rename one, or take it out of its unnamed namespace");
    }
    found = function;
  }
  if (found == nullptr) {
    const std::string readable = readable_name(name);
    return make_error(ErrorCode::not_registered,
                      "no worker function " + readable +
                          " here; put COWSHED_WORKER() with its name into one of the program's "
                          "files");
  }
  if (found->layout != layout) {
    return make_error(ErrorCode::invalid_argument,
                      readable_name(name) +
                          ": the types of its parameters or value have other sizes here; build "
                          "both programs of the same definitions");
  }
  return found;
}

}  // namespace cowshed::internal
