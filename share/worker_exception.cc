#include <algorithm>
#include <cctype>
#include <new>
#include <string_view>

#include <cowshed/share/content.h>
#include <cowshed/share/worker_exception.h>
#include <cowshed/share/worker_function.h>

namespace cowshed::internal {
namespace {

constinit const WorkerException* first_exception = nullptr;

const WorkerException* find(std::string_view type) {
  for (const WorkerException* known = first_exception; known != nullptr; known = known->next) {
    if (type == known->type->name()) {
      return known;
    }
  }
  return nullptr;
}

std::string one_line(std::string_view text) {
  constexpr std::size_t kMost = 2048;
  std::string line(text.substr(0, kMost));
  std::replace_if(
      line.begin(), line.end(),
      [](char c) { return std::iscntrl(static_cast<unsigned char>(c)) != 0; }, ' ');
  return line;
}

}  // namespace

std::string text_of(const std::exception& exception) {
  const char* text = exception.what();
  return text != nullptr ? one_line(text)
                         : readable_name(typeid(exception).name()) + ", whose what() is null";
}

WorkerException::WorkerException(const std::type_info& its_type, Encode* its_encode,
                                 Decode* its_decode) noexcept
    : type(&its_type), encode(its_encode), decode(its_decode), next(first_exception) {
  first_exception = this;
}

Content encode_exception(const std::exception& exception) {
  const WorkerException* known = find(typeid(exception).name());
  if (known == nullptr) {
    return encode_failure(text_of(exception));
  }
  try {
    Encoder to;
    to.put(text_of(exception)).put(std::string(known->type->name()));
    known->encode(to, exception);
    return to.finish();
  } catch (...) {
    return encode_failure(text_of(exception));
  }
}

Content encode_failure(const std::string& text) {
  Encoder to;
  to.put(one_line(text)).put(std::string());
  return to.finish();
}

Failure decode_failure(Content content) {
  Failure failure;
  try {
    Decoder from(std::move(content));
    failure.text = from.take<std::string>();
    const WorkerException* known = find(from.take<std::string>());
    if (known != nullptr) {
      failure.exception = known->decode(from);
    }
  } catch (const std::exception& damaged) {
    failure.text += failure.text.empty() ? text_of(damaged) : "";
  } catch (...) {  // of a Codec
  }
  return failure;
}

}  // namespace cowshed::internal

COWSHED_EXCEPTION(std::runtime_error);
COWSHED_EXCEPTION(std::range_error);
COWSHED_EXCEPTION(std::overflow_error);
COWSHED_EXCEPTION(std::underflow_error);
COWSHED_EXCEPTION(std::logic_error);
COWSHED_EXCEPTION(std::domain_error);
COWSHED_EXCEPTION(std::invalid_argument);
COWSHED_EXCEPTION(std::length_error);
COWSHED_EXCEPTION(std::out_of_range);
